"""What the training of a KL autoencoder and that of a VQGAN have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline_lib.bundles.bundle import describe, save_bundle
from pipeline_lib.bundles.start import read_start
from pipeline_lib.config.schema import AutoencoderOptions, DataOptions
from pipeline_lib.dataset.augment import augmentation
from pipeline_lib.dataset.packed import PackedDataset
from pipeline_lib.dataset.prepared import prepared_of
from pipeline_lib.files import atomic_directory
from pipeline_lib.training.data import ARRAYS, refuse_empty, shown_images
from pipeline_lib.training.owner import owner
from pipeline_lib.training.steps import Step
from pipeline_lib.training.trainer import in_steps, launch, train, write_progress


def channels_of(role: str, data: DataOptions) -> int:
    """Channels of the images an autoencoder of this role sees."""
    return data.target_channels if role == "target" else data.channels


def train_autoencoder(
    make: Callable[[Tensor], tuple[Step, dict[str, Any]]],
    kind: str,
    options: AutoencoderOptions,
    data: DataOptions,
    train_folders: Sequence[Path],
    validation_folders: Sequence[Path],
    out: Path,
    state: Path,
    role: str,
    licence: str,
    start_from: str | Path = "",
    *,
    extra: Callable[[nn.Module, PackedDataset, Path, torch.device], None] | None = None,
) -> None:
    """Train an autoencoder, measure the scale of its latents, and write all of it.

    Args:
        make: gives, for the images of the strip, the step and the network's architecture.
        kind: of the model, as in `bundle.CLASSES`.
        licence: terms of the scans, kept with the model.
        start_from: weights to start from; empty: none.
        extra: writes more into the output folder, from the averaged network and the validation images.
    """
    what = f"train_{options.kind} {role}"
    with owner(state):
        fabric = launch(options.training, data.dimensions)
        augment = augmentation(options.training.augment, options.training.seed)
        images = PackedDataset(train_folders, only_groups=data.train_groups, augment=augment)
        refuse_empty(images, what, train_folders, data)
        prepared_of([*train_folders, *validation_folders])
        training = in_steps(options.training, len(images), what)
        validation = PackedDataset(validation_folders, only_groups=data.train_groups)
        step, architecture = make(shown_images(validation if len(validation) else images, ARRAYS[role]))
        start = read_start(start_from, "autoencoder", role, options.start_from or "") if start_from else None
        if start is not None:
            start.refuse_monai_without_groups(options.groups)
            start.load_into(step.modules[step.averaged], "autoencoder")
        scans = images.index["scan"].tolist()
        trained = train(fabric, what, step, images, scans, validation, training, state)
        if not fabric.is_global_zero:
            return
        plain = PackedDataset(train_folders, only_groups=data.train_groups)
        scale = latent_scale(trained.module, plain, ARRAYS[role], fabric.device)
        info = describe(
            images, trained.best_step, trained.steps, licence, start=start,
            role=role, scale=scale, data=data.model_dump(), options=options.model_dump(),
        )  # fmt: skip
        with atomic_directory(out) as folder:
            save_bundle(folder, trained.module, kind=kind, architecture=architecture, info=info)
            write_progress(folder, trained, f"{options.kind.upper()} of the {role}: {trained.steps} steps")
            if extra is not None and len(validation):
                extra(trained.module, validation, folder, fabric.device)


@torch.no_grad()
def latent_scale(module: nn.Module, images: PackedDataset, name: str, device: torch.device) -> list[float]:
    """1 / standard deviation of each latent channel over the training set, spread of the posterior included."""
    total: Tensor | None = None
    squares: Tensor | None = None
    count = 0
    for row in range(len(images)):
        mean, std = module.encode(images[row][name][None].to(device))  # type: ignore[operator]
        mean, std = mean[0].double().flatten(1), std[0].double().flatten(1)
        total = mean.sum(1) if total is None else total + mean.sum(1)
        spread = (mean.square() + std.square()).sum(1)
        squares = spread if squares is None else squares + spread
        count += mean.shape[1]
    if total is None or squares is None:
        raise ValueError("the scale of latents needs at least one image")
    variance = squares / count - (total / count).square()
    scale: list[float] = variance.clamp(min=1e-12).rsqrt().tolist()
    return scale
