"""Timesteps for training."""

from __future__ import annotations

import torch
from torch import Tensor


def stratified_timesteps(
    batch: int,
    timesteps: int,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """(batch,) int64, each uniform over [0, timesteps), one from each of `batch` equal parts, in random order.

    The loss averaged over such a batch varies less from step to step than with independent timesteps.
    """
    if batch < 1 or timesteps < 1:
        raise ValueError(f"batch is {batch} and timesteps {timesteps}; at least 1 of each is needed")
    source = device if generator is None else generator.device
    within = torch.rand(batch, generator=generator, device=source, dtype=torch.float64)
    order = torch.randperm(batch, generator=generator, device=source)
    t = ((order + within) * (timesteps / batch)).long().clamp(max=timesteps - 1)
    return t.to(device)
