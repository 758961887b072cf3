"""Anomaly maps as volumes: complete, zero outside the brain, smoothed as they are judged; in two spaces.

In the space of the preprocessed scan, MNI152 as a rule, and on the grid of the scan as it came.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk
from numpy.typing import NDArray

from pipeline_lib.errors import UserError
from pipeline_lib.files import atomic_directory, read_json, read_table, write_json
from pipeline_lib.imaging.nifti import read_volume, write_volume
from pipeline_lib.imaging.registration import native_map
from pipeline_lib.inference.geometry import SCANNER, SPACES, affine_of, stack_slices, write_nifti
from pipeline_lib.metrics.smoothing import smooth

log = logging.getLogger("pipeline")
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
        write_nifti(folder / f"{scan}{NAME}", volume[None], affine, sidecar, space=SPACES.get(space, SCANNER))


def write_native_maps(inferred: Path, preprocessed: Path, ingested: Path, out: Path) -> None:
    """Write ``{scan}_space-individual_desc-anomaly_map.nii.gz``: each map of a chunk on the grid of its scan.

    Args:
        inferred: chunk folder of `infer_anomaly`, with ``nifti/``.
        preprocessed: the same chunk preprocessed, with the transforms from MNI152 back to the scan.
        ingested: the same chunk ingested: the scans as they came, in RAS+ voxel order.
        out: folder to write, complete or not at all.

    Raises:
        UserError: a scan of a map is in neither chunk.
    """
    known, scans = _outputs(preprocessed), _outputs(ingested)
    with atomic_directory(out) as folder:
        for path in sorted((inferred / "nifti").glob(f"*{NAME}")):
            scan = path.name.removesuffix(NAME)
            if scan not in known or scan not in scans:
                raise UserError(f"{path}: {scan} is not in {preprocessed} and {ingested}; run inference again")
            transform = _to_scan(known[scan])
            moved = native_map(read_volume(path), read_volume(scans[scan]["image"]), transform)
            target = folder / f"{scan}_space-individual{NAME}"
            write_volume(target, moved)
            about = read_json(path.with_name(path.name.replace(".nii.gz", ".json")))
            about = {key: value for key, value in about.items() if "Planes" not in key}
            sidecar = about | {"Space": "individual", "Sources": [path.name, *about["Sources"]]}
            write_json(target.with_name(target.name.replace(".nii.gz", ".json")), sidecar)
        log.info("%s: %d maps on the grids of their scans", out.name, len(list(folder.glob(f"*{NAME}"))))


def _outputs(chunk: Path) -> dict[str, dict[str, Path]]:
    return {
        row["scan"]: {name: chunk / path for name, path in json.loads(row["outputs"]).items()}
        for row in read_table(chunk / "status.tsv")
        if row["ok"] == "true"
    }


def _to_scan(outputs: dict[str, Path]) -> sitk.Transform:
    """From MNI152 to the scan; the identity where it was not registered."""
    if "to_scan" not in outputs:
        return sitk.Transform(3, sitk.sitkIdentity)
    return sitk.ReadTransform(str(outputs["to_scan"]))
