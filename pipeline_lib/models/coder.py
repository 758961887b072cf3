"""Encoder and decoder of the autoencoders, laid out as in MONAI's AutoencoderKL so that weights can be exchanged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from pipeline_lib.models.folding import fold_voxels, unfold_voxels
from pipeline_lib.models.layers import Downsample, ResidualBlock, Upsample, check_channels, conv, group_norm


class Encoder(nn.Module):
    """From (N, inputs, *spatial) to (N, outputs, *spatial / factor), factor = fold * 2^(levels - 1)."""

    def __init__(
        self,
        dimensions: int,
        inputs: int,
        channels: Sequence[int],
        outputs: int,
        blocks: int,
        groups: int | None = None,
        fold: int = 1,
    ) -> None:
        super().__init__()
        check_channels(channels, blocks)
        stages: list[nn.Module] = []
        size = channels[0]
        for level, width in enumerate(channels):
            for _ in range(blocks):
                stages.append(ResidualBlock(dimensions, size, width, groups=groups))
                size = width
            if level < len(channels) - 1:
                stages.append(Downsample(dimensions, size, centred=False))
        self.fold = fold
        self.first = conv(dimensions, inputs * fold**dimensions, channels[0], 3)
        self.stages = nn.Sequential(*stages)
        self.norm = group_norm(size, groups)
        self.last = conv(dimensions, size, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, *spatial) -> (N, outputs, *spatial / factor)."""
        return self.last(self.norm(self.stages(self.first(fold_voxels(x, self.fold)))))


class Decoder(nn.Module):
    """From (N, inputs, *spatial) to (N, outputs, *spatial * factor), as `Encoder`; `channels` finest first."""

    def __init__(
        self,
        dimensions: int,
        inputs: int,
        channels: Sequence[int],
        outputs: int,
        blocks: int,
        groups: int | None = None,
        fold: int = 1,
        upsampling: Literal["nearest", "linear"] = "nearest",
    ) -> None:
        super().__init__()
        check_channels(channels, blocks)
        stages: list[nn.Module] = []
        size = channels[-1]
        for level in reversed(range(len(channels))):
            for _ in range(blocks):
                stages.append(ResidualBlock(dimensions, size, channels[level], groups=groups))
                size = channels[level]
            if level:
                stages.append(Upsample(dimensions, size, size, linear=upsampling == "linear"))
        self.fold = fold
        self.first = conv(dimensions, inputs, channels[-1], 3)
        self.stages = nn.Sequential(*stages)
        self.norm = group_norm(size, groups)
        self.last = conv(dimensions, size, outputs * fold**dimensions, 3)

    def forward(self, z: Tensor) -> Tensor:
        """(N, inputs, *spatial) -> (N, outputs, *spatial * factor)."""
        return unfold_voxels(self.last(self.norm(self.stages(self.first(z)))), self.fold)
