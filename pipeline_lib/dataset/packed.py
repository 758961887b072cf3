"""Packed chunks seen as one dataset, memory-mapped: workers share pages, and pickling costs nothing."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pipeline_lib.dataset.augment import Augmentation
from pipeline_lib.dataset.conditions import Conditions
from pipeline_lib.dataset.index import TEXT_COLUMNS, read_index, without_lesion
from pipeline_lib.errors import UserError
from pipeline_lib.files import read_json


class PackedArrays(Dataset[dict[str, Tensor]]):
    """Rows of several chunk folders, numbered through; a subclass says which file is read as what."""

    files: ClassVar[Mapping[str, str]]
    required: ClassVar[frozenset[str]]

    def __init__(
        self,
        folders: Sequence[Path],
        *,
        conditions: Conditions | None = None,
        only_groups: Sequence[str] = (),
        lesion_free: bool = False,
    ) -> None:
        """Read the indices; arrays are opened when first used.

        Args:
            folders: chunk folders; those without images are fine.
            conditions: what ``condition`` says of each row.
            only_groups: keep rows of these groups only; empty keeps all.
            lesion_free: keep images without a lesion, of scans that somebody looked at or whose group is named.
        """
        self.folders = [Path(folder) for folder in folders]
        indices, self._rows = [], []
        for folder in self.folders:
            index = read_index(folder)
            if only_groups:
                index = index[index["group"].isin(list(only_groups))]
            if lesion_free:
                index = index[without_lesion(index, known=bool(only_groups))]
            self._rows.append(index.index.to_numpy())
            indices.append(index)
        self.index = pd.concat(indices, ignore_index=True) if indices else pd.DataFrame(columns=TEXT_COLUMNS)
        self._ends = list(accumulate(len(rows) for rows in self._rows))
        self._condition = (conditions or Conditions()).encode(self.index)
        self._arrays: dict[int, dict[str, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One row: arrays ``(C, *spatial)`` float32 by name, and ``condition`` (K,), NaN where unknown."""
        return self._read(index)

    def _read(self, index: int, where: tuple[slice, ...] = ()) -> dict[str, Tensor]:
        """One row, or the part of it that lies at ``where`` along the spatial axes, which alone is read."""
        sample = {
            name: torch.from_numpy(np.array(array[(slice(None), *where)], dtype=np.float32))
            for name, array in self._stored(index).items()
        }
        sample["condition"] = self._condition[index]
        return sample

    def _stored(self, index: int) -> dict[str, np.ndarray]:
        """The arrays ``(C, *spatial)`` of one row, mapped."""
        if not 0 <= index < len(self.index):
            raise IndexError(index)
        chunk = bisect_right(self._ends, index)
        row = self._rows[chunk][index - (self._ends[chunk - 1] if chunk else 0)]
        return {name: array[row] for name, array in self._open(chunk).items()}

    def draw(self, index: int, position: int) -> dict[str, Tensor]:
        """One row as it is due at a position of the training stream (any integer)."""
        return self[index]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_arrays": {}}

    def batch(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """Several rows stacked, each array ``(N, C, *spatial)``."""
        return torch.utils.data.default_collate([self[row] for row in rows])

    def _open(self, chunk: int) -> dict[str, np.ndarray]:
        if chunk not in self._arrays:
            folder = self.folders[chunk]
            self._arrays[chunk] = {
                name: _mapped(folder / file)
                for file, name in self.files.items()
                if file in self.required or (folder / file).is_file()
            }
        return self._arrays[chunk]


def _mapped(path: Path) -> np.ndarray:
    """A packed array, mapped; objects, which would have to be unpickled, are refused."""
    try:
        mapped: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise UserError(f"{path} is no packed array ({error}); run the stage that writes it again") from None
    return mapped


class PackedDataset(PackedArrays):
    """Images in [-1, 1]: ``image (C, *spatial)`` and, where packed, ``target``, ``mask`` and ``label``; no training reads lesions."""

    files: ClassVar[Mapping[str, str]] = {
        "data.npy": "image",
        "target.npy": "target",
        "mask.npy": "mask",
        "label.npy": "label",
    }
    required: ClassVar[frozenset[str]] = frozenset({"data.npy"})

    def __init__(
        self,
        folders: Sequence[Path],
        *,
        conditions: Conditions | None = None,
        only_groups: Sequence[str] = (),
        lesion_free: bool = False,
        augment: Augmentation | None = None,
        regressed: Sequence[Path] = (),
    ) -> None:
        """As `PackedArrays`.

        Args:
            augment: changes every sample drawn.
            regressed: what a regression makes of each chunk, an array a folder: ``regression`` of a sample.
        """
        super().__init__(folders, conditions=conditions, only_groups=only_groups, lesion_free=lesion_free)
        self.augment, self.regressed = augment, list(regressed)
        if augment is not None:
            self._left_right = [read_json(folder / "layout.json")["left_right"] for folder in self.folders]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One image, as drawn the first time."""
        return self.draw(index, 0)

    def rows_of(self, chunk: int) -> np.ndarray:
        """Rows of a chunk's arrays that are among the images."""
        rows: np.ndarray = self._rows[chunk]
        return rows

    def _open(self, chunk: int) -> dict[str, np.ndarray]:
        new = chunk not in self._arrays
        arrays = super()._open(chunk)
        if new and self.regressed:
            arrays["regression"] = _mapped(self.regressed[chunk])
        return arrays

    def draw(self, index: int, position: int) -> dict[str, Tensor]:
        """One image, augmented as is due at a position of the training stream."""
        return self._augmented(self._read(index), index, position)

    def _augmented(self, sample: dict[str, Tensor], index: int, position: int) -> dict[str, Tensor]:
        if self.augment is None:
            return sample
        left_right = self._left_right[bisect_right(self._ends, index)]
        return self.augment(sample, position=position, index=index, left_right=left_right)


class LatentDataset(PackedArrays):
    """Latents encoded once: ``mean`` and ``std`` and, for translation, ``target_mean`` and ``target_std``."""

    files: ClassVar[Mapping[str, str]] = {
        "mean.npy": "mean",
        "std.npy": "std",
        "target_mean.npy": "target_mean",
        "target_std.npy": "target_std",
    }
    required: ClassVar[frozenset[str]] = frozenset({"mean.npy", "std.npy"})
