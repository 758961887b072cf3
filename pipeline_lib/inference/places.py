"""How a score varies from place to place in healthy brains: what is rare at the cortex may be common at the ventricles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter

from pipeline_lib.errors import UserError
from pipeline_lib.files import atomic_path

SIGMA = 2.0
"""Of the Gaussian that smooths the maps within an image, voxels."""
SIGMA_LEVELS = 1.0
"""The same across slices, levels."""
PRIOR_IMAGES = 5.0
"""So many images have, at every place, the score that all healthy brain has: where few are known, it decides."""
LEAST_DEVIATION = 0.5
"""Share of the deviation over all healthy brain that none at a place lies below."""
FIELDS = ("contrasts", "levels", "mean", "deviation")
Maps = NDArray[np.floating]


@dataclass(frozen=True)
class Places:
    """Mean and standard deviation of a score at every place of healthy brains, for each contrast.

    Attributes:
        contrasts, levels: ``(L,)``, of each map: the contrast, and the position of its slices, mm; one level where images
            have none.
        mean, deviation: ``(L, *spatial)``.
    """

    contrasts: NDArray[np.str_]
    levels: NDArray[np.float64]
    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]

    @classmethod
    def of(cls, scores: Maps, mask: NDArray[np.bool_], levels: ArrayLike, contrasts: ArrayLike) -> Places:
        """From healthy images, contrast by contrast, see `_of`.

        Args:
            scores, mask: ``(N, 1, *spatial)``.
            levels, contrasts: of each image, ``(N,)``.
        """
        names, positions = np.asarray(contrasts).astype(str), np.asarray(levels, dtype=np.float64)
        each = []
        for name in np.unique(names):
            own = names == name
            each.append(cls._of(scores[own], mask[own], positions[own], str(name)))
        return cls(*(np.concatenate([getattr(one, field) for one in each]) for field in FIELDS))

    @classmethod
    def _of(cls, scores: Maps, mask: NDArray[np.bool_], levels: NDArray[np.float64], contrast: str) -> Places:
        """Weighted moments of healthy scores ``(N, 1, *spatial)`` inside ``mask`` around each place.

        Weights fall off with the distance as a Gaussian. `PRIOR_IMAGES` images with the moments of all healthy brain
        are added everywhere, and no deviation lies below `LEAST_DEVIATION` of that of all healthy brain.

        Raises:
            ValueError: the mask is empty.
        """
        if not mask.any():
            raise ValueError("no brain voxel to learn places from")
        known, which = np.unique(levels, return_inverse=True)
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
        return cls(np.full(len(known), contrast), known, mean.astype(np.float32), deviation.astype(np.float32))

    def __call__(
        self, scores: Maps, mask: NDArray[np.bool_], levels: ArrayLike, contrasts: ArrayLike
    ) -> NDArray[np.float32]:
        """Scores ``(N, 1, *spatial)`` in standard deviations of their place, of the nearest level; zero outside ``mask``.

        Raises:
            UserError: healthy images of a contrast were never seen.
        """
        names = np.asarray(contrasts).astype(str)
        if unknown := sorted(set(names) - set(self.contrasts)):
            known = ", ".join(sorted(set(self.contrasts)))
            raise UserError(
                f"no healthy image of {unknown[0]} among the standards by place, which are of {known}: "
                "measure the standards again with healthy training images of it"
            )
        distance = np.abs(np.asarray(levels, dtype=np.float64)[:, None] - self.levels)
        other = names[:, None] != self.contrasts
        nearest = np.where(other, np.inf, distance).argmin(axis=1)
        found = (scores - self.mean[nearest][:, None]) / self.deviation[nearest][:, None]
        return np.where(mask, found, 0).astype(np.float32)

    def save(self, path: Path) -> None:
        """Write a compressed ``.npz``."""
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, **{name: getattr(self, name) for name in FIELDS})

    @classmethod
    def read(cls, path: Path) -> Places:
        """What `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(*(arrays[name] for name in FIELDS))


def levels_of(index: pd.DataFrame) -> NDArray[np.float64]:
    """Positions of slices, mm, from the rows of an index; 0 of volumes and pictures, which have none."""
    positions = pd.to_numeric(index["slice"], errors="coerce").fillna(0.0)
    return positions.where(index["affine"].astype(str) != "", 0.0).to_numpy(dtype=np.float64)
