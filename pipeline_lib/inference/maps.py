"""Anomaly maps as volumes: complete, zero outside the brain, smoothed as they are judged.

They lie in the space of the preprocessed scan, MNI152 as a rule; `native` takes them to the scan as it came.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline_lib.inference.geometry import affine_of, stack_slices, write_nifti
from pipeline_lib.metrics.smoothing import smooth

NAME = "_desc-anomaly_map.nii.gz"
Array = NDArray[np.float32]


def write_maps(folder: Path, maps: Array, masks: NDArray[np.bool_], index: pd.DataFrame, smoothing_mm: float) -> None:
    """Write ``{scan}_desc-anomaly_map.nii.gz`` and its JSON for every scan that has coordinates; pictures have none.

    Args:
        folder: made where there is something to write.
        maps: squared difference to the reconstruction, ``(N, *spatial)``.
        masks: brain, of the same shape.
        index: a row an image, with ``scan``, ``affine`` and ``space``.
        smoothing_mm: sigma of the Gaussian that evaluation uses.
    """
    index = index.reset_index(drop=True)
    for scan, rows in index.groupby("scan"):
        affines = [affine for affine in map(affine_of, rows["affine"].astype(str)) if affine is not None]
        if not affines:
            continue
        sigma = smoothing_mm / float(np.linalg.norm(affines[0][:3, 0]))
        own = smooth(maps[rows.index][:, None], masks[rows.index][:, None], sigma)[:, 0]
        space = str(rows["space"].iloc[0]) if "space" in rows else ""
        sidecar = {
            "Sources": [str(scan)],
            "Description": "squared difference to the healthy reconstruction, 0 outside the brain",
            "SmoothingSigmaMillimetres": smoothing_mm,
            "Space": space or "unknown",
        }
        if own.ndim == 4:
            volume, affine = own[0], affines[0]
        else:
            stacked = stack_slices(own, affines)
            inside = stack_slices(masks[rows.index].astype(np.float32), affines).values >= 0.5
            volume, affine = np.where(inside, stacked.values, 0), stacked.affine
            planes = range(volume.shape[2])
            sidecar |= {"InferredPlanes": stacked.given} | {
                "InterpolatedPlanes": [plane for plane in planes if plane not in set(stacked.given)]
            }
        folder.mkdir(exist_ok=True)
        write_nifti(folder / f"{scan}{NAME}", volume[None], affine, sidecar, space)
