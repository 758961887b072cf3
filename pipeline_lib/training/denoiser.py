"""Training of the denoiser (Ho et al., 2020, alg. 1), on images or on latents (Rombach et al., 2022)."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from pipeline_lib.bundles.bundle import describe, load_bundle, save_bundle
from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.dataset.augment import augmentation
from pipeline_lib.dataset.conditions import Conditions, hide
from pipeline_lib.dataset.packed import LatentDataset, PackedArrays, PackedDataset
from pipeline_lib.dataset.prepared import prepared_of
from pipeline_lib.diffusion.guidance import guided
from pipeline_lib.diffusion.losses import diffusion_loss
from pipeline_lib.diffusion.process import make_process
from pipeline_lib.diffusion.samplers import ddim, timestep_pairs
from pipeline_lib.diffusion.schedule import log_snr_shift
from pipeline_lib.files import atomic_directory
from pipeline_lib.models.unet import UNet
from pipeline_lib.noise.make import make_noise
from pipeline_lib.training.data import SHOWN, refuse_empty, shown_rows
from pipeline_lib.training.noise_levels import noise_levels
from pipeline_lib.training.owner import owner
from pipeline_lib.training.steps import Batch, Draw, Step
from pipeline_lib.training.trainer import in_steps, launch, train, write_progress

STRIP_STEPS = 20
"""Most sampling steps for the pictures taken during training, which know nothing of how samples are drawn later."""
STRIP_SEED = 0


def train_denoiser(
    recipe: RecipeOptions,
    train_chunks: Sequence[Path],
    validation_chunks: Sequence[Path],
    out: Path,
    state: Path,
    autoencoders: Mapping[str, Path],
    *,
    name: str = "",
    licence: str = "",
) -> None:
    """Train a recipe's denoiser and write the model, its curves, its samples over time and its checkpoints.

    Args:
        train_chunks, validation_chunks: dataset chunks, or latent chunks where there are autoencoders.
        out: folder to write, complete or not at all.
        state: folder of training progress; training resumes from it.
        autoencoders: folder of the trained model by role (``image``, or ``source`` and ``target``).
        name: of the recipe, in progress lines.
        licence: terms of the scans, kept with the model.

    Raises:
        UserError: no training images, a condition that says nothing, or a training that cannot go on.
    """
    with owner(state):
        _train_denoiser(recipe, train_chunks, validation_chunks, out, state, autoencoders, name, licence)


def _train_denoiser(
    recipe: RecipeOptions,
    train_chunks: Sequence[Path],
    validation_chunks: Sequence[Path],
    out: Path,
    state: Path,
    autoencoders: Mapping[str, Path],
    name: str,
    licence: str,
) -> None:
    options, training = recipe.denoiser, recipe.denoiser.training
    fabric = launch(training, recipe.data.dimensions)
    what = f"train_denoiser {name or recipe.task}"

    # Images.
    only = recipe.data.train_groups
    conditions = _conditions(recipe, train_chunks)
    images: PackedArrays
    validation: PackedArrays
    if autoencoders:
        images = LatentDataset(train_chunks, conditions=conditions, only_groups=only)
        validation = LatentDataset(validation_chunks, conditions=conditions, only_groups=only)
    else:
        augment = augmentation(training.augment, training.seed)
        images = PackedDataset(train_chunks, conditions=conditions, only_groups=only, augment=augment)
        validation = PackedDataset(validation_chunks, conditions=conditions, only_groups=only)
    refuse_empty(images, what, train_chunks, recipe.data)
    prepared_of([*train_chunks, *validation_chunks])
    training = in_steps(training, len(images), what)

    # Network and process.
    latents = {role: Latents(path, fabric.device) for role, path in autoencoders.items()}
    source = latents.get("source")
    goal = latents.get("target") or latents.get("image")
    channels = goal.channels if goal else recipe.data.channels
    architecture: dict[str, Any] = {
        "dimensions": recipe.data.dimensions,
        "in_channels": channels + (source.channels if source else 0),
        "out_channels": channels,
        "fold": options.fold,
        "channels": list(options.channels),
        "blocks": options.blocks,
        "attention": list(options.attention),
        "head_channels": options.head_channels,
        "conditions": [condition.size for condition in conditions],
        "dropout": options.dropout,
        "checkpointing": options.checkpointing,
    }
    network = UNet(**architecture)
    if recipe.data.dimensions == 2:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch has it
    known = validation if len(validation) else images
    process = process_of(recipe, goal.grid if goal else recipe.data.size)
    step = DenoiserStep(network, recipe, process, goal, source, known.batch(shown_rows(known)), conditions)

    kept = recipe.sampling.checkpoints
    averages = sorted({round(training.steps * (n + 1) / kept) for n in range(kept)} - {0})
    scans = images.index["scan"].tolist()
    trained = train(fabric, what, step, images, scans, validation, training, state, keep_averages_at=averages)
    if not fabric.is_global_zero:
        return
    info = describe(
        images, trained.best_step, trained.steps, licence,
        role="denoiser", conditions=conditions.described(), task=recipe.task,
        scale=goal.scale.flatten().tolist() if goal else None,
        source_scale=source.scale.flatten().tolist() if source else None,
        process=process, data=recipe.data.model_dump(), options=options.model_dump(), diffusion=recipe.diffusion.model_dump(),
    )  # fmt: skip
    with atomic_directory(out) as folder:
        save_bundle(folder, trained.module, kind="unet", architecture=architecture, info=info)
        if len(validation):
            levels = noise_levels(step, trained.module, validation, training.batch_size, training.seed)
            levels.to_csv(folder / "noise_levels.tsv", sep="\t", index=False)
        write_progress(folder, trained, f"denoiser of {name or recipe.task}: {trained.steps} steps")
        if conditions:
            pd.DataFrame(step.asked).to_csv(folder / "strip.tsv", sep="\t", index_label="picture")
        for at in [step for step in averages if step <= trained.steps]:
            (folder / "checkpoints").mkdir(exist_ok=True)
            file = f"step-{at:08d}.safetensors"
            shutil.copyfile(state / "averages" / file, folder / "checkpoints" / file)


class Latents:
    """The latent space of a trained autoencoder; ``scale`` (1, C, 1, ...) brings it to unit variance."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        module, info = load_bundle(folder)
        self.module = module.to(device)
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
        condition = self._condition(batch)
        if condition is not None:
            alone = torch.stack([draw.uniform(f"hidden {name}") for name in self.conditions.names], dim=1)
            condition = hide(condition, self.recipe.denoiser.drop_condition, draw.uniform("hidden"), alone)
        return self._loss(self.modules[name], batch, condition, draw)

    def validate(self, module: nn.Module, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        return self._loss(module, batch, self._condition(batch), draw)

    def at_level(self, module: nn.Module, batch: Batch, draw: Draw, first: int, end: int) -> dict[str, Tensor]:
        """The loss with timesteps from ``first`` to before ``end``, squared errors, and moments of the clean sample."""
        x0, noise, t = self._drawn(batch, draw, first, end)
        xt = self.process.forward_diffusion(x0, noise, t)
        output = module(xt, t, self._condition(batch), self._concat(batch))
        return {
            "loss": self._distance(output, x0, noise, t),
            "x0_mse": (self.process.to_x0(xt, output, t) - x0).square().mean(),
            "eps_mse": (self.process.to_eps(xt, output, t) - noise).square().mean(),
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


def process_of(recipe: RecipeOptions, grid: Sequence[int]) -> dict[str, Any]:
    """Arguments of `make_process` for images or latents of ``grid`` voxels; model.json keeps them for inference."""
    options = recipe.diffusion
    return {
        "schedule": options.schedule,
        "timesteps": options.timesteps,
        "prediction": options.prediction,
        "zero_terminal_snr": options.zero_terminal_snr,
        "shift": log_snr_shift(grid) if options.shift == "auto" else options.shift,
    }


def _conditions(recipe: RecipeOptions, chunks: Sequence[Path]) -> Conditions:
    """What the network is told, encoded over the images that it is trained on."""
    index = PackedArrays(chunks, only_groups=recipe.data.train_groups).index
    return Conditions.fitted(recipe.denoiser.condition, index) if len(index) else Conditions()
