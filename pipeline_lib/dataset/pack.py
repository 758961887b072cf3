"""From a preprocessed chunk to one memory-mapped array of training images."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from pipeline_lib.config.schema import DataOptions
from pipeline_lib.dataset.growing import GrowingArray
from pipeline_lib.dataset.image import MOST_OUTSIDE, FieldOfView, LeftOut, TrainingImage
from pipeline_lib.dataset.pairs import Status, outputs_of, source_and_target
from pipeline_lib.dataset.prepared import write_prepared
from pipeline_lib.files import atomic_directory, read_table, write_json, write_table

log = logging.getLogger("pipeline")

FROM_STATUS = (
    "scan", "participant", "session", "group", "age", "sex", "site", "covariates", "lesion", "sha256", "voxels_sha256",
)  # fmt: skip
ImagesOf = Callable[[Status, "Status | None"], Iterable[TrainingImage]]
"""The training images of a scan and its partner, if it has one."""
COLUMNS = (*FROM_STATUS, "slice", "has_lesion", "affine", "space", "brain_outside")


def pack_chunk(preprocessed: Path, data: DataOptions, out: Path, *, alone: bool = False) -> None:
    """Pack the scans of one preprocessed chunk that a recipe sees.

    Writes ``data.npy`` float32 (N, C, *size) in [-1, 1], ``mask.npy`` uint8 (N, 1, *size), ``index.tsv``,
    ``left_out.tsv`` (scan, reason), ``layout.json`` and ``prepared.json``; in the index the modality, where there are several; ``target.npy`` where ``data.target`` is set and
    ``lesion.npy`` where a scan has one. A chunk may hold no image at all: N is then 0.

    Args:
        preprocessed: chunk folder with ``status.tsv``.
        data: what the recipe sees of each scan.
        out: folder to write, complete or not at all.
        alone: keep sources without a target, which is NaN.
    """
    root = Path(preprocessed)
    pairs, left_out = source_and_target(read_table(root / "status.tsv"), data, alone=alone)
    lesions = any("lesion" in outputs_of(row) for pair in pairs for row in pair if row is not None)
    columns = COLUMNS if len(data.modalities) == 1 else (*COLUMNS, "modality")
    rows: list[dict[str, Any]] = []
    views: list[FieldOfView] = []
    with atomic_directory(out) as folder:
        with ExitStack() as stack:
            arrays = _arrays(folder, data, lesions=lesions, stack=stack)
            images_of = _pictures(root, data) if data.modality == "image" else _scans(root, data)
            for row, partner in pairs:
                try:
                    packed = list(images_of(row, partner))
                except LeftOut as reason:
                    left_out.append({"scan": row["scan"], "reason": str(reason)})
                    continue
                for image in packed:
                    _append(arrays, image, data)
                    rows.append({**_index_row(row, image), "modality": row["modality"]})
                views += [image.view for image in packed[:1] if image.view is not None]
        write_table(folder / "index.tsv", columns, rows)
        write_table(folder / "left_out.tsv", ("scan", "reason"), left_out)
        write_json(folder / "layout.json", _layout(data))
        write_prepared(folder, Path(preprocessed), data)
    for row in left_out:
        log.warning("%s left out of the dataset: %s", row["scan"], row["reason"])
    log.info("%s: %d images of %d scans", Path(out).name, len(rows), len({row["scan"] for row in rows}))
    _warn_of_cut_brains(views, data)


def _scans(root: Path, data: DataOptions) -> ImagesOf:
    from pipeline_lib.dataset.scans import images_of_scan  # libraries that take seconds to import

    return lambda row, partner: images_of_scan(root, row, partner, data)


def _pictures(root: Path, data: DataOptions) -> ImagesOf:
    from pipeline_lib.dataset.pictures import images_of_pictures
    from pipeline_lib.imaging.stacks import Stacks

    stacks = Stacks(root)
    return lambda row, _: images_of_pictures(stacks, row, data)


def _arrays(folder: Path, data: DataOptions, *, lesions: bool, stack: ExitStack) -> dict[str, GrowingArray]:
    """The files of a chunk, open: name of a `TrainingImage`'s array to where its rows go."""
    kinds = {"data": (data.channels, "<f4"), "mask": (1, "|u1")}
    kinds |= {"target": (data.target_channels, "<f4")} if data.target else {}
    kinds |= {"lesion": (1, "|u1")} if lesions else {}
    return {
        name: stack.enter_context(GrowingArray(folder / f"{name}.npy", (channels, *data.size), dtype))
        for name, (channels, dtype) in kinds.items()
    }


def _append(arrays: dict[str, GrowingArray], image: TrainingImage, data: DataOptions) -> None:
    for name, array in arrays.items():
        values = getattr(image, name)
        if values is None:
            absent = np.full((data.target_channels, *data.size), np.nan, np.float32)
            values = absent if name == "target" else np.zeros_like(image.mask)
        array.append(values)


def _index_row(row: Status, image: TrainingImage) -> dict[str, Any]:
    return {column: row.get(column, "") for column in FROM_STATUS} | {
        "slice": "" if image.slice is None else image.slice,
        "has_lesion": "true" if image.lesion is not None and image.lesion.any() else "false",
        "affine": "" if image.affine is None else json.dumps(np.round(image.affine, 6).tolist()),
        "space": image.space,
        "brain_outside": "" if image.view is None else round(image.view.outside, 4),
    }


def _layout(data: DataOptions) -> dict[str, Any]:
    """How the arrays lie: ``left_right`` is the spatial axis between left and right, if there is one."""
    flat = data.dimensions == 2
    sagittal = flat and data.modality != "image" and data.slices.plane == "sagittal"
    return {
        "dimensions": data.dimensions,
        "size": list(data.size),
        "plane": data.slices.plane if flat and data.modality != "image" else None,
        "left_right": None if sagittal else (1 if flat else 0),
    }


def _warn_of_cut_brains(views: Sequence[FieldOfView], data: DataOptions) -> None:
    """Say how much of the brain the images leave out, and what size would hold it; a view a scan."""
    cut = [view for view in views if view.outside > MOST_OUTSIDE]
    if not cut:
        return
    needed = np.max([view.needed for view in cut], axis=0).tolist()
    log.warning(
        "%d of %d scans: images of %s leave out %.1f %% of the brain (worst scan %.1f %%); data.size: %s holds all of it",
        len(cut),
        len(views),
        " x ".join(map(str, data.size)),
        100 * np.mean([view.outside for view in cut]),
        100 * max(view.outside for view in cut),
        needed,
    )
