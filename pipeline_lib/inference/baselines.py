"""Anomaly maps that need no training: what a trained model has to beat.

Lesions are bright on FLAIR, T2 and PD images and dark on T1 images, and mostly on one side. Smoothing
comes later and is the same for every method.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DARK_LESIONS = ("T1w",)


def intensity_map(
    images: NDArray[np.floating], mask: NDArray[np.bool_], *, modality: str = "FLAIR"
) -> NDArray[np.float32]:
    """Intensity of ``(N, C, *spatial)`` images averaged over channels, as z-scores of each image's brain.

    Returns:
        ``(N, 1, *spatial)``; zero outside ``mask`` ``(N, 1, *spatial)``; turned round for modalities
        on which lesions are dark.
    """
    grey = np.asarray(images, dtype=np.float32).mean(axis=1, keepdims=True)
    scores = np.zeros_like(grey)
    for image, inside, score in zip(grey, mask, scores, strict=True):
        values = image[inside]
        if values.size and values.std() > 0:
            score[inside] = (values - values.mean()) / values.std()
    return -scores if modality in DARK_LESIONS else scores


def asymmetry_map(intensity: NDArray[np.floating], left_right: int | None) -> NDArray[np.float32]:
    """Intensity plus how much it exceeds the mirrored side: ``z + (z - mirror(z))``.

    Linear in z, so that smoothing it afterwards equals comparing smoothed sides.

    Args:
        intensity: `intensity_map` of images centred on the midline, ``(N, 1, *spatial)``.
        left_right: the spatial axis from left to right; None (sagittal slices): intensity alone.
    """
    z = np.asarray(intensity, dtype=np.float32)
    return z if left_right is None else 2 * z - np.flip(z, axis=left_right + 2)
