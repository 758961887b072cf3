"""How scores vary in healthy training images: the units in which the parts of an anomaly score, and of a floor, are added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.errors import UserError
from pipeline_lib.files import atomic_directory, read_json, read_table, write_json
from pipeline_lib.inference.baselines import Standard, excess_map, intensity_map, units_of
from pipeline_lib.inference.chunks import open_array
from pipeline_lib.inference.denoise import Denoiser, load_denoiser
from pipeline_lib.inference.geometry import voxel_size
from pipeline_lib.inference.healthy import healthy_images
from pipeline_lib.inference.mapping import BY_PLACE, mapped
from pipeline_lib.inference.places import Places, levels_of
from pipeline_lib.inference.score import Maps, contrasts_of, lesions_are_dark, smoothed

FILE, FLOORS, THRESHOLDS, PLACES = "standards.json", "floors.json", "thresholds.tsv", "places.npz"
DIFFUSION = "diffusion"
"""What the model's maps are called among methods that mark lesions."""
IMAGES = 200
"""At most so many images, evenly spread."""
FLOOR_IMAGES = 500
"""The same for the floors, which cost less."""
PLACE_IMAGES = 1000
"""At most so many images, by chance, for what is known place by place."""
Healthy = Sequence[tuple[Path, pd.DataFrame]]


def measure_standards(recipe: RecipeOptions, diffusion: Path, train: list[Path], out: Path) -> None:
    """Write mean and standard deviation of every part of the score, and of the floors', inside healthy brains.

    They are of people the model was trained on, whose residuals are a little smaller than a stranger's: the parts are
    brought to one unit, nobody is judged. ``standards.json`` is empty where the score has one part, which needs no unit,
    ``floors.json`` where no training image is healthy or images do not show left and right. ``places.npz`` is there where a
    part of the score is taken by place.

    Args:
        recipe: ``evaluation.score`` says which parts.
        diffusion: folder of the trained denoiser.
        train: packed chunk folders of the training split.
        out: folder to write.

    Raises:
        UserError: no training image is healthy.
    """
    weights = recipe.evaluation.score.weights
    standards: dict[str, Standard] = {}
    places = None
    if len(weights) > 1 or BY_PLACE in weights:
        healthy = healthy_images(train, recipe, IMAGES)
        if (missing := _without_healthy(recipe, healthy)) is not None:
            raise UserError(
                f"no training image {missing}without a lesion: the parts of evaluation.score.weights have no unit"
            )
        denoiser = load_denoiser(recipe, diffusion)
        places = measure_places(recipe, denoiser, train) if BY_PLACE in weights else None
        standards = standards_of(recipe, denoiser, healthy, places)
    with atomic_directory(out) as folder:
        for name, units in ((FILE, standards if len(weights) > 1 else {}), (FLOORS, _floors(recipe, train))):
            write_json(folder / name, {part: asdict(standard) for part, standard in units.items()})
        if places is not None:
            places.save(folder / PLACES)


def standards_of(
    recipe: RecipeOptions, denoiser: Denoiser, healthy: Healthy, places: Places | None
) -> dict[str, Standard]:
    """The unit of every part, from healthy images."""
    found = [mapped(recipe, denoiser, chunk, index, places) for chunk, index in healthy]
    parts = {name: np.concatenate([each.parts[name] for each in found]) for name in found[0].parts}
    return units_of(parts, np.concatenate([each.mask for each in found]), _contrasts(recipe, healthy))


def _contrasts(recipe: RecipeOptions, healthy: Healthy) -> NDArray[np.object_]:
    return np.concatenate([contrasts_of(recipe, index) for _, index in healthy])


def _without_healthy(recipe: RecipeOptions, healthy: Healthy) -> str | None:
    """``of T1w``: a contrast without a healthy image; empty where there is none at all, None where all have some."""
    if not healthy:
        return ""
    there = set(_contrasts(recipe, healthy))
    return next((f"of {contrast} " for contrast in recipe.data.modalities if contrast not in there), None)


def measure_places(recipe: RecipeOptions, denoiser: Denoiser, train: Sequence[Path]) -> Places:
    """How the smoothed residual varies from place to place in healthy training images."""
    healthy: Healthy = healthy_images(train, recipe, PLACE_IMAGES, by_chance=True)
    found = [mapped(recipe, denoiser, chunk, index) for chunk, index in healthy]
    return Places.of(
        np.concatenate([each.parts[BY_PLACE] for each in found]),
        np.concatenate([each.mask for each in found]),
        np.concatenate([levels_of(index) for _, index in healthy]),
        _contrasts(recipe, healthy),
    )


def read_places(recipe: RecipeOptions, folder: Path) -> Places | None:
    """What `measure_standards` wrote of places; None where no part of the score needs it.

    Raises:
        UserError: a part needs it and it is not there.
    """
    if BY_PLACE not in recipe.evaluation.score.weights:
        return None
    path = folder / PLACES
    if not path.is_file():
        raise UserError(f"{path} is missing: evaluation.score.weights {BY_PLACE} needs it; measure the standards again")
    return Places.read(path)


def read_standards(folder: Path, name: str = FILE) -> dict[str, Standard]:
    """What `measure_standards` wrote."""
    return {part: Standard(**values) for part, values in read_json(folder / name).items()}


def read_thresholds(folder: Path) -> Mapping[str, float | None] | None:
    """The threshold of each method that came with the bundle of a frozen recipe; None where people are to choose it."""
    path = folder / THRESHOLDS
    if not path.is_file():
        return None
    return {row["method"]: float(row["threshold"]) if row["threshold"] else None for row in read_table(path)}


def intensity_scores(recipe: RecipeOptions, chunk: Path, index: pd.DataFrame) -> Maps:
    """What needs no training: smoothed intensities ``(N, 1, *spatial)`` of rows of a packed chunk's index."""
    rows = index["row"].to_numpy(dtype=int)
    images = np.asarray(open_array(chunk, "data")[rows], dtype=np.float32)
    mask = np.asarray(open_array(chunk, "mask")[rows]) > 0
    raw = intensity_map(images, mask, dark=lesions_are_dark(recipe, index))
    return smoothed(raw, mask, recipe.evaluation, voxel_size(index))


def _floors(recipe: RecipeOptions, train: Sequence[Path]) -> dict[str, Standard]:
    """Units of the intensity (``level``) and of its left-right asymmetry (``excess``)."""
    healthy = healthy_images(train, recipe, FLOOR_IMAGES)
    left_right = read_json(train[0] / "layout.json")["left_right"] if train else None
    if left_right is None or _without_healthy(recipe, healthy) is not None:
        return {}
    masks = [np.asarray(open_array(chunk, "mask")[index["row"].to_numpy(dtype=int)]) > 0 for chunk, index in healthy]
    mask = np.concatenate(masks)
    scores = np.concatenate([intensity_scores(recipe, chunk, index) for chunk, index in healthy])
    parts = {"level": scores, "excess": excess_map(scores, mask, left_right)}
    return units_of(parts, mask, _contrasts(recipe, healthy))
