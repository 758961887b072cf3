"""The smoothing that anomaly maps and their baselines share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter


def smooth(maps: NDArray[np.floating], mask: NDArray[np.bool_], sigma: float) -> NDArray[np.float32]:
    """Gaussian smoothing of maps ``(N, 1, *spatial)``, each on its own and zero outside its mask.

    Args:
        maps: scores per voxel.
        mask: brain, of the same shape.
        sigma: standard deviation in voxels; 0 leaves the maps as they are within the mask.
    """
    inside = np.where(mask, maps, 0).astype(np.float32)
    if sigma > 0:
        axes = tuple(range(2, inside.ndim))
        inside = gaussian_filter(inside, sigma, axes=axes)
    return np.where(mask, inside, 0).astype(np.float32)
