"""A network over a volume of any size in bounded memory: overlapping tiles, blended."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

TILE, OVERLAP = 192, 96
"""Voxels along an axis of a tile, and of what it shares with its neighbour."""


def tiled(
    network: Callable[[Tensor], Tensor], x: Tensor, *, multiple: int = 1, tile: int = TILE, overlap: int = OVERLAP
) -> Tensor:
    """``network(x)``, computed a tile at a time; ``network`` keeps the size.

    Where tiles overlap, what comes out is weighted by a ramp that is 0 at a tile's own border, so that no seam is left
    and voxels near a border, where a network misses its neighbourhood, do not count: three eighths of ``overlap`` are left
    out on either side, the ramp is between them.

    Args:
        x: (N, C, *spatial).
        multiple: voxels after which the network's grid repeats (its fold times its halvings); tiles start there.
        tile, overlap: voxels along an axis; ``overlap`` at most half of ``tile``, both whole multiples of ``multiple``.
    """
    if tile % multiple or overlap % multiple or not 0 <= 2 * overlap <= tile:
        raise ValueError(
            f"tile {tile} and overlap {overlap} must be multiples of {multiple}, overlap at most half of tile"
        )
    spatial = x.shape[2:]
    if all(length <= tile for length in spatial):
        return network(x)
    total: Tensor | None = None
    for corner in itertools.product(*(_starts(length, tile, overlap) for length in spatial)):
        ends = [min(start + tile, length) for start, length in zip(corner, spatial, strict=True)]
        where = (slice(None), slice(None), *map(slice, corner, ends))
        y = network(x[where])
        total = y.new_zeros(*y.shape[:2], *spatial) if total is None else total
        total[where] += y * _weight(corner, ends, spatial, overlap).to(y.device)
    assert total is not None
    return total


def _starts(length: int, tile: int, overlap: int) -> Sequence[int]:
    """Where tiles start along an axis: the last one may be shorter, and no voxel lies in more than two."""
    step = tile - overlap
    return range(0, max(length - overlap, 1), step)


def _weight(corner: Sequence[int], ends: Sequence[int], spatial: Sequence[int], overlap: int) -> Tensor:
    """Weights (*tile) that sum to 1 over the tiles."""
    weight = torch.ones([end - start for start, end in zip(corner, ends, strict=True)])
    for axis, ramp in enumerate(_ramps(corner, ends, spatial, overlap)):
        weight *= ramp.reshape([-1 if n == axis else 1 for n in range(weight.ndim)])
    return weight


def _ramps(corner: Sequence[int], ends: Sequence[int], spatial: Sequence[int], overlap: int) -> Iterator[Tensor]:
    rising = (((torch.arange(overlap) + 0.5) / overlap - 3 / 8) * 4).clamp(0, 1) if overlap else torch.ones(0)
    for start, end, length in zip(corner, ends, spatial, strict=True):
        ramp = torch.ones(end - start)
        if start and overlap:
            ramp[:overlap] *= rising
        if end < length and overlap:
            ramp[-overlap:] *= rising.flip(0)
        yield ramp
