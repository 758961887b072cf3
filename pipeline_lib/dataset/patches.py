"""Random patches of packed images, each about a voxel of the brain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pipeline_lib.dataset.packed import PackedDataset

MARGIN = 0.25
"""Share of a patch that is read beyond it where images are augmented, so that what turns in is tissue."""


class PatchDataset(PackedDataset):
    """`PackedDataset` whose samples are patches; which one is a pure function of (seed, index, position).

    A patch's middle is a voxel of the mask, drawn evenly, moved inwards where the patch would reach beyond the image.
    """

    def __init__(self, folders: Sequence[Path], *, patch: int, seed: int, each: int = 1, **more: Any) -> None:
        """As `PackedDataset`.

        Args:
            patch: voxels along each axis, fewer where an image has fewer.
            each: so many patches of each image are numbered, as if they were images.
        """
        super().__init__(folders, **more)
        self.patch, self.seed, self.each = patch, seed, each

    def __len__(self) -> int:
        return self.each * super().__len__()

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """The first patch of a number."""
        return self.draw(*divmod(index, self.each))

    def draw(self, index: int, position: int) -> dict[str, Tensor]:
        """The patch due at a position of the training stream, arrays ``(C, *patch)``."""
        mask = self._stored(index)["mask"][0]
        read = self.patch + (2 * math.ceil(MARGIN * self.patch / 2) if self.augment is not None else 0)
        size = [min(read, length) for length in mask.shape]
        inside = np.flatnonzero(mask)
        random = np.random.default_rng((self.seed, index, position))
        place = int(inside[random.integers(len(inside))]) if len(inside) else mask.size // 2
        middle = np.unravel_index(place, mask.shape)
        starts = [
            min(max(int(at) - length // 2, 0), whole - length)
            for at, length, whole in zip(middle, size, mask.shape, strict=True)
        ]
        where = tuple(slice(start, start + length) for start, length in zip(starts, size, strict=True))
        sample = self._augmented(self._read(index, where), index, position)
        return {name: self._cut(value) if name != "condition" else value for name, value in sample.items()}

    def _cut(self, value: Tensor) -> Tensor:
        """The middle of (C, *read), at most the patch."""
        for axis, length in enumerate(value.shape[1:], start=1):
            kept = min(self.patch, length)
            value = value.narrow(axis, (length - kept) // 2, kept)
        return value
