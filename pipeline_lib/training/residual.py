"""A denoiser of what a regression leaves (Mardani et al., 2025): conditioned on source and regression."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pipeline_lib.bundles.regression import BACKGROUND, Regression
from pipeline_lib.dataset.packed import PackedDataset
from pipeline_lib.diffusion.guidance import guided
from pipeline_lib.diffusion.samplers import ddim, timestep_pairs
from pipeline_lib.training.denoiser_step import STRIP_SEED, STRIP_STEPS, DenoiserStep
from pipeline_lib.training.steps import Batch, Draw


def residual_scale(regression: Regression, images: PackedDataset) -> list[float]:
    """1 / root mean square of what the regression leaves of each map, inside the mask of the images."""
    squares, voxels = torch.zeros((), dtype=torch.float64), torch.zeros(())
    for row in range(len(images)):
        sample = {key: value[None] for key, value in images[row].items()}
        mask = sample["mask"] > 0.5
        left = torch.where(mask, sample["target"] - regression.predict(sample["image"], mask), 0.0)
        squares = squares + left.double().square().sum(dim=[0, *range(2, left.ndim)])
        voxels = voxels + mask.sum()
    scale: list[float] = (squares / voxels.clamp(min=1)).clamp(min=1e-12).rsqrt().tolist()
    return scale


class ResidualStep(DenoiserStep):
    """x0 is the target less the regression, each map at unit variance, 0 outside the brain."""

    def __init__(self, *arguments: Any, regression: Regression, scale: list[float]) -> None:
        super().__init__(*arguments)
        self.regression = regression
        self.scale = torch.tensor(scale).reshape(1, -1, *[1] * self.recipe.data.dimensions)
        self.shown = self._regressed(self.shown)

    def losses(self, name: str, batch: Batch, draw: Draw, step: int) -> dict[str, Tensor]:
        return super().losses(name, self._regressed(batch), draw, step)

    def validate(self, module: nn.Module, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        return super().validate(module, self._regressed(batch), draw)

    def at_level(self, module: nn.Module, batch: Batch, draw: Draw, first: int, end: int) -> dict[str, Tensor]:
        return super().at_level(module, self._regressed(batch), draw, first, end)

    def _regressed(self, batch: Batch) -> Batch:
        return {**batch, "regression": self.regression.predict(batch["image"], batch["mask"])}

    def _clean(self, batch: Batch, draw: Draw) -> Tensor:
        left = (batch["target"] - batch["regression"]) * self.scale.to(batch["target"].device)
        return torch.where(batch["mask"] > 0.5, left, 0.0)

    def _concat(self, batch: Batch) -> Tensor:
        return self.regression.beside(batch["image"], batch["regression"])

    @torch.no_grad()
    def strip(self, module: nn.Module) -> Tensor:
        """A draw of the shown targets, from the same noise each time."""
        device = next(module.parameters()).device
        shown = {key: value.to(device) for key, value in self.shown.items()}
        generator = torch.Generator(device).manual_seed(STRIP_SEED)
        noise = self.noise(shown["target"].shape, generator=generator, device=device)
        pairs = timestep_pairs(self.process.timesteps, min(STRIP_STEPS, self.process.timesteps))
        left = ddim(guided(module, None, 1.0, self._concat(shown)), noise, pairs, self.process, clip=False)
        maps = (shown["regression"] + left / self.scale.to(device)).clamp(-1, 1)
        return torch.where(shown["mask"] > 0.5, maps, BACKGROUND)

    def reference(self) -> Tensor:
        return self.shown["target"]
