"""A trained regression, applied to whole images in tiles."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from pipeline_lib.bundles.bundle import load_bundle
from pipeline_lib.files import sha256_file
from pipeline_lib.models.tiles import tiled

BACKGROUND = -1.0


class Regression:
    """Predicts maps from sources.

    Attributes:
        info: its ``model.json``.
        digest: SHA-256 of its weights.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        module, self.info = load_bundle(folder)
        self.digest = sha256_file(folder / "model.safetensors")
        self.module, self.device = module.to(device), device

    @torch.no_grad()
    def predict(self, source: Tensor, mask: Tensor) -> Tensor:
        """Maps (N, C, *spatial) in [-1, 1] of sources, on their device; background where ``mask`` (N, 1, *spatial) is 0."""
        shape = (len(source), int(self.info["architecture"]["out_channels"]), *source.shape[2:])
        maps = source.new_empty(shape)
        for place, image in enumerate(source):
            maps[place] = tiled(self._maps, image[None], multiple=self.module.multiple())[0]  # type: ignore[operator]
        return torch.where(mask > 0.5, maps, BACKGROUND)

    def beside(self, source: Tensor, maps: Tensor) -> Tensor:
        """What a denoiser of the residual sees beside it, (N, C + C', *spatial): the source, standardised, and the maps."""
        seen = self.module.standardised(source.to(self.device)).to(source.device)  # type: ignore[operator]
        return torch.cat([seen, maps], dim=1)

    def _maps(self, source: Tensor) -> Tensor:
        with torch.autocast(self.device.type, enabled=False):  # a residual is small: what it is of must be exact
            maps: Tensor = self.module(source.to(self.device))
        return maps.clamp(-1, 1).to(source.device)
