"""Intensities of preprocessed scans brought to [-1, 1], the range of training images."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline_lib.dataset.image import Array


def range_of(row: Mapping[str, str]) -> tuple[float, float]:
    """The values that become -1 and 1, as the status row of a scan says; 0 and 1 of signals and maps, which are shares."""
    return float(row.get("intensity_low") or 0), float(row.get("intensity_high") or 1)


def to_range(values: Array, mask: NDArray[np.uint8], low: float, high: float) -> Array:
    """``low`` to ``high`` linearly to [-1, 1], clipped; background -1."""
    scaled = np.clip((values - low) / (high - low), 0, 1) * 2 - 1
    return np.where((mask > 0) | (low == 0), scaled, -1).astype(np.float32)
