"""Anomaly scores that need no training: what a trained model has to beat.

Lesions are bright on FLAIR, T2 and PD images and dark on T1 images, and mostly on one side. Every score here is
computed from maps that are smoothed already, since the excess over the other side is not linear; the model's
maps get the same smoothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

NORMAL_MAD = 0.6745
"""Median absolute deviation of a standard normal."""
NEIGHBOURHOOD = 5
"""Voxels along each axis of the mirrored neighbourhood: as far as a head is off its midline, and sulci differ."""


Dark = bool | NDArray[np.bool_]
"""Whether lesions are darker than what they lie in, of all images or of each, ``(N,)``."""


def intensity_map(images: NDArray[np.floating], mask: NDArray[np.bool_], *, dark: Dark = False) -> NDArray[np.float32]:
    """Intensity of ``(N, C, *spatial)`` images averaged over channels, as robust z-scores of each image's brain.

    The median and the median absolute deviation stand for mean and standard deviation: a large lesion does
    not put itself into its own scale.

    Returns:
        ``(N, 1, *spatial)``; zero outside ``mask`` ``(N, 1, *spatial)``; turned round where lesions are ``dark``.
    """
    grey = np.asarray(images, dtype=np.float32).mean(axis=1, keepdims=True)
    scores = np.zeros_like(grey)
    for image, inside, score in zip(grey, mask, scores, strict=True):
        values = image[inside]
        if not values.size:
            continue
        middle = np.median(values)
        spread = np.median(np.abs(values - middle)) / NORMAL_MAD
        if spread > 0:
            score[inside] = (values - middle) / spread
    return scores * sign_of(dark, scores)


def sign_of(dark: Dark, images: NDArray[np.floating]) -> NDArray[np.float32]:
    """-1 where lesions are dark, else 1, to be multiplied with ``images (N, ...)``."""
    signs = np.where(np.broadcast_to(dark, len(images)), -1, 1).astype(np.float32)
    return signs.reshape(-1, *[1] * (images.ndim - 1))


def excess_map(scores: NDArray[np.floating], mask: NDArray[np.bool_], left_right: int) -> NDArray[np.float32]:
    """How far scores ``(N, 1, *spatial)`` exceed the highest score around the mirrored place; zero outside ``mask``.

    Args:
        scores: smoothed scores of images centred on the midline.
        mask: brain, of the same shape.
        left_right: the spatial axis from left to right.
    """
    size = (1, 1, *[NEIGHBOURHOOD] * (scores.ndim - 2))
    highest = maximum_filter(np.flip(scores, axis=left_right + 2), size=size, mode="nearest")
    return np.where(mask, scores - highest, 0).astype(np.float32)


@dataclass(frozen=True)
class Standard:
    """Mean and standard deviation of a score inside healthy brains."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, scores: NDArray[np.floating], mask: NDArray[np.bool_]) -> Standard:
        """Of the scores ``(N, 1, *spatial)`` of healthy images inside ``mask``.

        Raises:
            ValueError: the mask is empty.
        """
        if not mask.any():
            raise ValueError("no brain voxel to standardise a score on")
        inside = np.asarray(scores, dtype=np.float64)[mask]
        return cls(float(inside.mean()), max(float(inside.std()), 1e-6))

    def __call__(self, scores: NDArray[np.floating]) -> NDArray[np.float32]:
        """The scores in these units."""
        return ((np.asarray(scores) - self.mean) / self.deviation).astype(np.float32)


Units = Mapping[str, Standard]
"""The unit of each part of a score; where there are several contrasts, of ``part contrast``."""


def units_of(
    parts: Mapping[str, NDArray[np.floating]], mask: NDArray[np.bool_], contrasts: Sequence[str] | NDArray[np.object_]
) -> dict[str, Standard]:
    """Units of parts ``(N, 1, *spatial)`` of healthy images, each contrast its own where there are several."""
    contrasts = np.asarray(contrasts, dtype=object)
    known = sorted(set(contrasts))
    if len(known) == 1:
        return {name: Standard.of(part, mask) for name, part in parts.items()}
    rows = {contrast: contrasts == contrast for contrast in known}
    return {
        f"{name} {contrast}": Standard.of(part[own], mask[own])
        for name, part in parts.items()
        for contrast, own in rows.items()
    }


def in_units(
    units: Units, name: str, scores: NDArray[np.floating], contrasts: Sequence[str] | NDArray[np.object_]
) -> NDArray[np.float32]:
    """A part ``(N, 1, *spatial)`` in its unit, that of each image's contrast."""
    if name in units:
        return units[name](scores)
    found = np.empty(scores.shape, np.float32)
    contrasts = np.asarray(contrasts, dtype=object)
    for contrast in set(contrasts):
        own = contrasts == contrast
        found[own] = units[f"{name} {contrast}"](scores[own])
    return found
