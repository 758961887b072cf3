"""Intensities of preprocessed scans brought to [-1, 1], the range of training images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline_lib.dataset.volumes import Array, LeftOut, Volume

LARGEST_Z = 4.0
"""Standard deviations that map to 1."""


def is_z_score(volume: Volume, brain: Volume) -> bool:
    """Whether the values are z-scores (True) or lie in [0, 1] (False).

    Raises:
        LeftOut: they are neither.
    """
    values = volume.values
    if values.min() >= -0.01 and values.max() <= 1.01:
        return False
    inside = values[:, brain.values[0] > 0] if brain.values.shape[1:] == values.shape[1:] else values
    if inside.size and values.min() < -0.01 and np.percentile(np.abs(inside), 99) < 3 * LARGEST_Z:
        return True
    raise LeftOut(
        f"intensities from {values.min():.3g} to {values.max():.3g} are neither in [0, 1] nor z-scores: "
        "set preprocess.intensity to percentile or zscore"
    )


def to_range(values: Array, mask: NDArray[np.uint8], *, z_scores: bool) -> Array:
    """To [-1, 1], background -1: [0, 1] linearly, z-scores clipped at ±4 and divided by 4."""
    if z_scores:
        return np.where(mask > 0, np.clip(values / LARGEST_Z, -1, 1), -1).astype(np.float32)
    return (np.clip(values, 0, 1) * 2 - 1).astype(np.float32)
