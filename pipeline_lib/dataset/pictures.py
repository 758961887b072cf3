"""Photographs and exported slices as training images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy  # its parts are loaded when they are first used
from numpy.typing import NDArray

from pipeline_lib.config.schema import DataOptions
from pipeline_lib.dataset.image import Array, LeftOut, TrainingImage, at_least_half
from pipeline_lib.dataset.intensity import to_range
from pipeline_lib.dataset.pairs import Status, outputs_of
from pipeline_lib.imaging.pictures import fit_picture
from pipeline_lib.imaging.stacks import Stacks

FOREGROUND = 0.05
"""Grey level in [0, 1] above which a pixel of an image without a mask counts as foreground."""
LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in grey (ITU-R BT.601)."""
LEVELS = (np.arange(256) / 255 * 2 - 1).astype(np.float32)
"""Grey level of 8 bits -> value in [-1, 1]."""


def images_of_pictures(stacks: Stacks, row: Status, data: DataOptions) -> Iterator[TrainingImage]:
    """The training images of one person's pictures.

    Args:
        stacks: of the preprocessed chunk.
        row: the person's status there.

    Raises:
        LeftOut: the colours cannot become ``data.channels``.
    """
    given = {name: stacks[place] for name, place in outputs_of(row).items()}
    stack = given["image"]
    marks = {name: given[name][..., 0] for name in ("mask", "lesion") if name in given}
    for n, picture in enumerate(stack):
        drawn = {name: _fitted(mark[n] > 0, data) for name, mark in marks.items()}
        if data.intensity == "median_mad":
            inside = (
                marks["mask"][n] > 0
                if "mask" in marks
                else scipy.ndimage.binary_fill_holes(picture.max(-1) > FOREGROUND * 255)
            )
            values, seen = _normalised(picture, inside, data), _fitted(inside, data)
        else:
            values = _values(picture, data)
            seen = ((values.max(0, keepdims=True) + 1) / 2 > FOREGROUND).astype(np.uint8)
        yield TrainingImage(values, None, drawn.get("mask", seen), drawn.get("lesion"), n)


def _fitted(mark: NDArray[np.bool_], data: DataOptions) -> NDArray[np.uint8]:
    """A mark (H, W) as (1, *size)."""
    return at_least_half(fit_picture(mark.astype(np.float32)[..., None], tuple(data.size), data.fit)[..., 0])[None]


def _normalised(picture: NDArray[np.uint8], inside: NDArray[np.bool_], data: DataOptions) -> Array:
    """A picture in grey (1, *size): median and MAD of the pixels ``inside``, to [-1, 1]; -1 elsewhere.

    Raises:
        LeftOut: nothing is inside, or the recipe wants colours.
    """
    from pipeline_lib.imaging.intensity import fit_normalisation  # libraries that take a second to import

    if data.channels != 1:
        raise LeftOut(f"data.intensity median_mad is for grey pictures; data.channels is {data.channels}")
    if not inside.any():
        raise LeftOut("all of it is background; data.intensity median_mad needs something brighter")
    grey = (picture @ LUMA if picture.shape[-1] == 3 else picture[..., 0]).astype(np.float32)
    found = fit_normalisation(grey[inside], "median_mad")
    scaled = to_range(found.apply(grey, inside)[None], inside[None].astype(np.uint8), found.low, found.high)
    fitted = fit_picture((scaled[0, ..., None] + 1) / 2, tuple(data.size), data.fit)
    values: Array = np.clip(np.moveaxis(fitted, -1, 0) * 2 - 1, -1, 1).astype(np.float32)
    return values


def _values(picture: NDArray[np.uint8], data: DataOptions) -> Array:
    """A picture (H, W, colours) as an image (C, *size) in [-1, 1]."""
    if picture.shape[:2] == tuple(data.size):
        colours = LEVELS[np.ascontiguousarray(picture.transpose(2, 0, 1))]
    else:
        fitted = np.clip(fit_picture(picture / 255.0, tuple(data.size), data.fit), 0, 1)
        colours = np.moveaxis(fitted * 2 - 1, -1, 0).astype(np.float32)
    if len(colours) == data.channels:
        return colours
    if data.channels not in (1, 3):
        raise LeftOut(f"a picture has 1 or 3 channels; data.channels is {data.channels}")
    changed: Array = colours.repeat(3, 0) if data.channels == 3 else np.tensordot(LUMA, colours, 1)[None]
    return changed.astype(np.float32)
