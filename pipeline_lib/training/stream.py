"""The order of the data: a pure function of the seed and the position, so that resuming needs no loader state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline_lib.training.steps import seed_of


class Drawable(Protocol):
    """Images that can be drawn again and again; the position seeds the augmentation."""

    def __len__(self) -> int: ...
    def draw(self, index: int, position: int) -> dict[str, Tensor]: ...


class Stream(Dataset[dict[str, Tensor]]):
    """An endless sequence: every image once an epoch, each epoch in a new order."""

    def __init__(self, images: Drawable, seed: int) -> None:
        self.images, self.seed = images, seed
        self._epoch: tuple[int, NDArray[np.int64]] | None = None

    def row(self, position: int) -> int:
        """Which image comes at ``position`` (from 0)."""
        epoch, place = divmod(position, len(self.images))
        if self._epoch is None or self._epoch[0] != epoch:
            order = np.random.default_rng(seed_of(self.seed, "order", epoch)).permutation(len(self.images))
            self._epoch = epoch, order
        return int(self._epoch[1][place])

    def rows(self, step: int, count: int) -> list[int]:
        """The images of optimiser step ``step``, ``count`` a step."""
        return [self.row(position) for position in range(step * count, (step + 1) * count)]

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        return self.images.draw(self.row(position), position)


@dataclass(frozen=True)
class Positions:
    """Positions of the stream that one process loads, a list a batch, from step ``start`` on.

    Attributes:
        start, stop: optimiser steps.
        accumulate: batches of a step.
        total: images of a batch over all processes.
        rows: which of them are this process's.
    """

    start: int
    stop: int
    accumulate: int
    total: int
    rows: slice

    def __iter__(self) -> Iterator[list[int]]:
        for batch in range(self.start * self.accumulate, self.stop * self.accumulate):
            yield list(range(batch * self.total, (batch + 1) * self.total))[self.rows]


def batches(stream: Stream, positions: Positions, *, workers: int, pin: bool) -> Iterator[dict[str, Tensor]]:
    """Batches of the stream at the given positions, loaded by ``workers`` processes (0: by this one)."""
    loader: DataLoader[dict[str, Tensor]] = DataLoader(
        stream, batch_sampler=positions, num_workers=workers, pin_memory=pin
    )
    return iter(loader)
