"""White Gaussian noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class GaussianNoise:
    """Independent standard normal values."""

    def __call__(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
        rows: slice = slice(None),
    ) -> Tensor:
        """`rows` of noise of `shape` (N, C, *spatial), drawn where the generator lives."""
        source = device if generator is None else generator.device
        return torch.randn(tuple(shape), generator=generator, device=source, dtype=dtype)[rows].to(device)
