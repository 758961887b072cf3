"""VQGAN (Esser et al., 2021) in 2D or 3D: an autoencoder whose latent is a grid of codes.

Its discriminator and the weight between the two are in `discriminator` and `adversarial`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline_lib.models.coder import Decoder, Encoder
from pipeline_lib.models.folding import crop, pad
from pipeline_lib.models.layers import check_counts, check_fold, check_input
from pipeline_lib.models.quantiser import Quantised, Quantiser


class VQGAN(nn.Module):
    """Images to a grid of codes and back.

    Args:
        dimensions: 2 or 3.
        in_channels: of the image.
        fold: length of the blocks of voxels that are folded into channels in front of the first level and unfolded behind
            the last: 1 (none), 2 or 4; see `folding`.
        channels: of each level, finest first; each level halves the resolution of the one before.
        blocks: residual blocks a level.
        codes: size of the codebook.
        latent_channels: size of a code.
        commitment, decay: see `quantiser.Quantiser`.
        groups: of every normalisation; None: see `layers.group_norm`.

    Attributes:
        factor: by how much the latent is smaller along each axis, fold * 2^(levels - 1); images are padded to multiples.
    """

    def __init__(
        self,
        *,
        dimensions: int,
        in_channels: int,
        channels: Sequence[int],
        blocks: int,
        codes: int,
        latent_channels: int,
        commitment: float = 0.25,
        decay: float = 0.99,
        fold: int = 1,
        groups: int | None = None,
    ) -> None:
        super().__init__()
        check_fold(fold)
        check_counts(in_channels=in_channels, latent_channels=latent_channels)
        self.dimensions, self.in_channels, self.latent_channels = dimensions, in_channels, latent_channels
        self.encoder = Encoder(dimensions, in_channels, channels, latent_channels, blocks, groups, fold)
        self.quantiser = Quantiser(codes, latent_channels, commitment=commitment, decay=decay)
        self.decoder = Decoder(dimensions, latent_channels, channels, in_channels, blocks, groups, fold)
        self.factor = fold * 2 ** (len(channels) - 1)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The latent before quantisation, (N, latent_channels, *ceil(spatial / factor)), and zeros: its spread."""
        check_input("image", x, self.dimensions, self.in_channels)
        z: Tensor = self.encoder(pad(x, self.factor))
        return z, torch.zeros_like(z)

    def quantise(self, z: Tensor) -> Quantised:
        """The nearest codes; in training mode the codebook learns from `z`."""
        return self.quantiser(z)

    def decode(self, z: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """The image of a latent, (N, in_channels, *size), by default of all voxels that the latent covers; the latent is
        quantised first."""
        check_input("latent", z, self.dimensions, self.latent_channels)
        return crop(self.decoder(self.quantise(z).z), size or ())

    def continuous(self, x: Tensor) -> Tensor:
        """Reconstruction from the latent itself, which no codebook has seen."""
        return crop(self.decoder(self.encode(x)[0]), x.shape[2:])

    def forward(self, x: Tensor) -> tuple[Tensor, Quantised]:
        """Reconstruction and what the quantiser made of the latent."""
        quantised = self.quantise(self.encode(x)[0])
        return crop(self.decoder(quantised.z), x.shape[2:]), quantised

    def latent_size(self, size: Sequence[int]) -> list[int]:
        """Spatial lengths of the latent of an image of `size` voxels: divided by `factor`, rounded up."""
        return [-(-length // self.factor) for length in size]

    @property
    def last_layer(self) -> Tensor:
        """Weight of the layer that makes the image, where the adversarial weight is measured."""
        return self.decoder.last.weight
