"""The training images of one scan: slices (2D) or a volume (3D) on grids of `DataOptions.size` voxels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pipeline_lib.config.schema import DataOptions
from pipeline_lib.dataset.grids import field_of_view, grids_of
from pipeline_lib.dataset.image import LeftOut, TrainingImage
from pipeline_lib.dataset.intensity import range_of, to_range
from pipeline_lib.dataset.pairs import Status, outputs_of
from pipeline_lib.dataset.resample import resample, resample_mask
from pipeline_lib.dataset.volumes import ChannelVolume, brain_of, read_volume, space_of

LEAST_BRAIN = 0.01
"""Slices with a smaller share of brain are dropped."""


def images_of_scan(root: Path, row: Status, partner: Status | None, data: DataOptions) -> Iterator[TrainingImage]:
    """The training images of one scan, and of its target where it has one.

    Args:
        root: folder of the preprocessed chunk.
        row: the scan's status; ``partner`` that of its target.

    Raises:
        LeftOut: why there are none.
    """
    outputs = {name: root / path for name, path in outputs_of(row).items()}
    source = _read_source(outputs["image"], row, data)
    shown, target = outputs, None
    if partner is not None:
        shown = {**outputs, **{name: root / path for name, path in outputs_of(partner).items()}}
        target = _read_target(shown["image"], data)
    reference = source if target is None else target
    brain = brain_of(shown, reference)
    space = space_of(shown["image"])
    grids = grids_of(reference, brain, data, in_mni=space == "MNI152")
    view = field_of_view(brain, grids)

    masks = resample_mask(brain, grids)
    lesions = resample_mask(read_volume(shown["lesion"]), grids) if "lesion" in shown else None
    ranges = [range_of(each) for each in (row, partner) if each is not None]
    sampled = [resample(volume, grids) for volume in (source, target) if volume is not None]
    for n, grid in enumerate(grids):
        if data.dimensions == 2 and masks[n].mean() < LEAST_BRAIN:
            continue
        scaled = [
            _flat(to_range(values[n], masks[n], *limits), data) for values, limits in zip(sampled, ranges, strict=True)
        ]
        yield TrainingImage(
            data=scaled[0],
            target=scaled[1] if target is not None else None,
            mask=_flat(masks[n], data),
            lesion=None if lesions is None else _flat(lesions[n], data),
            slice=None if grid.position is None else round(grid.position, 3),
            affine=grid.affine,
            space=space,
            view=view,
        )


def _read_source(path: Path, row: Status, data: DataOptions) -> ChannelVolume:
    source = read_volume(path)
    if len(source.values) != data.channels:
        found = f"{row['shells']} in " if row.get("shells") else ""
        raise LeftOut(
            f"{found}{len(source.values)} channels where data.channels is {data.channels}; all scans of a recipe have "
            f"one number: set data.channels to {len(source.values)}, or leave this scan out"
        )
    return source


def _read_target(path: Path, data: DataOptions) -> ChannelVolume:
    target = read_volume(path)
    if len(target.values) != data.target_channels:
        raise LeftOut(f"{len(target.values)} volumes in its target where target_channels is {data.target_channels}")
    return target


def _flat(values: NDArray[Any], data: DataOptions) -> NDArray[Any]:
    return values[..., 0] if data.dimensions == 2 else values
