"""Places of a scan that an anomaly map marks: connected parts above a threshold, the largest first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline_lib.imaging.nifti import Volume
from pipeline_lib.report.atlas import Regions

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Finding:
    """A part of a map above the threshold.

    Attributes:
        volume: mL.
        peak: its highest score.
        mean: of its scores.
        place: of the peak, mm to the right, to the front, up (RAS+).
        known: whether it touches a lesion that somebody drew; None where nobody looked.
        region: of the atlas, that holds the most of it; empty: none does; None: there is no atlas of its space.
        share: of its volume in that region.
    """

    volume: float
    peak: float
    mean: float
    place: tuple[float, float, float]
    known: bool | None
    region: str | None = None
    share: float = 0.0


def findings(
    scores: Volume, threshold: float, lesion: Mask | None = None, regions: Regions | None = None
) -> list[Finding]:
    """Parts that share an edge or a corner, by their volume.

    Args:
        scores: a map, ``(X, Y, Z)``.
        lesion: what is known to be lesion, on the same grid.
        regions: of an atlas, on the same grid.
    """
    labels, number = ndimage.label(scores.data >= threshold, ndimage.generate_binary_structure(3, 3))
    numbers = np.arange(1, number + 1)
    if not number:
        return []
    sizes = ndimage.sum_labels(np.ones_like(labels), labels, numbers)
    peaks = ndimage.maximum_position(scores.data, labels, numbers)
    means = ndimage.mean(scores.data, labels, numbers)
    touched = ndimage.sum_labels(lesion, labels, numbers) > 0 if lesion is not None else [None] * number
    boxes = zip(numbers, ndimage.find_objects(labels), strict=True)
    places = [regions.most(box, labels[box] == n) if regions else (None, 0.0) for n, box in boxes]
    found = [
        Finding(
            float(size) * scores.voxel_ml,
            float(scores.data[peak]),
            float(mean),
            _millimetres(scores, peak),
            None if known is None else bool(known),
            *place,
        )
        for size, peak, mean, known, place in zip(sizes, peaks, means, touched, places, strict=True)
    ]
    return sorted(found, key=lambda finding: -finding.volume)


def _millimetres(volume: Volume, voxel: tuple[int, ...]) -> tuple[float, float, float]:
    x, y, z = (volume.affine @ [*voxel, 1])[:3]
    return float(x), float(y), float(z)
