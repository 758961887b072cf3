"""What a model contributes to the one training loop, and the random numbers it may use."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline_lib.diffusion.timesteps import stratified_timesteps
from pipeline_lib.noise.base import Noise

Batch = dict[str, Tensor]


def seed_of(*parts: object) -> int:
    """A 63-bit seed that is a pure function of its parts: what is named alike draws alike, whatever is drawn besides."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclass(frozen=True)
class Draw:
    """The random numbers of one batch.

    Numbers are drawn for the batch of all processes together and each takes its own rows, so that the
    result does not depend on how many processes share the work.

    Attributes:
        seed: fixes every number.
        total: images of the batch over all processes.
        rows: which of them are this process's.
        device: where numbers are made.
    """

    seed: int
    total: int
    rows: slice
    device: torch.device

    def normal(self, name: str, shape: Sequence[int]) -> Tensor:
        """Standard normal numbers; ``shape`` (N, ...) is of this process's rows."""
        size = (self.total, *shape[1:])
        return torch.randn(size, generator=self.generator(name), device=self.device)[self.rows]

    def noise(self, name: str, make: Noise, shape: Sequence[int]) -> Tensor:
        """Corruption by ``make``, of ``shape`` (N, C, *spatial)."""
        size = (self.total, *shape[1:])
        return make(size, generator=self.generator(name), device=self.device, rows=self.rows)

    def uniform(self, name: str) -> Tensor:
        """A number in [0, 1) for each image, (N,)."""
        return torch.rand(self.total, generator=self.generator(name), device=self.device)[self.rows]

    def timesteps(self, name: str, count: int) -> Tensor:
        """An integer in [0, count) for each image, (N,) int64, spread evenly over the batch."""
        generator = self.generator(name)
        return stratified_timesteps(self.total, count, generator=generator, device=self.device)[self.rows]

    def generator(self, name: str) -> torch.Generator:
        """A generator of its own for every purpose, so that one more draw shifts no other."""
        return torch.Generator(self.device).manual_seed(seed_of(self.seed, name))


class Step(ABC):
    """One model's training step.

    Attributes:
        modules: every module that is trained, by the name of its optimiser. Those named in ``order`` are
            updated at each step, one after the other.
        averaged: the module whose moving average is the result.
        betas: of AdamW, where the options give none.
        rates: the highest rate of parameters by the start of their names, where it is not that of the options.
    """

    modules: Mapping[str, nn.Module]
    averaged: str
    betas: tuple[float, float] = (0.9, 0.999)
    rates: Mapping[str, float] = {}

    @abstractmethod
    def order(self, step: int) -> Sequence[str]:
        """Which modules are updated at optimiser step ``step`` (from 0), in which order."""

    @abstractmethod
    def losses(self, name: str, batch: Batch, draw: Draw, step: int) -> dict[str, Tensor]:
        """Scalars of a batch: ``loss`` is differentiated for the update of module ``name``, others are shown."""

    @abstractmethod
    def validate(self, module: nn.Module, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        """Scalars of a validation batch under the averaged ``module``; ``loss`` among them."""

    @abstractmethod
    def strip(self, module: nn.Module) -> Tensor:
        """A few images (N, C, *spatial) in [-1, 1] that show how far ``module`` has come; the same ones each time."""

    def reference(self) -> Tensor | None:
        """What `strip` is to look like, same shape; None where there is no such thing."""
        return None
