"""Training of the VQGAN and its discriminator (Esser et al., 2021)."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline_lib.config.schema import AutoencoderOptions, DataOptions
from pipeline_lib.dataset.packed import PackedDataset
from pipeline_lib.files import write_json
from pipeline_lib.models.adversarial import (
    adaptive_weight,
    adversarial_ramp,
    discriminator_loss,
    generator_loss,
)
from pipeline_lib.models.discriminator import PatchDiscriminator
from pipeline_lib.models.quantiser import usage_and_perplexity
from pipeline_lib.models.vqgan import VQGAN
from pipeline_lib.training.autoencoders import channels_of, train_autoencoder
from pipeline_lib.training.data import ARRAYS
from pipeline_lib.training.steps import Batch, Draw, Step

SMALL_IMAGE = 32
"""Voxels of the shortest side below which the discriminator has one stage less."""


def train_vqgan(
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
    """Train a VQGAN on packed chunks; writes also ``codebook.json``: how its codes are used on validation images.

    Args:
        train, validation: chunk folders.
        out: folder to write, complete or not at all.
        state: folder of training progress; training resumes from it.
        role: ``image``, ``source`` or ``target``: which array of the chunks it encodes.
        licence: terms of the scans, kept with the model.
        start_from: weights of the VQGAN to start from, see `bundles.start`; the discriminator starts from nothing.

    Raises:
        UserError: no training images, or a training that cannot go on (see `trainer.train`).
    """
    channels = channels_of(role, data)

    def make(shown: Tensor) -> tuple[Step, dict[str, Any]]:
        architecture: dict[str, Any] = {
            "dimensions": data.dimensions,
            "in_channels": channels,
            "fold": options.fold,
            "channels": list(options.channels),
            "blocks": options.blocks,
            "codes": options.codes,
            "latent_channels": options.latent_channels,
            "commitment": options.commitment,
        }
        discriminator = PatchDiscriminator(
            dimensions=data.dimensions,
            in_channels=channels,
            channels=options.channels[0],
            layers=3 if min(data.size) >= SMALL_IMAGE else 2,
        )
        return VQGANStep(VQGAN(**architecture), discriminator, ARRAYS[role], options, shown), architecture

    def write_usage(module: nn.Module, images: PackedDataset, folder: Path, device: torch.device) -> None:
        write_json(folder / "codebook.json", codebook_usage(module, images, ARRAYS[role], device))

    train_autoencoder(
        make, "vqgan", options, data, train, validation, out, state, role, licence, start_from,
        extra=write_usage,
    )  # fmt: skip


class VQGANStep(Step):
    """L1 + commitment + ramp x weight x lambda x adversarial, lambda as in `adversarial.adaptive_weight`.

    The discriminator learns from half of ``adversarial_start`` on, each time from the reconstructions the
    generator has just made; the generator sees it from ``adversarial_start`` on, ramped up over as long again. Until
    ``codebook_start`` latents are not quantised; the codebook then starts from latents of the trained encoder.
    """

    averaged = "vqgan"
    betas = (0.5, 0.9)

    def __init__(
        self, module: VQGAN, discriminator: PatchDiscriminator, name: str, options: AutoencoderOptions, shown: Tensor
    ) -> None:
        self.modules = {self.averaged: module, "discriminator": discriminator}
        self.generator, self.discriminator = module, discriminator
        self.name, self.options, self.shown = name, options, shown
        self._made: deque[Tensor] = deque()

    def order(self, step: int) -> Sequence[str]:
        learns = self.options.adversarial_weight > 0 and step >= self.options.adversarial_start // 2
        return [self.averaged, "discriminator"] if learns else [self.averaged]

    def losses(self, name: str, batch: Batch, draw: Draw, step: int) -> dict[str, Tensor]:
        image = batch[self.name]
        if name == "discriminator":
            made = self._made.popleft()
            return {"loss": discriminator_loss(self.discriminator(image), self.discriminator(made))}
        decoded, commitment = self._made_of(self.generator, image, continuous=step < self.options.codebook_start)
        reconstruction = (decoded.float() - image).abs().mean()
        losses = {"reconstruction": reconstruction, "commitment": commitment}
        loss = reconstruction + commitment
        start = self.options.adversarial_start
        ramp = adversarial_ramp(step, start, max(1, start))
        if self.options.adversarial_weight > 0 and ramp > 0:
            self.discriminator.requires_grad_(False)
            adversarial = generator_loss(self.discriminator(decoded))
            self.discriminator.requires_grad_(True)
            balance = adaptive_weight(reconstruction, adversarial, self.generator.last_layer)
            loss = loss + self.options.adversarial_weight * ramp * balance * adversarial
            losses |= {"adversarial": adversarial, "lambda": balance}
        if "discriminator" in self.order(step):
            self._made.append(decoded.detach())
        return {"loss": loss, **losses}

    def validate(self, module: nn.Module, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        decoded, commitment = self._made_of(module, batch[self.name], continuous=self._is_continuous(module))
        reconstruction = (decoded.float() - batch[self.name]).abs().mean()
        return {"loss": reconstruction + commitment, "reconstruction": reconstruction, "commitment": commitment}

    def _is_continuous(self, module: nn.Module) -> bool:
        """Whether a codebook is yet to come: before ``codebook_start`` it has seen no latent."""
        return self.options.codebook_start > 0 and not bool(module.quantiser.initialised)  # type: ignore[union-attr]

    @staticmethod
    def _made_of(module: nn.Module, image: Tensor, *, continuous: bool) -> tuple[Tensor, Tensor]:
        """Reconstruction and commitment, 0 where nothing is quantised."""
        if continuous:
            decoded: Tensor = module.continuous(image)  # type: ignore[operator]
            return decoded, decoded.new_zeros((), dtype=torch.float32)
        decoded, quantised = module(image)
        return decoded, quantised.loss

    @torch.no_grad()
    def strip(self, module: nn.Module) -> Tensor:
        """Reconstructions."""
        device, continuous = next(module.parameters()).device, self._is_continuous(module)
        images = (image[None].to(device) for image in self.shown)
        return torch.cat([self._made_of(module, image, continuous=continuous)[0] for image in images])

    def reference(self) -> Tensor:
        return self.shown


@torch.no_grad()
def codebook_usage(module: nn.Module, images: PackedDataset, name: str, device: torch.device) -> dict[str, Any]:
    """Share of codes used at all, and the perplexity of their use, over all ``images``."""
    quantiser: Any = module.quantiser
    counts = torch.zeros(len(quantiser.codebook), dtype=torch.int64)
    for row in range(len(images)):
        _, quantised = module(images[row][name][None].to(device))
        counts += torch.bincount(quantised.indices.flatten().cpu(), minlength=len(counts))
    usage, perplexity = usage_and_perplexity(counts)
    return {
        "codes": len(counts),
        "usage": usage,
        "perplexity": perplexity,
        "images": len(images),
        "tokens": int(counts.sum()),
        "counts": counts.tolist(),
    }
