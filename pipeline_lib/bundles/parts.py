"""The parts of a finished recipe, put where a run would have made them."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline_lib.bundle_plan import PLAN, WEIGHTS, finished_recipe, read_plan
from pipeline_lib.errors import UserError
from pipeline_lib.files import atomic_directory, sha256_file


def copy_part(weights: str | Path, part: str, out: Path) -> None:
    """Write a part of what a recipe is applied from into the folder ``out``.

    Args:
        weights: a bundle by its name or folder, or the folder of a finished recipe.
        part: ``diffusion``, ``autoencoder/<role>``, or a key of `bundle_plan.FITTED`.

    Raises:
        UserError: it has no such part, or its weights are not those that its plan was written for.
    """
    finished = finished_recipe(weights)
    if part not in finished.parts:
        raise UserError(f"{weights} has no {part}: build the bundle again from its finished recipe")
    files = finished.parts[part]
    if WEIGHTS in files and read_plan(files[PLAN].parent).get("weights_sha256") != sha256_file(files[WEIGHTS]):
        raise UserError(f"{files[WEIGHTS]} is not the file that {PLAN} was written for: copy the bundle again")
    with atomic_directory(out) as folder:
        for name, path in files.items():
            shutil.copyfile(path, folder / name)
