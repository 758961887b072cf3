"""What the denoiser contributes to the one training loop, and the latents that it may learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from pipeline_lib.bundles.bundle import load_bundle
from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.dataset.conditions import Conditions, hide
from pipeline_lib.diffusion.guidance import guided
from pipeline_lib.diffusion.losses import diffusion_loss
from pipeline_lib.diffusion.process import make_process
from pipeline_lib.diffusion.samplers import ddim, timestep_pairs
from pipeline_lib.models.unet import UNet
from pipeline_lib.noise.make import make_noise
from pipeline_lib.training.data import SHOWN
from pipeline_lib.training.steps import Batch, Draw, Step

STRIP_STEPS = 20
"""Most sampling steps for the pictures taken during training, which know nothing of how samples are drawn later."""
STRIP_SEED = 0


class Latents:
    """The latent space of a trained autoencoder; ``scale`` (1, C, 1, ...) brings it to unit variance."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        module, info = load_bundle(folder)
        self.module, self.info = module.to(device), info
        self.channels: int = info["architecture"]["latent_channels"]
        spatial = [1] * info["architecture"]["dimensions"]
        self.scale = torch.tensor(info["scale"], device=device).reshape(1, -1, *spatial)
        self.size: list[int] = info["data"]["size"]
        self.grid: list[int] = self.module.latent_size(self.size)  # type: ignore[operator]

    def decode(self, latent: Tensor) -> Tensor:
        """Images of scaled latents, one at a time."""
        return torch.cat([self.module.decode(z[None], self.size) for z in latent / self.scale])  # type: ignore[operator]


class DenoiserStep(Step):
    """The regression of eps, v or x0 at a random timestep, with what the network is told besides.

    Attributes:
        corners: the combinations of conditions that a strip shows, every one from the same noise.
        asked: what each picture of a strip is conditioned on, where it is not translated from a source.
    """

    averaged = "denoiser"

    def __init__(
        self,
        module: UNet,
        recipe: RecipeOptions,
        process: Mapping[str, Any],
        goal: Latents | None,
        source: Latents | None,
        shown: Batch,
        conditions: Conditions,
    ) -> None:
        """``process``: of `make_process`; ``goal``: latent space of what is generated; ``source``: of what it is
        translated from."""
        diffusion = recipe.diffusion
        self.modules = {self.averaged: module}
        self.recipe, self.goal, self.source, self.shown = recipe, goal, source, shown
        self.conditions = conditions
        self.corners = conditions.corners(SHOWN)
        self.asked = self.corners * (SHOWN // len(self.corners))
        self.process = make_process(**process)
        self.noise = make_noise(**diffusion.noise.model_dump())

    def order(self, step: int) -> Sequence[str]:
        return [self.averaged]

    def losses(self, name: str, batch: Batch, draw: Draw, step: int) -> dict[str, Tensor]:
        return self._loss(self.modules[name], batch, self._told(batch, draw), draw)

    def validate(self, module: nn.Module, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        return self._loss(module, batch, self._condition(batch), draw)

    def at_level(self, module: nn.Module, batch: Batch, draw: Draw, first: int, end: int) -> dict[str, Tensor]:
        """The loss with timesteps from ``first`` to before ``end``, squared errors, moments of the clean sample, and ``eps``, the
        noise that the output stands for, a sample each."""
        x0, noise, t = self._drawn(batch, draw, first, end)
        xt = self.process.forward_diffusion(x0, noise, t)
        output = module(xt, t, self._condition(batch), self._concat(batch))[:, : x0.shape[1]]
        eps = self.process.to_eps(xt, output, t)
        return {
            "loss": self._distance(output, x0, noise, t),
            "x0_mse": (self.process.to_x0(xt, output, t) - x0).square().mean(),
            "eps_mse": (eps - noise).square().mean(),
            "eps": eps,
            "x0_mean": x0.mean(),
            "x0_square": x0.square().mean(),
        }

    def _loss(self, module: nn.Module, batch: Batch, condition: Tensor | None, draw: Draw) -> dict[str, Tensor]:
        x0, noise, t = self._drawn(batch, draw, 0, self.process.timesteps)
        output = module(self.process.forward_diffusion(x0, noise, t), t, condition, self._concat(batch))
        return {"loss": self._distance(output, x0, noise, t)}

    def _drawn(self, batch: Batch, draw: Draw, first: int, end: int) -> tuple[Tensor, Tensor, Tensor]:
        """Clean samples, noise, and timesteps from ``first`` to before ``end``."""
        x0 = self._clean(batch, draw)
        return x0, draw.noise("noise", self.noise, x0.shape), first + draw.timesteps("timesteps", end - first)

    def _distance(self, output: Tensor, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        options = self.recipe.diffusion
        weight = self.process.loss_weight(t, options.loss_weight, options.loss_weight_cap)
        return diffusion_loss(output, self.process.target(x0, noise, t), options.loss, weight)

    def _clean(self, batch: Batch, draw: Draw) -> Tensor:
        """Images, or latents drawn from their posterior and scaled."""
        if self.goal is None:
            return batch["image"]
        prefix = "target_" if self.source is not None else ""
        mean, std = batch[f"{prefix}mean"], batch[f"{prefix}std"]
        return (mean + std * draw.normal("latent", mean.shape)) * self.goal.scale

    def _concat(self, batch: Batch) -> Tensor | None:
        """The mean of the source's latent, scaled."""
        return None if self.source is None else batch["mean"] * self.source.scale

    def _told(self, batch: Batch, draw: Draw) -> Tensor | None:
        """Conditions, some of them hidden."""
        condition = self._condition(batch)
        if condition is None:
            return None
        alone = torch.stack([draw.uniform(f"hidden {name}") for name in self.conditions.names], dim=1)
        return hide(condition, self.recipe.denoiser.drop_condition, draw.uniform("hidden"), alone)

    def _condition(self, batch: Batch) -> Tensor | None:
        return batch["condition"] if self.conditions else None

    @torch.no_grad()
    def strip(self, module: nn.Module) -> Tensor:
        """Samples from the same noise each time: of a grid of conditions, of the shown sources, or as they come."""
        device = next(module.parameters()).device
        shown = {key: value.to(device) for key, value in self.shown.items()}
        known = shown["image"] if self.goal is None else shown["mean" if self.source is None else "target_mean"]
        if self.source is None:
            condition = self.conditions.encode(pd.DataFrame(self.asked)).to(device) if self.conditions else None
            count, noises = len(self.asked), len(self.asked) // len(self.corners)
        else:
            condition, count, noises = self._condition(shown), len(known), len(known)
        generator = torch.Generator(device).manual_seed(STRIP_SEED)
        start = self.noise((noises, *known.shape[1:]), generator=generator, device=device)
        start = start.repeat_interleave(count // noises, dim=0)
        model = guided(module, condition, 1.0, self._concat(shown))
        pairs = timestep_pairs(self.process.timesteps, min(STRIP_STEPS, self.process.timesteps))
        samples = ddim(model, start, pairs, self.process, clip=self.goal is None)
        return samples if self.goal is None else self.goal.decode(samples)
