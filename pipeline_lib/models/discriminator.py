"""Patch discriminator (Isola et al., 2017) in 2D or 3D."""

from __future__ import annotations

from torch import Tensor, nn

from pipeline_lib.models.layers import check_counts, check_input, conv, group_norm


class PatchDiscriminator(nn.Module):
    """One logit for each patch of the image: above 0 for real.

    Args:
        dimensions: 2 or 3.
        in_channels: of the image.
        channels: of the first layer; each next one has twice as many, up to eight times.
        layers: convolutions of stride 2; a side of the image should be 2^layers voxels or more.
    """

    def __init__(self, *, dimensions: int, in_channels: int, channels: int = 64, layers: int = 3) -> None:
        super().__init__()
        check_counts(in_channels=in_channels, channels=channels, layers=layers)
        self.dimensions, self.in_channels = dimensions, in_channels
        # group instead of batch normalisation: batches of volumes are small
        stages: list[nn.Module] = [conv(dimensions, in_channels, channels, 3, stride=2), nn.LeakyReLU(0.2)]
        size = channels
        for layer in range(1, layers + 1):
            width = channels * min(2**layer, 8)
            stride = 2 if layer < layers else 1
            stages += [conv(dimensions, size, width, 3, stride), group_norm(width), nn.LeakyReLU(0.2)]
            size = width
        self.stages = nn.Sequential(*stages, conv(dimensions, size, 1, 3))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, *spatial) -> logits (N, 1, *spatial / 2^layers)."""
        check_input("image", x, self.dimensions, self.in_channels)
        return self.stages(x)
