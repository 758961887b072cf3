"""The smoothing that anomaly maps and their baselines share."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, uniform_filter

Kernel = Literal["gaussian", "box"]


def smooth(
    maps: NDArray[np.floating], mask: NDArray[np.bool_], width: float, kernel: Kernel = "gaussian"
) -> NDArray[np.float32]:
    """Smoothing of maps ``(N, 1, *spatial)``, each on its own and zero outside its mask.

    Args:
        maps: scores per voxel.
        mask: brain, of the same shape.
        width: in voxels, the standard deviation of the Gaussian, or the side of the box, which is rounded to the next odd
            number; 0 leaves the maps as they are within the mask.
        kernel: the mean over a box is that of its voxels inside the mask; the Gaussian counts those outside as zero.
    """
    inside = np.where(mask, maps, 0).astype(np.float32)
    axes = tuple(range(2, inside.ndim))
    if kernel == "box":
        side = 2 * round((width - 1) / 2) + 1
        if side > 1:
            share = uniform_filter(mask.astype(np.float32), side, axes=axes, mode="constant")
            mean = uniform_filter(inside, side, axes=axes, mode="constant")
            inside = np.divide(mean, share, out=np.zeros_like(mean), where=mask)
    elif width > 0:
        inside = gaussian_filter(inside, width, axes=axes)
    return np.where(mask, inside, 0).astype(np.float32)
