"""Training of the KL autoencoder (Rombach et al., 2022, sec. 3.1, without discriminator)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline_lib.config.schema import AutoencoderOptions, DataOptions
from pipeline_lib.models.autoencoder import KLAutoencoder, kl_divergence
from pipeline_lib.training.autoencoders import channels_of, train_autoencoder
from pipeline_lib.training.data import ARRAYS
from pipeline_lib.training.steps import Batch, Draw, Step


def train_vae(
    options: AutoencoderOptions,
    data: DataOptions,
    train: Sequence[Path],
    validation: Sequence[Path],
    out: Path,
    state: Path,
    role: str,
    licence: str = "",
    start_from: str | Path = "",
) -> None:
    """Train a KL autoencoder on packed chunks and write the model, its curves and its reconstructions.

    Args:
        train, validation: chunk folders.
        out: folder to write, complete or not at all.
        state: folder of training progress; training resumes from it.
        role: ``image``, ``source`` or ``target``: which array of the chunks it encodes.
        licence: terms of the scans, kept with the model.
        start_from: weights to start from, see `bundles.start`.

    Raises:
        UserError: no training images, or a training that cannot go on (see `trainer.train`).
    """

    def make(shown: Tensor) -> tuple[Step, dict[str, Any]]:
        architecture: dict[str, Any] = {
            "dimensions": data.dimensions,
            "in_channels": channels_of(role, data),
            "fold": options.fold,
            "channels": list(options.channels),
            "latent_channels": options.latent_channels,
            "blocks": options.blocks,
            "groups": options.groups,
            "upsampling": options.upsampling,
        }
        return VAEStep(KLAutoencoder(**architecture), ARRAYS[role], options.kl_weight, shown), architecture

    train_autoencoder(make, "autoencoder", options, data, train, validation, out, state, role, licence, start_from)


class VAEStep(Step):
    """L1 reconstruction + weight x KL(q(z|x) || N(0, 1)), both means over elements."""

    averaged = "autoencoder"

    def __init__(self, module: KLAutoencoder, name: str, kl_weight: float, shown: Tensor) -> None:
        self.modules = {self.averaged: module}
        self.name, self.kl_weight, self.shown = name, kl_weight, shown

    def order(self, step: int) -> Sequence[str]:
        return [self.averaged]

    def losses(self, name: str, batch: Batch, draw: Draw, step: int) -> dict[str, Tensor]:
        return self.validate(self.modules[name], batch, draw)

    def validate(self, module: nn.Module, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        """``loss``; ``reconstruction`` (L1); ``kl`` in nats a latent dimension; ``latent_std``, the means' spread."""
        image = batch[self.name]
        mean, std = module.encode(image)  # type: ignore[operator]
        decoded = module.decode(mean + std * draw.normal("latent", mean.shape), image.shape[2:])  # type: ignore[operator]
        reconstruction = (decoded.float() - image).abs().mean()
        kl = kl_divergence(mean, std)
        loss = reconstruction + self.kl_weight * kl
        return {"loss": loss, "reconstruction": reconstruction, "kl": kl, "latent_std": mean.float().std()}

    @torch.no_grad()
    def strip(self, module: nn.Module) -> Tensor:
        """Reconstructions from the posterior's mean."""
        shown = self.shown.to(next(module.parameters()).device)
        return torch.cat([module.decode(module.encode(x[None])[0], x.shape[1:]) for x in shown])  # type: ignore[operator]

    def reference(self) -> Tensor:
        return self.shown
