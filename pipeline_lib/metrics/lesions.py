"""Lesions as objects: which are found, and how much is found that is none.

Connected components share an edge or a corner. A lesion is found when at least one of its voxels is; a detection that
touches no lesion is a false one. Sizes are in whatever unit a voxel is given in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import generate_binary_structure, label, sum_labels

Mask = NDArray[np.bool_]
Sizes = NDArray[np.float64]


@dataclass(frozen=True)
class Components:
    """Of one image: sizes of its true lesions with whether each was found, and of the detections that are none."""

    lesions: Sizes
    found: NDArray[np.bool_]
    false: Sizes

    def __add__(self, other: Components) -> Components:
        """Those of two images of one person."""
        return Components(
            np.concatenate([self.lesions, other.lesions]),
            np.concatenate([self.found, other.found]),
            np.concatenate([self.false, other.false]),
        )


def components(detected: Mask, truth: Mask, voxel: float = 1.0) -> Components:
    """Compare two masks ``(*spatial)`` component by component.

    Args:
        voxel: size of a voxel (mm^3), or area of a pixel (mm^2).
    """
    return Components(
        *_sizes_and_touched(truth, detected, voxel),
        _untouched(detected, truth, voxel),
    )


def _sizes_and_touched(mask: Mask, other: Mask, voxel: float) -> tuple[Sizes, NDArray[np.bool_]]:
    labels, number = label(mask, generate_binary_structure(mask.ndim, mask.ndim))
    places = np.arange(1, number + 1)
    sizes = np.atleast_1d(sum_labels(mask, labels, places)).astype(np.float64) * voxel
    return sizes, np.atleast_1d(sum_labels(other, labels, places)) > 0


def _untouched(mask: Mask, other: Mask, voxel: float) -> Sizes:
    sizes, touched = _sizes_and_touched(mask, other, voxel)
    return sizes[~touched]
