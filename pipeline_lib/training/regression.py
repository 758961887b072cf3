"""Training of the regression of a translation: what a U-Net adds to the linear fit, learned on random patches.

Isola et al. (2017) without the adversary; the mean of all targets that a source allows, which is what a squared error
asks for, and so the reference of every generative model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline_lib.bundles.bundle import describe, save_bundle
from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.dataset.augment import augmentation
from pipeline_lib.dataset.packed import PackedDataset
from pipeline_lib.dataset.patches import PatchDataset
from pipeline_lib.dataset.prepared import prepared_of
from pipeline_lib.files import atomic_directory, read_json
from pipeline_lib.models.regressor import Regressor
from pipeline_lib.training.data import SHOWN, refuse_empty, shown_rows
from pipeline_lib.training.owner import owner
from pipeline_lib.training.steps import Batch, Draw, Step
from pipeline_lib.training.trainer import in_steps, launch, train, write_progress

VALIDATION_PATCHES = 8
"""Of each validation image; the same ones each time."""


def train_regression(
    recipe: RecipeOptions,
    train_chunks: Sequence[Path],
    validation_chunks: Sequence[Path],
    floor: Path,
    out: Path,
    state: Path,
    *,
    name: str = "",
    licence: str = "",
) -> None:
    """Train a recipe's regression on packed chunks and write the model and its curves.

    Args:
        train_chunks, validation_chunks: dataset chunks with source, target and mask.
        floor: folder of the linear fit that the network adds to.
        out: folder to write, complete or not at all.
        state: folder of training progress; training resumes from it.
        name: of the recipe, in progress lines.
        licence: terms of the scans, kept with the model.

    Raises:
        UserError: no training images, or a training that cannot go on (see `trainer.train`).
    """
    options = recipe.regression
    assert options is not None
    what = f"train_regression {name or recipe.task}"
    with owner(state):
        fabric = launch(options.training, recipe.data.dimensions)
        only = recipe.data.train_groups
        seed = options.training.seed
        augment = augmentation(options.training.augment, seed)
        images = PatchDataset(train_chunks, patch=options.patch, seed=seed, only_groups=only, augment=augment)
        refuse_empty(images, what, train_chunks, recipe.data)
        prepared_of([*train_chunks, *validation_chunks])
        training = in_steps(options.training, len(images), what)
        validation = PatchDataset(
            validation_chunks, patch=options.patch, seed=seed, only_groups=only, each=VALIDATION_PATCHES
        )
        whole = PackedDataset(validation_chunks if len(validation) else train_chunks, only_groups=only)

        linear = read_json(floor / "coefficients.json")
        architecture: dict[str, Any] = {
            "dimensions": recipe.data.dimensions,
            "in_channels": recipe.data.channels,
            "out_channels": recipe.data.target_channels,
            "fold": options.fold,
            "channels": list(options.channels),
            "blocks": options.blocks,
            "dropout": options.dropout,
        }
        network = Regressor(**architecture).start_from(
            *(linear[name] for name in ("weights", "intercept", "centre", "spread"))
        )
        step = RegressionStep(network, linear["error"], whole.batch(shown_rows(whole, SHOWN)))
        scans = images.index["scan"].tolist()
        trained = train(fabric, what, step, images, scans, validation, training, state)
        if not fabric.is_global_zero:
            return
        info = describe(
            images, trained.best_step, trained.steps, licence,
            role="regression", data=recipe.data.model_dump(), options=options.model_dump(),
        )  # fmt: skip
        with atomic_directory(out) as folder:
            save_bundle(folder, trained.module, kind="regressor", architecture=architecture, info=info)
            write_progress(folder, trained, f"regression of {name or recipe.task}: {trained.steps} steps")


class RegressionStep(Step):
    """Squared error inside the mask, each map's over that of the linear fit: 1 is the linear fit, 0 is perfect."""

    averaged = "regression"

    def __init__(self, module: Regressor, error: Sequence[float], shown: Batch) -> None:
        """``error``: mean squared error of the linear fit, one a map; ``shown``: whole images for the strip."""
        self.modules = {self.averaged: module}
        self.error, self.shown = torch.tensor(error, dtype=torch.float32), shown

    def order(self, step: int) -> Sequence[str]:
        return [self.averaged]

    def losses(self, name: str, batch: Batch, draw: Draw, step: int) -> dict[str, Tensor]:
        return self.validate(self.modules[name], batch, draw)

    def validate(self, module: nn.Module, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        mask = (batch["mask"] > 0.5).float()
        difference = (module(batch["image"]).float() - batch["target"]) * mask
        axes = [0, *range(2, mask.ndim)]
        each = difference.square().sum(axes) / mask.sum().clamp(min=1)
        return {"loss": (each / self.error.to(each.device).clamp(min=1e-8)).mean()}

    @torch.no_grad()
    def strip(self, module: nn.Module) -> Tensor:
        """Predicted maps of the shown images, background where there is no brain."""
        device = next(module.parameters()).device
        shown = {key: value.to(device) for key, value in self.shown.items()}
        maps = [module(source[None]).clamp(-1, 1) for source in shown["image"]]
        return torch.where(shown["mask"] > 0.5, torch.cat(maps), -1.0)

    def reference(self) -> Tensor:
        return self.shown["target"]
