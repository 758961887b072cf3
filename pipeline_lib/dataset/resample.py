"""Values of a volume on other grids."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline_lib.dataset.grids import Grid
from pipeline_lib.dataset.image import Array, at_least_half
from pipeline_lib.dataset.volumes import ChannelVolume


def resample(volume: ChannelVolume, grids: Sequence[Grid]) -> list[Array]:
    """``volume`` on each grid, (C, *grid.shape), linearly interpolated, 0 outside.

    Where a grid is coarser than the volume, the volume is smoothed first by a Gaussian of
    sigma (step - 1) / 2 voxels along that axis, as skimage.transform.resize does.
    """
    values, inverse = volume.values, np.linalg.inv(volume.affine)
    turn = (inverse @ grids[0].affine)[:3, :3]
    used = [axis for axis, length in enumerate(grids[0].shape) if length > 1]
    steps = np.linalg.norm(turn[:, used], axis=1)
    sigma = [0.0, *np.maximum(0, (steps - 1) / 2)]
    if max(sigma) > 0.01:
        values = ndimage.gaussian_filter(values, sigma, mode="constant")
    return [_interpolated(values, np.round(inverse @ grid.affine, 6), grid) for grid in grids]


def _interpolated(values: Array, to_voxel: NDArray[np.float64], grid: Grid) -> Array:
    turn, start = to_voxel[:3, :3], to_voxel[:3, 3]
    return np.stack(
        [
            ndimage.affine_transform(channel, turn, start, grid.shape, order=1, mode="constant")  # linear
            for channel in values
        ]
    )


def resample_mask(volume: ChannelVolume, grids: Sequence[Grid]) -> list[NDArray[np.uint8]]:
    """A mask on each grid: where at least half of a voxel is inside."""
    return [at_least_half(values) for values in resample(volume, grids)]
