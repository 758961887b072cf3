"""What packing makes of a scan or a picture: training images, or the reason why there are none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
MOST_OUTSIDE = 0.01
"""Share of a brain that images may leave out without a word."""


class LeftOut(Exception):
    """Why a scan gives no training image; becomes a row of ``left_out.tsv``."""


@dataclass(frozen=True)
class FieldOfView:
    """How much of the brain a scan's images hold.

    Attributes:
        outside: share of the brain's voxels that lie outside; of slices, of the brain in their planes.
        needed: least size, in voxels along each dimension, that would hold all of it.
    """

    outside: float
    needed: tuple[int, ...]


@dataclass(frozen=True)
class TrainingImage:
    """Arrays ``(C, *spatial)`` of one training image, and what the index says of it.

    Attributes:
        slice: place along the plane's axis, mm; of pictures, their number; None in 3D.
        affine: voxels to RAS mm; None for pictures.
        space: of the affine's coordinates, ``MNI152`` or ``native``; empty for pictures.
        view: how much of the brain the scan's images hold; None for pictures.
    """

    data: Array
    target: Array | None
    mask: NDArray[np.uint8]
    lesion: NDArray[np.uint8] | None
    slice: float | int | None = None
    affine: NDArray[np.float64] | None = None
    space: str = ""
    view: FieldOfView | None = None


def at_least_half(values: Array) -> NDArray[np.uint8]:
    """1 where a mask that was interpolated is at least .5."""
    return (values >= 0.5).astype(np.uint8)
