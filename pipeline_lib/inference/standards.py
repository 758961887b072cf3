"""How the parts of an anomaly score vary in healthy training images: the units in which they are added."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.errors import UserError
from pipeline_lib.files import atomic_directory, read_json, write_json
from pipeline_lib.inference.baselines import Standard
from pipeline_lib.inference.denoise import load_denoiser
from pipeline_lib.inference.healthy import healthy_images
from pipeline_lib.inference.mapping import mapped

FILE = "standards.json"
IMAGES = 200
"""At most so many images, evenly spread."""


def measure_standards(recipe: RecipeOptions, diffusion: Path, train: list[Path], out: Path) -> None:
    """Write ``standards.json``: mean and standard deviation of every part of the score inside healthy brains.

    They are of people the model was trained on, whose residuals are a little smaller than a stranger's: the parts are
    brought to one unit, nobody is judged. Empty where the score has one part, which needs no unit.

    Args:
        recipe: ``evaluation.score`` says which parts.
        diffusion: folder of the trained denoiser.
        train: packed chunk folders of the training split.
        out: folder to write.

    Raises:
        UserError: no training image is healthy.
    """
    standards: dict[str, Standard] = {}
    if len(recipe.evaluation.score.weights) > 1:
        healthy = healthy_images(train, recipe.data.train_groups, IMAGES)
        if not healthy:
            raise UserError("no training image without a lesion: the parts of evaluation.score.weights have no unit")
        denoiser = load_denoiser(recipe, diffusion)
        found = [mapped(recipe, denoiser, chunk, index) for chunk, index in healthy]
        mask = np.concatenate([each.mask for each in found])
        standards = {
            name: Standard.of(np.concatenate([each.parts[name] for each in found]), mask)
            for name in recipe.evaluation.score.weights
        }
    with atomic_directory(out) as folder:
        write_json(folder / FILE, {name: asdict(standard) for name, standard in standards.items()})


def read_standards(folder: Path) -> dict[str, Standard]:
    """What `measure_standards` wrote."""
    return {name: Standard(**values) for name, values in read_json(folder / FILE).items()}
