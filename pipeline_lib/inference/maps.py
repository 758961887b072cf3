"""Anomaly maps as volumes: complete, as they are judged.

They lie in the space of the preprocessed scan, MNI152 as a rule; `native` takes them to the scan as it came.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline_lib.bundle_plan import is_mark
from pipeline_lib.config.schema import EvaluationOptions, ScoreOptions
from pipeline_lib.inference.geometry import affine_of, stack_slices, write_nifti

NAME = "_desc-anomaly_map.nii.gz"
Array = NDArray[np.float32]


def write_maps(
    folder: Path,
    maps: Array,
    masks: NDArray[np.bool_],
    index: pd.DataFrame,
    options: EvaluationOptions,
    threshold: float | None,
) -> None:
    """Write ``{scan}_desc-anomaly_map.nii.gz`` and its JSON for every scan that has coordinates; pictures have none.

    Args:
        folder: made where there is something to write.
        maps: smoothed scores, zero outside the brain, ``(N, *spatial)``.
        masks: brain, of the same shape.
        index: a row an image, with ``scan``, ``affine`` and ``space``.
        options: how they were made, for the JSON.
        threshold: from which value on a voxel is marked, for the JSON; None where none has been chosen yet.
    """
    index = index.reset_index(drop=True)
    for scan, rows in index.groupby("scan"):
        affines = [affine for affine in map(affine_of, rows["affine"].astype(str)) if affine is not None]
        if not affines:
            continue
        own = maps[rows.index]
        space = str(rows["space"].iloc[0]) if "space" in rows else ""
        sidecar = {
            "Sources": [str(scan)],
            "Description": _description(options.score),
            "Smoothing": options.smoothing,
            "SmoothingMillimetres": options.smoothing_mm,
            "Space": space or "unknown",
        } | ({} if threshold is None else {"Threshold": threshold})
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


def _description(score: ScoreOptions) -> str:
    """What a value of the map is."""
    if list(score.weights) == ["residual"]:
        return f"{score.residual} difference to the healthy reconstruction, 0 outside the brain"
    if list(score.weights) == ["residual_by_place"]:
        return f"{score.residual} difference to the healthy reconstruction, in standard deviations of its place, 0 outside the brain"
    if is_mark(score.weights):
        return "the network's own mark of a lesion, from 0 to 1 (logistic function of its smoothed logits), 0 outside the brain"
    if len(score.weights) == 1:
        return f"{next(iter(score.weights))}, in its own units, 0 outside the brain"
    parts = " + ".join(f"{weight:g} {name}" for name, weight in score.weights.items())
    return f"{parts}, in standard deviations of healthy training images, 0 outside the brain"
