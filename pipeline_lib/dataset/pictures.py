"""Photographs and exported slices as training images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline_lib.config.schema import DataOptions
from pipeline_lib.dataset.images import TrainingImage
from pipeline_lib.dataset.resample import at_least_half
from pipeline_lib.dataset.volumes import LeftOut
from pipeline_lib.imaging.pictures import fit_picture

FOREGROUND = 0.05
"""Grey level in [0, 1] above which a pixel of an image without a mask counts as foreground."""
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601)."""


def images_of_pictures(outputs: Mapping[str, Path], data: DataOptions) -> Iterator[TrainingImage]:
    """The training images of one person's pictures, a uint8 stack (n, rows, columns[, colours]).

    Raises:
        LeftOut: the colours cannot become ``data.channels``.
    """
    stack = _stack(outputs["image"])
    size = tuple(data.size)
    marks = {name: _stack(outputs[name])[..., 0] for name in ("mask", "lesion") if name in outputs}
    for n, picture in enumerate(stack):
        colours: NDArray[Any] = fit_picture(picture / 255.0, size, data.fit)
        if colours.shape[-1] != data.channels:
            if data.channels not in (1, 3):
                raise LeftOut(f"a picture has 1 or 3 channels; data.channels is {data.channels}")
            colours = colours.repeat(3, -1) if data.channels == 3 else colours @ np.array(LUMA)[:, None]
        values = np.moveaxis(np.clip(colours, 0, 1) * 2 - 1, -1, 0).astype(np.float32)
        drawn = {
            name: at_least_half(fit_picture((mark[n] > 0).astype(np.float32)[..., None], size, data.fit)[..., 0])[None]
            for name, mark in marks.items()
        }
        seen = ((values.max(0, keepdims=True) + 1) / 2 > FOREGROUND).astype(np.uint8)
        yield TrainingImage(values, None, drawn.get("mask", seen), drawn.get("lesion"), n)


def _stack(path: Path) -> NDArray[np.uint8]:
    """(n, rows, columns, colours)."""
    stack: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    return stack if stack.ndim == 4 else stack[..., None]
