"""The denoiser: a U-Net in 2D or 3D with attention and conditions.

The layout is that of Ho et al. (2020) as latent diffusion models have it (Rombach et al., 2022): at each level
`blocks` residual blocks going down and one more going up, a skip for each, stride-2 convolutions between levels,
and a residual block, attention and a residual block at the bottom.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pipeline_lib.models.folding import crop, fold_voxels, pad, unfold_voxels
from pipeline_lib.models.layers import (
    Attention,
    Downsample,
    ResidualBlock,
    Upsample,
    check_channels,
    check_counts,
    check_fold,
    check_input,
    conv,
    group_norm,
    timestep_embedding,
    zero,
)

_TOKENS = 4  # what a condition is turned into; attention over a single one could not depend on the voxel
_WAVELENGTHS = (16.0, 8.0, 4.0, 2.0, 1.0)  # of the sinusoids of a number, in standard deviations of the training set


class UNet(nn.Module):
    """Predicts noise, velocity or the clean sample from a noisy one.

    Any spatial size is accepted: it is padded to whole blocks of `fold` voxels and cut again, and sizes are halved
    rounding up on the way down and restored from the skips.

    Args:
        dimensions: 2 or 3.
        in_channels: of the input, those of `concat` included.
        out_channels: of the output.
        fold: length of the blocks of voxels that are folded into channels in front of the first level and unfolded behind
            the last: 1 (none), 2 or 4; see `folding`.
        channels: of each level, finest first; each level halves the resolution of the one before.
        blocks: residual blocks a level on the way down; one more on the way up.
        attention: for each level, whether its blocks are followed by attention.
        head_channels: channels of an attention head; levels with fewer have one head.
        conditions: one entry a condition: its number of categories, or 0 where it is a number. Each has tokens of its own
            and a learned null that stands for them where its value is unknown or hidden.
        dropout: probability, in the residual blocks.
        checkpointing: recompute the blocks in the backward pass instead of keeping what they need.
        groups: of every normalisation; None: see `layers.group_norm`.
        detail: channels of a `Detail` behind the last level, at full resolution; 0: none.
        local: what comes out at a voxel depends on its neighbourhood only: each voxel is normalised by itself, and there is
            no attention, which `attention` must then not ask for.
    """

    def __init__(
        self,
        *,
        dimensions: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        blocks: int,
        attention: Sequence[bool],
        fold: int = 1,
        head_channels: int = 32,
        conditions: Sequence[int] = (),
        dropout: float = 0.0,
        checkpointing: bool = False,
        groups: int | None = None,
        local: bool = False,
        detail: int = 0,
    ) -> None:
        super().__init__()
        check_channels(channels, blocks)
        check_fold(fold)
        check_counts(in_channels=in_channels, out_channels=out_channels, head_channels=head_channels)
        check_counts(0, **{f"conditions[{n}]": size for n, size in enumerate(conditions)})
        if channels[0] < 2:
            raise ValueError(
                f"channels are {tuple(channels)}; the first, which carries the timestep, must be 2 or more"
            )
        if len(attention) != len(channels):
            raise ValueError(f"attention has {len(attention)} entries for {len(channels)} levels; one each is needed")
        if local and (any(attention) or groups):
            raise ValueError("local networks have no attention and no groups")
        groups = 0 if local else groups
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout}; allowed: from 0 to below 1")
        self.dimensions, self.in_channels, self.fold = dimensions, in_channels, fold
        self.conditions = tuple(conditions)
        self.checkpointing = checkpointing

        width = 4 * channels[0]
        self.frequencies = channels[0]
        self.time = nn.Sequential(nn.Linear(channels[0], width), nn.SiLU(), nn.Linear(width, width))
        if conditions:
            self.condition = nn.ModuleList(
                nn.Embedding(size, _TOKENS * width) if size else _Number(width, _TOKENS * width) for size in conditions
            )
            self.null = nn.Parameter(torch.randn(len(conditions), _TOKENS * width))
            self.pool = nn.Linear(len(conditions) * _TOKENS * width, width)

        def block(inputs: int, outputs: int, attend: bool) -> _Block:
            return _Block(
                dimensions,
                inputs,
                outputs,
                width,
                dropout=dropout,
                head_channels=head_channels if attend else 0,
                context=width if conditions else 0,
                groups=groups,
            )

        self.first = conv(dimensions, in_channels * fold**dimensions, channels[0], 3)
        self.down, self.downsample = nn.ModuleList(), nn.ModuleList()
        skips, size = [channels[0]], channels[0]
        for level, outputs in enumerate(channels):
            stage = nn.ModuleList()
            for _ in range(blocks):
                stage.append(block(size, outputs, attention[level]))
                size = outputs
                skips.append(size)
            self.down.append(stage)
            if level < len(channels) - 1:
                self.downsample.append(Downsample(dimensions, size))
                skips.append(size)
        self.middle = nn.ModuleList([block(size, size, not local), block(size, size, False)])
        self.up, self.upsample = nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(len(channels))):
            stage = nn.ModuleList()
            for _ in range(blocks + 1):
                stage.append(block(size + skips.pop(), channels[level], attention[level]))
                size = channels[level]
            self.up.append(stage)
            if level:
                self.upsample.append(Upsample(dimensions, size, size))
        self.norm = group_norm(size, groups)
        self.last = zero(conv(dimensions, size, out_channels * fold**dimensions, 3))
        self.detail = Detail(dimensions, in_channels, out_channels, size, detail, width, fold) if detail else None

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None, concat: Tensor | None = None) -> Tensor:
        """The network's output, (N, out_channels, *spatial).

        Args:
            x: (N, C, *spatial).
            t: (N,) timesteps.
            condition: (N, K) floating-point, a column a condition: the category's index, or the standardised number; NaN
                for its learned null. None: the null for all.
            concat: (N, C', *spatial), C + C' = in_channels.
        """
        h, skips, embedding, context = self._descend(x, t, condition, concat)
        for level, stage in enumerate(self.up):
            for block in stage:  # type: ignore[attr-defined]
                h = self._run(block, torch.cat([h, skips.pop()], dim=1), embedding, context)
            if level < len(self.upsample):
                h = self.upsample[level](h, skips[-1].shape[2:])
        h = F.silu(self.norm(h))
        output = crop(unfold_voxels(self.last(h), self.fold), x.shape[2:])
        if self.detail is None:
            return output
        noisy = x if concat is None else torch.cat([x, concat], dim=1)
        return self.detail(output, noisy, h, embedding)

    def bottleneck(self, x: Tensor, t: Tensor, condition: Tensor | None = None, concat: Tensor | None = None) -> Tensor:
        """Features at the bottom of the network, (N, channels[-1], *spatial / 2^(levels - 1)); as `forward`."""
        return self._descend(x, t, condition, concat)[0]

    def _descend(
        self, x: Tensor, t: Tensor, condition: Tensor | None, concat: Tensor | None
    ) -> tuple[Tensor, list[Tensor], Tensor, Tensor | None]:
        """Features at the bottom, skips, time embedding and context tokens."""
        if concat is not None:
            if concat.shape[:1] + concat.shape[2:] != x.shape[:1] + x.shape[2:]:
                raise ValueError(f"concat has shape {tuple(concat.shape)}, which does not fit {tuple(x.shape)}")
            x = torch.cat([x, concat], dim=1)
        check_input("input", x, self.dimensions, self.in_channels)
        if t.shape != x.shape[:1]:
            raise ValueError(f"t has shape {tuple(t.shape)}; one timestep a sample is needed, ({len(x)},)")
        embedding = self.time(timestep_embedding(t, self.frequencies).to(next(self.time.parameters()).dtype))
        context = None
        if self.conditions:
            flat = self._condition(condition, len(x))
            embedding = embedding + self.pool(flat)
            context = flat.unflatten(1, (len(self.conditions) * _TOKENS, -1))
        elif condition is not None:
            raise ValueError(f"condition of shape {tuple(condition.shape)} given to a network without conditions")

        h = self.first(fold_voxels(pad(x, self.fold), self.fold))
        if h.device.type == "cpu":  # the layout of oneDNN's fastest convolutions (docs/benchmarks.md)
            h = h.contiguous(memory_format=torch.channels_last if h.ndim == 4 else torch.channels_last_3d)
        skips = [h]
        for level, stage in enumerate(self.down):
            for block in stage:  # type: ignore[attr-defined]
                h = self._run(block, h, embedding, context)
                skips.append(h)
            if level < len(self.downsample):
                h = self.downsample[level](h)
                skips.append(h)
        for block in self.middle:
            h = self._run(block, h, embedding, context)
        return h, skips, embedding, context

    def _condition(self, condition: Tensor | None, samples: int) -> Tensor:
        """(N, K * tokens * width) tokens of the conditions, the learned null of each where its value is missing."""
        if condition is None:
            return self.null.flatten().expand(samples, -1)
        shape = (samples, len(self.conditions))
        if condition.shape != shape or not condition.is_floating_point():
            raise ValueError(
                f"condition is {condition.dtype} {tuple(condition.shape)}; {shape} floating-point numbers are needed"
            )
        tokens = []
        for n, (size, embed) in enumerate(zip(self.conditions, self.condition, strict=True)):
            missing = condition[:, n].isnan()
            value = torch.where(missing, 0, condition[:, n])
            if size and condition.device.type == "cpu" and not ((value >= 0) & (value < size) & (value % 1 == 0)).all():
                raise ValueError(f"condition {n} is {value.tolist()}; allowed: whole numbers from 0 to {size - 1}, NaN")
            tokens.append(torch.where(missing[:, None], self.null[n], embed(value.long() if size else value)))
        return torch.cat(tokens, dim=1)

    def _run(self, block: Callable[..., Tensor], h: Tensor, embedding: Tensor, context: Tensor | None) -> Tensor:
        if self.checkpointing and self.training:
            return checkpoint(block, h, embedding, context, use_reentrant=False)
        return block(h, embedding, context)


class _Number(nn.Module):
    """A standardised number as tokens, smoothly: the number and slow sinusoids of it through two layers."""

    speed: Tensor

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("speed", 2 * math.pi / torch.tensor(_WAVELENGTHS), persistent=False)
        self.layers = nn.Sequential(nn.Linear(1 + 2 * len(_WAVELENGTHS), width), nn.SiLU(), nn.Linear(width, outputs))

    def forward(self, value: Tensor) -> Tensor:
        """(N,) -> (N, outputs)."""
        angles = value.float()[:, None] * self.speed
        waves = torch.cat([value.float()[:, None], angles.cos(), angles.sin()], dim=1)
        return self.layers(waves.to(next(self.layers.parameters()).dtype))


CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
"""By the dimensions of a batch: convolutions of few channels take half the time so on a CPU."""


class Detail(nn.Module):
    """Adds what a network on folded voxels leaves out: three convolutions at full resolution see the noisy voxels themselves.

    Folded, every voxel passes through the features of its block, which learn its neighbourhood's shape long before they learn
    to copy it: of the finest third of frequencies a few per cent are left (docs/networks.md). Cheap, since narrow.

    Args:
        dimensions: 2 or 3.
        in_channels, out_channels: of the network's input and output.
        features: channels of the features in front of its last layer, of which each voxel gets `GUIDES` of its own.
        channels: of the convolutions.
        embedding: length of the timestep's embedding, which scales and shifts them.
        fold: of the network.
    """

    GUIDES = 4

    def __init__(
        self,
        dimensions: int,
        in_channels: int,
        out_channels: int,
        features: int,
        channels: int,
        embedding: int,
        fold: int,
    ) -> None:
        super().__init__()
        self.fold = fold
        self.guide = conv(dimensions, features, self.GUIDES * fold**dimensions, 1)
        self.first = conv(dimensions, in_channels + out_channels + self.GUIDES, channels, 3)
        self.embed = nn.Linear(embedding, 2 * channels)
        self.second = conv(dimensions, channels, channels, 3)
        self.last = zero(conv(dimensions, channels, out_channels, 3))

    def forward(self, output: Tensor, noisy: Tensor, h: Tensor, embedding: Tensor) -> Tensor:
        """The output (N, out_channels, *spatial) with detail.

        Args:
            output: of the last layer.
            noisy: (N, in_channels, *spatial), what the network saw.
            h: (N, features, *blocks), what the last layer saw.
            embedding: (N, E).
        """
        guide = crop(unfold_voxels(self.guide(h), self.fold), output.shape[2:])
        seen = self.first(torch.cat([output, noisy, guide], dim=1).contiguous(memory_format=CHANNELS_LAST[output.ndim]))
        scale, shift = self.embed(F.silu(embedding)).reshape(len(output), 2, -1, *[1] * (output.ndim - 2)).unbind(1)
        fine = self.second(F.silu(seen * (1 + scale) + shift))
        return output + self.last(F.silu(fine))


class _Block(nn.Module):
    """A residual block, followed by self-attention and attention to the condition where asked for."""

    def __init__(
        self,
        dimensions: int,
        inputs: int,
        outputs: int,
        embedding: int,
        *,
        dropout: float,
        head_channels: int,
        context: int,
        groups: int | None,
    ) -> None:
        super().__init__()
        self.residual = ResidualBlock(dimensions, inputs, outputs, embedding=embedding, dropout=dropout, groups=groups)
        self.attention = Attention(outputs, head_channels, groups=groups) if head_channels else None
        self.cross = (
            Attention(outputs, head_channels, context=context, groups=groups) if head_channels and context else None
        )

    def forward(self, x: Tensor, embedding: Tensor, context: Tensor | None) -> Tensor:
        """x (N, inputs, *spatial), embedding (N, E), context (N, tokens, E) -> (N, outputs, *spatial)."""
        h = self.residual(x, embedding)
        if self.attention is not None:
            h = self.attention(h)
        if self.cross is not None:
            h = self.cross(h, context)
        return h
