"""Voxels folded into channels in front of a network and back behind it: an exact inverse, in 2D and 3D.

A network on blocks of `factor` voxels along each axis sees factor^d times fewer places with factor^d times the channels,
which is where convolutions are cheapest (Shi et al., 2016; for diffusion in pixels Hoogeboom et al., 2023, sec. 3.3).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

FACTORS = (1, 2, 4)
"""Allowed lengths of a block."""


def fold_voxels(x: Tensor, factor: int) -> Tensor:
    """(N, C, *spatial) -> (N, C * factor^d, *spatial / factor), channels ordered as in `torch.pixel_unshuffle`."""
    if factor == 1:
        return x
    n, channels, *spatial = x.shape
    blocks = x.reshape(n, channels, *(part for length in spatial for part in (length // factor, factor)))
    places, within = range(2, blocks.ndim, 2), range(3, blocks.ndim, 2)
    folded = blocks.permute(0, 1, *within, *places)
    return folded.reshape(n, channels * factor ** len(spatial), *(length // factor for length in spatial))


def unfold_voxels(x: Tensor, factor: int) -> Tensor:
    """The inverse of `fold_voxels`, (N, C * factor^d, *spatial) -> (N, C, *spatial * factor)."""
    if factor == 1:
        return x
    n, channels, *spatial = x.shape
    d = len(spatial)
    blocks = x.reshape(n, channels // factor**d, *[factor] * d, *spatial)
    woven = blocks.permute(0, 1, *(axis for k in range(d) for axis in (2 + d + k, 2 + k)))
    return woven.reshape(n, channels // factor**d, *(length * factor for length in spatial))


def pad(x: Tensor, multiple: int) -> Tensor:
    """`x` (N, C, *spatial), its last voxels repeated up to the next multiple along each axis."""
    missing = [-length % multiple for length in x.shape[2:]]
    if not any(missing):
        return x
    return F.pad(x, [width for length in reversed(missing) for width in (0, length)], mode="replicate")


def crop(x: Tensor, size: Sequence[int]) -> Tensor:
    """The first `size` voxels of `x` (N, C, *spatial): what `pad` added is cut off."""
    for axis, length in enumerate(size, start=2):
        x = x.narrow(axis, 0, length)
    return x
