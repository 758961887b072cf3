"""KL autoencoder (Kingma and Welling, 2014; as the first stage of latent diffusion, Rombach et al., 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline_lib.models.coder import Decoder, Encoder
from pipeline_lib.models.folding import crop, pad
from pipeline_lib.models.layers import check_counts, check_fold, check_input, conv


class KLAutoencoder(nn.Module):
    """Images to a Gaussian in a smaller latent space and back, 2D or 3D.

    Args:
        dimensions: 2 or 3.
        in_channels: of the image.
        fold: length of the blocks of voxels that are folded into channels in front of the first level and unfolded behind
            the last: 1 (none), 2 or 4; see `folding`.
        channels: of each level, finest first; each level halves the resolution of the one before.
        latent_channels: of the latent.
        blocks: residual blocks a level.
        groups: of every normalisation; None: see `layers.group_norm`.
        upsampling: of the decoder, in front of its convolutions.

    Attributes:
        factor: by how much the latent is smaller along each axis, fold * 2^(levels - 1); images are padded to multiples.
    """

    def __init__(
        self,
        *,
        dimensions: int,
        in_channels: int,
        channels: Sequence[int],
        latent_channels: int,
        blocks: int,
        fold: int = 1,
        groups: int | None = None,
        upsampling: Literal["nearest", "linear"] = "nearest",
    ) -> None:
        super().__init__()
        check_fold(fold)
        check_counts(in_channels=in_channels, latent_channels=latent_channels)
        self.dimensions, self.in_channels, self.latent_channels = dimensions, in_channels, latent_channels
        self.encoder = Encoder(dimensions, in_channels, channels, latent_channels, blocks, groups, fold)
        self.mean = conv(dimensions, latent_channels, latent_channels, 1)
        self.log_variance = conv(dimensions, latent_channels, latent_channels, 1)
        self.post = conv(dimensions, latent_channels, latent_channels, 1)
        self.decoder = Decoder(dimensions, latent_channels, channels, in_channels, blocks, groups, fold, upsampling)
        self.factor = fold * 2 ** (len(channels) - 1)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latent, each (N, latent_channels, *ceil(spatial / factor))."""
        check_input("image", x, self.dimensions, self.in_channels)
        h = self.encoder(pad(x, self.factor))
        return self.mean(h), torch.exp(0.5 * self.log_variance(h).clamp(-30, 20))

    def decode(self, z: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """The image of a latent, (N, in_channels, *size), by default of all voxels that the latent covers."""
        check_input("latent", z, self.dimensions, self.latent_channels)
        return crop(self.decoder(self.post(z)), size or ())

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction from a latent that is drawn, and that latent's mean and standard deviation."""
        mean, std = self.encode(x)
        return self.decode(sample_latent(mean, std, generator), x.shape[2:]), mean, std

    def latent_size(self, size: Sequence[int]) -> list[int]:
        """Spatial lengths of the latent of an image of `size` voxels: divided by `factor`, rounded up."""
        return [-(-length // self.factor) for length in size]

    @property
    def last_layer(self) -> Tensor:
        """Weight of the layer that makes the image, where the adversarial weight is measured."""
        return self.decoder.last.weight


def sample_latent(mean: Tensor, std: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """mean + std * standard normal, the noise drawn where the generator lives."""
    source = mean.device if generator is None else generator.device
    noise = torch.randn(mean.shape, generator=generator, device=source, dtype=mean.dtype)
    return mean + std * noise.to(mean.device)


def kl_divergence(mean: Tensor, std: Tensor) -> Tensor:
    """KL from N(mean, std^2) to the standard normal, nats per latent dimension (mean over all), float32 scalar."""
    mean, std = mean.float(), std.float()
    return (0.5 * (mean.square() + std.square() - 1) - std.log()).mean()
