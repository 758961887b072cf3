"""How a score varies from place to place in healthy brains: what is rare at the cortex may be common at the ventricles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter

from pipeline_lib.files import atomic_path

SIGMA = 2.0
"""Of the Gaussian that smooths the maps within an image, voxels."""
SIGMA_LEVELS = 1.0
"""The same across slices, levels."""
PRIOR_IMAGES = 5.0
"""So many images have, at every place, the score that all healthy brain has: where few are known, it decides."""
LEAST_DEVIATION = 0.5
"""Share of the deviation over all healthy brain that none at a place lies below."""
Maps = NDArray[np.floating]


@dataclass(frozen=True)
class Places:
    """Mean and standard deviation of a score at every place of healthy brains.

    Attributes:
        levels: ``(L,)``, positions of slices, mm; one level where images have none.
        mean, deviation: ``(L, *spatial)``.
    """

    levels: NDArray[np.float64]
    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]

    @classmethod
    def of(cls, scores: Maps, mask: NDArray[np.bool_], levels: ArrayLike) -> Places:
        """Weighted moments of healthy scores ``(N, 1, *spatial)`` inside ``mask`` around each place.

        Weights fall off with the distance as a Gaussian. `PRIOR_IMAGES` images with the moments of all healthy brain
        are added everywhere, and no deviation lies below `LEAST_DEVIATION` of that of all healthy brain.

        Args:
            levels: of each image, ``(N,)``.

        Raises:
            ValueError: the mask is empty.
        """
        if not mask.any():
            raise ValueError("no brain voxel to learn places from")
        known, which = np.unique(np.asarray(levels, dtype=np.float64), return_inverse=True)
        inside = mask[:, 0]
        values = np.where(inside, scores[:, 0], 0).astype(np.float64)
        every = np.asarray(scores, dtype=np.float64)[mask]
        overall, variance = every.mean(), every.var()

        def around(each: NDArray[np.float64], prior: float) -> NDArray[np.float64]:
            sums = np.zeros((len(known), *each.shape[1:]))
            np.add.at(sums, which, each)
            spread = (SIGMA_LEVELS, *[SIGMA] * (sums.ndim - 1))
            smooth: NDArray[np.float64] = gaussian_filter(sums, spread, mode="constant")
            return smooth + PRIOR_IMAGES * prior

        weight = around(inside.astype(np.float64), 1.0)
        mean = around(values, overall) / weight
        square = around(values**2, variance + overall**2) / weight
        least = max(LEAST_DEVIATION * float(np.sqrt(variance)), 1e-6)
        deviation = np.sqrt(np.maximum(square - mean**2, least**2))
        return cls(known, mean.astype(np.float32), deviation.astype(np.float32))

    def __call__(self, scores: Maps, mask: NDArray[np.bool_], levels: ArrayLike) -> NDArray[np.float32]:
        """Scores ``(N, 1, *spatial)`` in standard deviations of their place, of the nearest level; zero outside ``mask``."""
        distance = np.abs(np.asarray(levels, dtype=np.float64)[:, None] - self.levels)
        nearest = distance.argmin(axis=1)
        found = (scores - self.mean[nearest][:, None]) / self.deviation[nearest][:, None]
        return np.where(mask, found, 0).astype(np.float32)

    def save(self, path: Path) -> None:
        """Write a compressed ``.npz``."""
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, levels=self.levels, mean=self.mean, deviation=self.deviation)

    @classmethod
    def read(cls, path: Path) -> Places:
        """What `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(*(arrays[name] for name in ("levels", "mean", "deviation")))


def levels_of(index: pd.DataFrame) -> NDArray[np.float64]:
    """Positions of slices, mm, from the rows of an index; 0 of volumes and pictures, which have none."""
    positions = pd.to_numeric(index["slice"], errors="coerce").fillna(0.0)
    return positions.where(index["affine"].astype(str) != "", 0.0).to_numpy(dtype=np.float64)
