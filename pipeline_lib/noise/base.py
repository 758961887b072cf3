"""What every corruption of the forward process has in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class Noise(Protocol):
    """A source of noise fields of unit variance and zero mean."""

    def __call__(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
        rows: slice = slice(None),
    ) -> Tensor:
        """Fields of `shape` (N, C, *spatial); all randomness comes from `generator`, which may live on
        another device than the fields. Of the N samples only `rows` are made, as they are among all."""
        ...
