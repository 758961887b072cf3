"""Where the voxels of training images lie, and how much of the brain lies outside them.

Grids follow the scan's own voxel axes, so that without ``voxel_size`` no value is interpolated. 2D
images are laid out as they are looked at: rows run downwards (anterior or superior first), columns
from left to right (sagittal: from posterior to anterior). 3D images keep RAS order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import nibabel
import numpy as np
from numpy.typing import NDArray

from pipeline_lib.config.schema import DataOptions
from pipeline_lib.dataset.image import FieldOfView, LeftOut
from pipeline_lib.dataset.volumes import ChannelVolume, centroid

MNI_BRAIN_CENTRE = (0.0, -18.0, 6.0)
"""Middle of the box around the MNI152 brain, mm: every scan in that space is cropped about it."""
PLANES = {"sagittal": (2, 1, 0), "coronal": (2, 0, 1), "axial": (1, 0, 2)}
"""Plane -> RAS axes of the rows, the columns and across."""
LEVELS = 16
"""A suggested size is a multiple of this, which networks of up to five resolutions need."""


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a training image lie: ``affine`` from (i, j, k) to RAS mm, and the grid's size.

    A slice has three axes too, the last of length 1; ``position`` is its place along the plane's axis, mm.
    """

    affine: NDArray[np.float64]
    shape: tuple[int, int, int]
    position: float | None = None


def grids_of(reference: ChannelVolume, brain: ChannelVolume, data: DataOptions, *, in_mni: bool) -> list[Grid]:
    """The grids of all training images of a scan, along the voxel axes of ``reference``.

    The centre is that of the template's brain in MNI152 space, and the brain's own centroid elsewhere.

    Raises:
        LeftOut: no slice lies within the scan, or the brain mask is empty.
    """
    centre = np.array(MNI_BRAIN_CENTRE) if in_mni else centroid(brain)
    return [_volume_grid(reference, centre, data)] if data.dimensions == 3 else _slice_grids(reference, centre, data)


def _volume_grid(reference: ChannelVolume, centre: NDArray[np.float64], data: DataOptions) -> Grid:
    steps = _steps(reference, data)
    inner = np.eye(4)
    inner[:3, :3] = np.diag(steps)
    inner[:3, 3] = _starts(_voxel(reference, centre), data.size, steps, data)
    return Grid(reference.affine @ inner, (data.size[0], data.size[1], data.size[2]))


def _slice_grids(reference: ChannelVolume, centre: NDArray[np.float64], data: DataOptions) -> list[Grid]:
    down, right, across = PLANES[data.slices.plane]
    steps = _steps(reference, data)
    plane = [down, right]
    start = _starts(_voxel(reference, centre)[plane], data.size, steps[plane], data)
    grids, seen = [], set()
    count = int(np.floor((data.slices.to_mm - data.slices.from_mm) / data.slices.every_mm + 1e-6)) + 1
    for position in data.slices.from_mm + data.slices.every_mm * np.arange(count):
        point = centre.copy()
        point[across] = position
        depth = float(_voxel(reference, point)[across])
        depth = round(depth) if data.voxel_size is None else depth
        if not 0 <= depth <= reference.values.shape[1 + across] - 1 or depth in seen:
            continue
        seen.add(depth)
        inner = np.zeros((4, 4))
        inner[3, 3] = 1
        inner[down, 0] = -steps[down]
        inner[down, 3] = start[0] + (data.size[0] - 1) * steps[down]
        inner[right, 1] = steps[right]
        inner[right, 3] = start[1]
        inner[across, 2] = 1
        inner[across, 3] = depth
        grids.append(Grid(reference.affine @ inner, (data.size[0], data.size[1], 1), float(position)))
    if not grids:
        ends = np.array([[0, 0, 0], np.array(reference.values.shape[1:]) - 1])
        low, high = sorted(nibabel.affines.apply_affine(reference.affine, ends)[:, across])
        raise LeftOut(
            f"no {data.slices.plane} slice between {data.slices.from_mm:g} and {data.slices.to_mm:g} mm: "
            f"the scan reaches from {low:.0f} to {high:.0f} mm; change data.slices"
        )
    return grids


def _steps(reference: ChannelVolume, data: DataOptions) -> NDArray[np.float64]:
    """Distance of a grid's neighbours, in voxels of the reference."""
    return np.ones(3) if data.voxel_size is None else data.voxel_size / reference.zooms


def _voxel(reference: ChannelVolume, point: NDArray[np.float64]) -> NDArray[np.float64]:
    voxel: NDArray[np.float64] = nibabel.affines.apply_affine(np.linalg.inv(reference.affine), point)
    return voxel


def _starts(
    centre: NDArray[np.float64], shape: Sequence[int], steps: NDArray[np.float64], data: DataOptions
) -> NDArray[np.float64]:
    """First voxel of a grid about ``centre``; a whole one where nothing is resampled."""
    first = centre - (np.array(shape) - 1) / 2 * steps
    return np.round(first) if data.voxel_size is None else first


def field_of_view(brain: ChannelVolume, grids: Sequence[Grid]) -> FieldOfView:
    """Measure how much of a brain mask the grids hold.

    Args:
        brain: mask, at least .5 inside.
        grids: of one scan; slices of one plane share their rows and columns.
    """
    shape = np.array(grids[0].shape)
    used = np.flatnonzero(shape > 1)
    to_grid = np.linalg.inv(grids[0].affine) @ brain.affine
    places = nibabel.affines.apply_affine(to_grid, np.argwhere(brain.values[0] >= 0.5))
    if len(used) == 2:
        depths = np.array([(np.linalg.inv(grids[0].affine) @ grid.affine)[2, 3] for grid in grids])
        half = np.linalg.norm(brain.affine[:3, :3] @ (np.linalg.inv(to_grid)[:3, 2] / 2))
        half /= np.linalg.norm(grids[0].affine[:3, 2])
        near = np.abs(places[:, 2, None] - depths).min(1) <= half + 1e-3
        places = places[near]
    if not len(places):
        return FieldOfView(0.0, tuple(int(n) for n in shape[used]))
    places, shape = places[:, used], shape[used]
    inside = ((places >= -0.5) & (places <= shape - 0.5)).all(1)
    reach = np.abs(places - (shape - 1) / 2).max(0)
    needed = np.ceil((2 * reach + 1 - 1e-6) / LEVELS) * LEVELS
    return FieldOfView(float(1 - inside.mean()), tuple(int(n) for n in needed))
