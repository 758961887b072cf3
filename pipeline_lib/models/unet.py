"""The denoiser: a U-Net in 2D or 3D with attention and conditions.

The layout is that of Ho et al. (2020) as latent diffusion models have it (Rombach et al., 2022): at each level
`blocks` residual blocks going down and one more going up, a skip for each, stride-2 convolutions between levels,
and a residual block, attention and a residual block at the bottom.
"""

from __future__ import annotations

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
        classes: number of classes of the condition, 0 for none.
        vector_size: length of the condition where it is a vector, 0 for none; not together with classes.
        dropout: probability, in the residual blocks.
        checkpointing: recompute the blocks in the backward pass instead of keeping what they need.
        groups: of every normalisation; None: see `layers.group_norm`.
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
        classes: int = 0,
        vector_size: int = 0,
        dropout: float = 0.0,
        checkpointing: bool = False,
        groups: int | None = None,
    ) -> None:
        super().__init__()
        check_channels(channels, blocks)
        check_fold(fold)
        check_counts(in_channels=in_channels, out_channels=out_channels, head_channels=head_channels)
        check_counts(0, classes=classes, vector_size=vector_size)
        if channels[0] < 2:
            raise ValueError(
                f"channels are {tuple(channels)}; the first, which carries the timestep, must be 2 or more"
            )
        if len(attention) != len(channels):
            raise ValueError(f"attention has {len(attention)} entries for {len(channels)} levels; one each is needed")
        if classes and vector_size:
            raise ValueError(f"classes is {classes} and vector_size {vector_size}; one of them must be 0")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout}; allowed: from 0 to below 1")
        self.dimensions, self.in_channels, self.fold = dimensions, in_channels, fold
        self.classes, self.vector_size = classes, vector_size
        self.checkpointing = checkpointing

        width = 4 * channels[0]
        self.frequencies = channels[0]
        self.time = nn.Sequential(nn.Linear(channels[0], width), nn.SiLU(), nn.Linear(width, width))
        conditional = bool(classes or vector_size)
        if classes:
            self.condition: nn.Module = nn.Embedding(classes, _TOKENS * width)
        elif vector_size:
            self.condition = nn.Sequential(nn.Linear(vector_size, width), nn.SiLU(), nn.Linear(width, _TOKENS * width))
        if conditional:
            self.null = nn.Parameter(torch.randn(_TOKENS * width))
            self.pool = nn.Linear(_TOKENS * width, width)

        def block(inputs: int, outputs: int, attend: bool) -> _Block:
            return _Block(
                dimensions,
                inputs,
                outputs,
                width,
                dropout=dropout,
                head_channels=head_channels if attend else 0,
                context=width if conditional else 0,
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
        self.middle = nn.ModuleList([block(size, size, True), block(size, size, False)])
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

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None, concat: Tensor | None = None) -> Tensor:
        """The network's output, (N, out_channels, *spatial).

        Args:
            x: (N, C, *spatial).
            t: (N,) timesteps.
            condition: (N,) classes, -1 for the learned null; or (N, vector_size) with NaN rows for it; or None: the
                null for all.
            concat: (N, C', *spatial), C + C' = in_channels.
        """
        h, skips, embedding, context = self._descend(x, t, condition, concat)
        for level, stage in enumerate(self.up):
            for block in stage:  # type: ignore[attr-defined]
                h = self._run(block, torch.cat([h, skips.pop()], dim=1), embedding, context)
            if level < len(self.upsample):
                h = self.upsample[level](h, skips[-1].shape[2:])
        return crop(unfold_voxels(self.last(F.silu(self.norm(h))), self.fold), x.shape[2:])

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
        if self.classes or self.vector_size:
            flat = self._condition(condition, len(x))
            embedding = embedding + self.pool(flat)
            context = flat.unflatten(1, (_TOKENS, -1))
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
        """(N, tokens * width) embedding of the condition, the learned null where it is missing."""
        if condition is None:
            return self.null.expand(samples, -1)
        shape = (samples, self.vector_size) if self.vector_size else (samples,)
        if condition.shape != shape or condition.is_floating_point() != bool(self.vector_size):
            kind = "floating-point vectors" if self.vector_size else "integer classes"
            raise ValueError(f"condition is {condition.dtype} {tuple(condition.shape)}; {kind} {shape} are needed")
        if self.vector_size:
            missing = condition.isnan().any(dim=1)
            known = torch.where(missing[:, None], 0, condition).to(self.null.dtype)
        else:
            if condition.device.type == "cpu" and not ((condition >= -1) & (condition < self.classes)).all():
                raise ValueError(f"condition is {condition.tolist()}; allowed: -1 (none) to {self.classes - 1}")
            missing = condition == -1
            known = torch.where(missing, 0, condition)
        return torch.where(missing[:, None], self.null, self.condition(known))

    def _run(self, block: Callable[..., Tensor], h: Tensor, embedding: Tensor, context: Tensor | None) -> Tensor:
        if self.checkpointing and self.training:
            return checkpoint(block, h, embedding, context, use_reentrant=False)
        return block(h, embedding, context)


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
