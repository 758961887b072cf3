"""A U-Net that adds to a linear map of its input, and starts as that map.

The U-Net is local (no attention, normalised at each voxel), so that what it says of a voxel depends on a bounded
neighbourhood and a volume can be done in tiles.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline_lib.models.unet import UNet

FARTHEST = 5.0
"""Standard deviations of the source at which it is cut off."""


class Regressor(nn.Module):
    """weights x + intercept + U-Net((x - centre) / spread), the U-Net's last layer starting at 0.

    Args:
        dimensions: 2 or 3.
        in_channels, out_channels: of source and target.
        fold, channels, blocks, dropout: of the `UNet`.
    """

    weights: Tensor
    intercept: Tensor
    centre: Tensor
    spread: Tensor

    def __init__(
        self,
        *,
        dimensions: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        blocks: int,
        fold: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        # Buffers: they travel with the weights, and no optimiser moves them.
        self.register_buffer("weights", torch.zeros(out_channels, in_channels))
        self.register_buffer("intercept", torch.zeros(out_channels))
        self.register_buffer("centre", torch.zeros(in_channels))
        self.register_buffer("spread", torch.ones(in_channels))
        self.unet = UNet(
            dimensions=dimensions,
            in_channels=in_channels,
            out_channels=out_channels,
            channels=channels,
            blocks=blocks,
            attention=[False] * len(channels),
            fold=fold,
            dropout=dropout,
            local=True,
        )

    def start_from(
        self,
        weights: Sequence[Sequence[float]],
        intercept: Sequence[float],
        centre: Sequence[float],
        spread: Sequence[float],
    ) -> Regressor:
        """Set the linear map, ``weights`` (out_channels, in_channels) and ``intercept`` (out_channels), and mean and
        standard deviation of the source, (in_channels) each."""
        given = {"weights": weights, "intercept": intercept, "centre": centre, "spread": spread}
        for name, values in given.items():
            getattr(self, name).copy_(torch.as_tensor(values, dtype=torch.float32))
        return self

    def standardised(self, source: Tensor) -> Tensor:
        """The source as a network is to see it: tissue varies by about 1, and background is far from it."""
        shape = (-1, *[1] * (source.ndim - 2))
        return ((source - self.centre.reshape(shape)) / self.spread.reshape(shape)).clamp(-FARTHEST, FARTHEST)

    def forward(self, source: Tensor) -> Tensor:
        """(N, in_channels, *spatial) -> (N, out_channels, *spatial)."""
        with torch.autocast(source.device.type, enabled=False):
            linear = torch.einsum("oi,ni...->no...", self.weights, source.float())
            linear = linear + self.intercept.reshape(-1, *[1] * (source.ndim - 2))
        now = torch.zeros(len(source), dtype=torch.long, device=source.device)
        return linear + self.unet(self.standardised(source), now).float()

    def multiple(self) -> int:
        """Voxels along an axis that the U-Net halves and folds without a rest: where tiles may start."""
        return self.unet.fold * 2 ** (len(self.unet.down) - 1)
