"""The latent space of a trained autoencoder, at the scale the denoiser works in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline_lib.bundles.bundle import load_bundle
from pipeline_lib.inference.denoise import device


@dataclass(frozen=True)
class LatentSpace:
    """An autoencoder and the factor ``(1, C, 1, ...)`` that brings each latent channel to unit variance."""

    module: torch.nn.Module
    info: Mapping[str, Any]
    scale: Tensor

    @property
    def channels(self) -> int:
        """Latent channels."""
        return int(self.info["architecture"]["latent_channels"])

    def shape(self, size: list[int]) -> tuple[int, ...]:
        """Shape ``(C, *spatial)`` of the latent of an image of ``size`` voxels."""
        return (self.channels, *self.module.latent_size(size))  # type: ignore[operator]

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Images ``(N, C, *spatial)`` in [-1, 1] of scaled latents, one at a time."""
        size = self.info["data"]["size"]
        images = [self.module.decode(z[None].to(device()), size) for z in latents / self.scale]  # type: ignore[operator]
        return torch.cat(images).clamp(-1, 1).cpu()

    @torch.inference_mode()
    def encode(self, images: Tensor) -> Tensor:
        """Means of the latents of images ``(N, C, *spatial)``, scaled, one at a time."""
        means = [self.module.encode(image[None].to(device()))[0] for image in images]  # type: ignore[operator]
        return torch.cat(means).cpu() * self.scale


def load_latent_space(folder: Path) -> LatentSpace:
    """The latent space of the autoencoder in ``folder``."""
    module, info = load_bundle(folder)
    spatial = [1] * int(info["architecture"]["dimensions"])
    scale = torch.tensor(info["scale"], dtype=torch.float32).reshape(1, -1, *spatial)
    return LatentSpace(module.to(device()).eval(), info, scale)
