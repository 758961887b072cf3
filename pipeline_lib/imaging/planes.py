"""Images as something to look at: slices as they are, volumes by their middle, right way up."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
Plane = NDArray[np.floating]


def plane(image: Array, place: int | None = None) -> Plane:
    """A 2D view ``(H, W)`` or, with three channels in 2D, ``(H, W, 3)`` of an image ``(C, *spatial)``.

    Volumes show channel 0 of the slice ``place`` (the middle one) along the last axis, turned so that
    the front of the head is up.
    """
    if image.ndim == 4:
        volume = image[0]
        place = volume.shape[2] // 2 if place is None else place
        return np.rot90(volume[:, :, place])
    return np.moveaxis(image, 0, -1) if image.shape[0] == 3 else image[0]


def ortho(image: Array, ground: float | None = None) -> Plane:
    """`plane`; of a volume in RAS+ its middle axial, coronal and sagittal slices side by side, front or top up.

    ``ground`` is above and below slices that are less tall; None: the volume's lowest value.
    """
    if image.ndim != 4:
        return plane(image)
    middle = [length // 2 for length in image.shape[1:]]
    slices = [np.rot90(np.take(image[0], middle[axis], axis=axis)) for axis in (2, 1, 0)]
    tallest = max(len(each) for each in slices)
    above = [tallest - len(each) for each in slices]
    ground = float(image[0].min()) if ground is None else ground
    return np.concatenate(
        [
            np.pad(each, ((more // 2, more - more // 2), (0, 0)), constant_values=ground)
            for each, more in zip(slices, above, strict=True)
        ],
        axis=1,
    )


def abreast(images: Array, most: int) -> int:
    """How many of ``images`` ``(N, C, *spatial)`` have room where ``most`` slices do, by `ortho`: a volume takes that of three."""
    return most if images.ndim == 4 else max(1, most // 3)
