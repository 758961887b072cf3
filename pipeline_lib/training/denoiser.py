"""Training of the denoiser (Ho et al., 2020, alg. 1), on images or on latents (Rombach et al., 2022)."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning_fabric import Fabric

from pipeline_lib.bundles.bundle import describe, save_bundle
from pipeline_lib.bundles.regression import Regression
from pipeline_lib.bundles.start import read_start
from pipeline_lib.config import fine_tuning
from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.dataset.augment import augmentation
from pipeline_lib.dataset.conditions import Conditions
from pipeline_lib.dataset.packed import LatentDataset, PackedArrays, PackedDataset
from pipeline_lib.dataset.patches import PatchDataset
from pipeline_lib.dataset.prepared import prepared_of
from pipeline_lib.diffusion.schedule import log_snr_shift
from pipeline_lib.files import atomic_directory
from pipeline_lib.models.unet import UNet
from pipeline_lib.tasks import TASKS
from pipeline_lib.tasks.task import covers
from pipeline_lib.training.data import refuse_empty, shown_rows
from pipeline_lib.training.denoiser_step import DenoiserStep, Latents
from pipeline_lib.training.noise_levels import noise_levels
from pipeline_lib.training.owner import owner
from pipeline_lib.training.regression import VALIDATION_PATCHES
from pipeline_lib.training.residual import ResidualStep, regress, residual_scale
from pipeline_lib.training.restoration import RestorationStep
from pipeline_lib.training.trainer import in_steps, launch, train, write_progress

REGRESSED = "regression"
"""Folder in the state of a training that keeps what the regression makes of its images."""


def train_denoiser(
    recipe: RecipeOptions,
    train_chunks: Sequence[Path],
    validation_chunks: Sequence[Path],
    out: Path,
    state: Path,
    autoencoders: Mapping[str, Path],
    *,
    regression: Path | None = None,
    name: str = "",
    licence: str = "",
    start_from: str | Path = "",
) -> None:
    """Train a recipe's denoiser and write the model, its curves, its samples over time and its checkpoints.

    Args:
        train_chunks, validation_chunks: dataset chunks, or latent chunks where there are autoencoders.
        out: folder to write, complete or not at all.
        state: folder of training progress; training resumes from it.
        autoencoders: folder of the trained model by role (``image``, or ``source`` and ``target``).
        regression: folder of the trained regression whose residual is learned; None where latents or images are.
        name: of the recipe, in progress lines.
        licence: terms of the scans, kept with the model.
        start_from: weights to start from, see `bundles.start`; empty: none.

    Raises:
        UserError: no training images, a condition that says nothing, or a training that cannot go on.
    """
    with owner(state):
        _train_denoiser(
            recipe, train_chunks, validation_chunks, out, state, autoencoders, regression, name, licence, start_from
        )


def _train_denoiser(
    recipe: RecipeOptions,
    train_chunks: Sequence[Path],
    validation_chunks: Sequence[Path],
    out: Path,
    state: Path,
    autoencoders: Mapping[str, Path],
    regression: Path | None,
    name: str,
    licence: str,
    start_from: str | Path,
) -> None:
    options, training = recipe.denoiser, recipe.denoiser.training
    fabric = launch(training, recipe.data.dimensions)
    what = f"train_denoiser {name or recipe.task}"

    # Images.
    only = recipe.data.train_groups
    start = read_start(start_from, "denoiser", content=options.start_from or "") if start_from else None
    conditions = _conditions(recipe, train_chunks)
    if start is not None:
        conditions = start.encoded_alike(conditions)
        start.refuse_otherwise("denoiser", prediction=recipe.diffusion.prediction, timesteps=recipe.diffusion.timesteps)
    images: PackedArrays
    validation: PackedArrays
    regressed = Regression(regression, fabric.device) if regression else None
    if autoencoders:
        images = LatentDataset(train_chunks, conditions=conditions, only_groups=only)
        validation = LatentDataset(validation_chunks, conditions=conditions, only_groups=only)
    elif regressed:
        both = _regressed(recipe, regressed, train_chunks, validation_chunks, state, fabric)
        images, validation = _patches(recipe, train_chunks, validation_chunks, both)
    else:
        augment = augmentation(training.augment, training.seed)
        chosen: dict[str, Any] = {"only_groups": only, "lesion_free": recipe.data.lesion_free}
        images = PackedDataset(train_chunks, conditions=conditions, augment=augment, **chosen)
        validation = PackedDataset(validation_chunks, conditions=conditions, **chosen)
    refuse_empty(images, what, train_chunks, recipe.data)
    prepared_of([*train_chunks, *validation_chunks])
    training = in_steps(training, len(images), what)

    # Network and process.
    latents = {role: Latents(path, fabric.device) for role, path in autoencoders.items()}
    source = latents.get("source")
    goal = latents.get("target") or latents.get("image")
    channels = goal.channels if goal else recipe.data.target_channels if regressed else recipe.data.channels
    beside = source.channels if source else recipe.data.channels + channels if regressed else 0
    architecture: dict[str, Any] = {
        "dimensions": recipe.data.dimensions,
        "in_channels": channels + beside,
        "out_channels": channels + (1 if options.synthetic_lesions else 0),
        "fold": options.fold,
        "channels": list(options.channels),
        "blocks": options.blocks,
        "attention": list(options.attention),
        "head_channels": options.head_channels,
        "conditions": [condition.size for condition in conditions],
        "dropout": options.dropout,
    }
    architecture |= {"detail": options.detail} if options.detail else {}
    architecture |= {"local": True} if options.patch else {}
    network = UNet(**architecture, checkpointing=options.checkpointing)
    if start is not None:
        start.load_into(network, "denoiser", conditions)
    if recipe.data.dimensions == 2:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch has it
    known = validation if len(validation) else images
    seen = [min(options.patch or length, length) for length in recipe.data.size]
    process = process_of(recipe, goal.grid if goal else seen)
    what_it_learns = (network, recipe, process, goal, source, known.batch(shown_rows(known)), conditions)
    lesions = options.synthetic_lesions
    residual: dict[str, Any] = {}
    step: DenoiserStep
    if regressed:
        whole = PackedDataset(train_chunks, only_groups=only, regressed=both[0])
        residual = {"residual_scale": residual_scale(whole)}
        step = ResidualStep(*what_it_learns, regression=regressed, scale=residual["residual_scale"])
    else:
        step = RestorationStep(*what_it_learns, lesions=lesions) if lesions else DenoiserStep(*what_it_learns)

    if start is not None:
        step.rates = {f"condition.{n}.": fine_tuning.NEW_CATEGORIES for n in start.new_categories(conditions)}

    followed = covers(TASKS[recipe.task].stage("denoiser").reads, "sampling.checkpoints")
    kept = recipe.sampling.checkpoints if followed else 0
    averages = sorted({round(training.steps * (n + 1) / kept) for n in range(kept)} - {0})
    scans = images.index["scan"].tolist()
    trained = train(fabric, what, step, images, scans, validation, training, state, keep_averages_at=averages)
    if not fabric.is_global_zero:
        return
    info = describe(
        images, trained.best_step, trained.steps, licence, start=start, beside=[each.info for each in latents.values()],
        role="denoiser", conditions=conditions.described(), task=recipe.task,
        scale=goal.scale.flatten().tolist() if goal else None,
        source_scale=source.scale.flatten().tolist() if source else None,
        **residual, process=process, data=recipe.data.model_dump(), options=options.model_dump(), diffusion=recipe.diffusion.model_dump(),
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
    shutil.rmtree(state / REGRESSED, ignore_errors=True)


def _regressed(
    recipe: RecipeOptions,
    regression: Regression,
    train_chunks: Sequence[Path],
    validation_chunks: Sequence[Path],
    state: Path,
    fabric: Fabric,
) -> tuple[list[Path], list[Path]]:
    """The regression of all training and validation images, shared out over the processes; kept while training lasts."""
    share = slice(fabric.global_rank, None, fabric.world_size)
    train_files, validation_files = (
        regress(regression, PackedDataset(chunks, only_groups=recipe.data.train_groups), state / REGRESSED, share)
        for chunks in (train_chunks, validation_chunks)
    )
    fabric.barrier()
    return train_files, validation_files


def _patches(
    recipe: RecipeOptions,
    train_chunks: Sequence[Path],
    validation_chunks: Sequence[Path],
    regressed: tuple[list[Path], list[Path]],
) -> tuple[PackedDataset, PackedDataset]:
    """Training and validation images with their regression: whole, or patches of them."""
    patch, training, only = recipe.denoiser.patch, recipe.denoiser.training, recipe.data.train_groups
    changed: dict[str, Any] = {"only_groups": only, "augment": augmentation(training.augment, training.seed)}
    if not patch:
        images = PackedDataset(train_chunks, regressed=regressed[0], **changed)
        return images, PackedDataset(validation_chunks, only_groups=only, regressed=regressed[1])
    cut: dict[str, Any] = {"patch": patch, "seed": training.seed}
    images = PatchDataset(train_chunks, regressed=regressed[0], **cut, **changed)
    again: dict[str, Any] = {"only_groups": only, "regressed": regressed[1], "each": VALIDATION_PATCHES}
    return images, PatchDataset(validation_chunks, **cut, **again)


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
    data = recipe.data
    index = PackedArrays(chunks, only_groups=data.train_groups, lesion_free=data.lesion_free).index
    return Conditions.fitted(recipe.denoiser.condition, index) if len(index) else Conditions()
