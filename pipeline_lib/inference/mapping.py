"""From images of a packed chunk to the parts of their anomaly score."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.files import read_json
from pipeline_lib.inference.chunks import open_array
from pipeline_lib.inference.denoise import Denoiser
from pipeline_lib.inference.geometry import voxel_size
from pipeline_lib.inference.places import Places, levels_of
from pipeline_lib.inference.restore import restore
from pipeline_lib.inference.score import Maps, Masks, contrasts_of, lesions_are_dark, parts_of

BY_PLACE = "residual_by_place"


@dataclass(frozen=True)
class Mapped:
    """Parts ``(N, 1, *spatial)`` by name, brain masks of the same shape, and reconstructions ``(N, C, *spatial)``."""

    parts: dict[str, Maps]
    mask: Masks
    reconstruction: Maps


def mapped(
    recipe: RecipeOptions, denoiser: Denoiser, chunk: Path, index: pd.DataFrame, places: Places | None = None
) -> Mapped:
    """The parts of the score of some rows of a packed chunk's index.

    Args:
        places: how the residual varies in healthy images; None while they are measured, and where no part needs them.
    """
    rows = index["row"].to_numpy(dtype=int)
    images = np.asarray(open_array(chunk, "data")[rows], dtype=np.float32)
    mask = np.asarray(open_array(chunk, "mask")[rows]) > 0
    dark = lesions_are_dark(recipe, index)
    restored = restore(denoiser, recipe.evaluation.score, images, index, dark=dark)
    if index.empty:
        return Mapped(dict.fromkeys(recipe.evaluation.score.weights, restored.residual[:, :1]), mask, images)
    parts = parts_of(
        recipe,
        images,
        mask,
        residual=restored.residual,
        segmentation=restored.segmentation,
        dark=dark,
        left_right=read_json(chunk / "layout.json")["left_right"],
        voxel=voxel_size(index),
    )
    if places is not None:
        parts[BY_PLACE] = places(parts[BY_PLACE], mask, levels_of(index), contrasts_of(recipe, index))
    return Mapped(parts, mask, restored.reconstruction)
