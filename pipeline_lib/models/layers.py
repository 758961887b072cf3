"""The parts that the networks share, in 2D and 3D."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline_lib.models.folding import FACTORS, crop

_EPS = 1e-6


def conv(
    dimensions: int, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int | None = None
) -> nn.Conv2d | nn.Conv3d:
    """A 2D or 3D convolution; by default padded so that the size stays (divided by `stride`, rounded up)."""
    if dimensions not in (2, 3):
        raise ValueError(f"dimensions is {dimensions}; allowed: 2, 3")
    layer = nn.Conv2d if dimensions == 2 else nn.Conv3d
    return layer(inputs, outputs, kernel, stride=stride, padding=kernel // 2 if padding is None else padding)


def group_norm(channels: int, groups: int | None = None) -> nn.Module:
    """Group normalisation.

    Args:
        groups: number of groups, which must divide `channels`; None: as many as divide them, up to 32, with four
            channels or more in each; 0: each voxel by itself.
    """
    if groups == 0:
        return VoxelNorm(channels, eps=_EPS)
    if groups is None:
        groups = next(n for n in range(max(1, min(32, channels // 4)), 0, -1) if channels % n == 0)
    if groups < 1 or channels % groups:
        raise ValueError(f"{channels} channels are not divisible by {groups} groups")
    return nn.GroupNorm(groups, channels, eps=_EPS)


class VoxelNorm(nn.LayerNorm):
    """Normalisation of each voxel by itself, over its channels: nothing of other voxels enters."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, *spatial) -> the same."""
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


def zero(module: nn.Module) -> nn.Module:
    """`module` with all its parameters set to 0."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def check_input(name: str, x: Tensor, dimensions: int, channels: int) -> None:
    """Raise ValueError unless `x` is (N, channels, *spatial) with at least one voxel."""
    if x.ndim != dimensions + 2 or x.shape[1] != channels:
        axes = ", ".join("DHW"[-dimensions:])
        raise ValueError(f"{name} has shape {tuple(x.shape)}; (N, {channels}, {axes}) is needed")
    if 0 in x.shape[2:]:
        raise ValueError(f"{name} has shape {tuple(x.shape)}; at least one voxel along each axis is needed")


def check_counts(least: int = 1, **counts: int) -> None:
    """Raise ValueError unless each of `counts` is `least` or more."""
    for name, count in counts.items():
        if count < least:
            raise ValueError(f"{name} is {count}; at least {least} is needed")


def check_fold(fold: int) -> None:
    """Raise ValueError unless voxels can be folded by `fold`."""
    if fold not in FACTORS:
        raise ValueError(f"fold is {fold}; allowed: {', '.join(map(str, FACTORS))}")


def check_channels(channels: Sequence[int], blocks: int) -> None:
    """Raise ValueError unless there is at least one level and one block, all of positive size."""
    if not channels or min(channels) < 1:
        raise ValueError(f"channels is {list(channels)}; one positive number a level is needed")
    check_counts(blocks=blocks)


def timestep_embedding(t: Tensor, size: int, longest: float = 10_000.0) -> Tensor:
    """Sinusoids of t (Vaswani et al., 2017), (N,) -> (N, size) float32: cosines, then sines."""
    half = size // 2
    frequencies = torch.exp(torch.arange(half, device=t.device) * (-math.log(longest) / half))
    angles = t.float()[:, None] * frequencies
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=1), (0, size % 2))


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, twice, beside a skip; the embedding, where there is one, is added in between.

    The second convolution starts at 0, so that a new block passes on its input.
    """

    def __init__(
        self,
        dimensions: int,
        inputs: int,
        outputs: int,
        *,
        embedding: int = 0,
        dropout: float = 0.0,
        groups: int | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = group_norm(inputs, groups)
        self.conv1 = conv(dimensions, inputs, outputs, 3)
        self.embed = nn.Linear(embedding, outputs) if embedding else None
        self.norm2 = group_norm(outputs, groups)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zero(conv(dimensions, outputs, outputs, 3))
        self.skip = nn.Identity() if inputs == outputs else conv(dimensions, inputs, outputs, 1)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """x (N, inputs, *spatial), embedding (N, E) -> (N, outputs, *spatial)."""
        h = self.conv1(F.silu(self.norm1(x)))
        if self.embed is not None and embedding is not None:
            shift: Tensor = self.embed(F.silu(embedding))
            h += shift.reshape(*shift.shape, *[1] * (h.ndim - 2))
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return self.skip(x) + h


class Attention(nn.Module):
    """Multi-head attention over the voxels, added to the input.

    Without `context` voxels attend to each other; with it they attend to the context's tokens.
    """

    def __init__(self, channels: int, head_channels: int, *, context: int = 0, groups: int | None = None) -> None:
        super().__init__()
        size = min(head_channels, channels)
        if size < 1 or channels % size:
            raise ValueError(f"{channels} channels are not divisible by head_channels {head_channels}")
        self.heads = channels // size
        self.norm = group_norm(channels, groups)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(context or channels, 2 * channels)
        self.out = zero(nn.Linear(channels, channels))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """x (N, C, *spatial), context (N, tokens, E) -> (N, C, *spatial)."""
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        q = self._split(self.query(tokens))
        k, v = (self._split(h) for h in self.key_value(tokens if context is None else context).chunk(2, dim=-1))
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.out(h).transpose(1, 2).reshape(x.shape)

    def _split(self, h: Tensor) -> Tensor:
        """(N, tokens, C) -> (N, heads, tokens, C / heads)."""
        return h.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Downsample(nn.Module):
    """Half the size by a convolution of stride 2.

    Centred, an output voxel lies on every other input voxel and odd sizes are rounded up. Otherwise it lies between
    two, padding being on the far side only, as the autoencoders of latent diffusion have it; sizes must be even.
    """

    def __init__(self, dimensions: int, channels: int, *, centred: bool = True) -> None:
        super().__init__()
        self.conv = conv(dimensions, channels, channels, 3, stride=2, padding=int(centred))
        self.margin = () if centred else (0, 1) * dimensions

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *spatial) -> (N, C, *spatial / 2)."""
        return self.conv(F.pad(x, self.margin) if self.margin else x)


class Upsample(nn.Module):
    """Nearest-neighbour (or ``linear``, half-pixel centres) to twice the size, then a convolution; cropped to `size` where
    that is odd.

    With nearest-neighbour both are one transposed convolution of stride 2: weights that meet the same input voxel are added up beforehand,
    which leaves 4 of 9 multiplications in 2D and 8 of 27 in 3D.
    """

    def __init__(self, dimensions: int, inputs: int, outputs: int, *, linear: bool = False) -> None:
        super().__init__()
        self.conv = conv(dimensions, inputs, outputs, 3)
        self.linear = linear

    def forward(self, x: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """(N, inputs, *spatial) -> (N, outputs, *size), by default twice `spatial`."""
        if self.linear:
            h = F.interpolate(x, scale_factor=2, mode="bilinear" if x.ndim == 4 else "trilinear")
            return crop(self.conv(h), size or ())
        weight = self.conv.weight
        for axis in range(2, weight.ndim):
            before, here, after = weight.unbind(axis)
            weight = torch.stack([after, here + after, before + here, before], dim=axis)
        transposed = F.conv_transpose2d if x.ndim == 4 else F.conv_transpose3d
        h = transposed(x, weight.transpose(0, 1), self.conv.bias, stride=2, padding=1)
        return crop(h, size or ())
