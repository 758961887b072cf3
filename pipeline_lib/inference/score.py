"""What an anomaly map is made of: parts, smoothed alike, in units of healthy training images, added with fixed weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.special import expit
from skimage.metrics import structural_similarity

from pipeline_lib.bundle_plan import is_mark
from pipeline_lib.config.schema import EvaluationOptions, RecipeOptions, Residual
from pipeline_lib.errors import UserError
from pipeline_lib.inference.baselines import Dark, Units, excess_map, in_units, intensity_map, sign_of
from pipeline_lib.metrics.smoothing import smooth

DARK_LESIONS = ("T1w",)
"""Modalities on which lesions are darker than what they lie in."""
WINDOW = 7
Maps = NDArray[np.float32]
Masks = NDArray[np.bool_]


def contrasts_of(recipe: RecipeOptions, index: pd.DataFrame) -> NDArray[np.object_]:
    """The modality of each image of an index, ``(N,)``."""
    several = len(recipe.data.modalities) > 1
    found: NDArray[np.object_] = (
        index["modality"].to_numpy(dtype=object) if several else np.full(len(index), recipe.data.modality, dtype=object)
    )
    return found


def lesions_are_dark(recipe: RecipeOptions, index: pd.DataFrame) -> Masks:
    """Whether lesions are looked for as dark, by the configuration or the modality of each image, ``(N,)``."""
    said = recipe.evaluation.score.lesions
    if said == "auto":
        return np.isin(contrasts_of(recipe, index).astype(str), DARK_LESIONS)
    return np.full(len(index), said == "dark")


def difference(
    images: NDArray[np.floating],
    reconstruction: NDArray[np.floating],
    kind: Residual,
    *,
    dark: Dark,
) -> Maps:
    """``(N, 1, *spatial)`` difference of ``(N, C, *spatial)`` images, a mean over channels.

    ``signed`` is positive where an image is brighter than its reconstruction, or darker where lesions are ``dark``; ``ssim`` is
    1 less the local structural similarity (Wang et al., 2004) in a window of `WINDOW` voxels, from 0 to 2.
    """
    if kind == "ssim":
        return _dissimilarity(np.asarray(images, dtype=np.float32), np.asarray(reconstruction, dtype=np.float32))
    each = np.asarray(images, dtype=np.float32) - reconstruction
    if kind == "squared":
        each = each**2
    elif kind == "l1":
        each = np.abs(each)
    else:
        each = each * sign_of(dark, each)
    return each.mean(axis=1, keepdims=True).astype(np.float32)


def _dissimilarity(images: Maps, reconstruction: Maps) -> Maps:
    window = min(WINDOW, min(images.shape[2:]) // 2 * 2 - 1)
    local = [
        [
            structural_similarity(one, other, win_size=window, data_range=2, full=True)[1]
            for one, other in zip(*pair, strict=True)
        ]
        for pair in zip(images, reconstruction, strict=True)
    ]
    return (1 - np.asarray(local, dtype=np.float32)).mean(axis=1, keepdims=True)


def smoothed(maps: Maps, mask: Masks, options: EvaluationOptions, voxel: float) -> Maps:
    """Maps as they are judged; ``voxel`` is its side in mm."""
    found = smooth(maps, mask, options.smoothing_mm / voxel, options.smoothing)
    return without_rim(found, mask, options.erosion_mm / voxel) if options.erosion_mm else found


def without_rim(maps: Maps, mask: Masks, depth: float) -> Maps:
    """Maps whose rim, up to ``depth`` voxels within the mask, has the lowest score of what lies deeper, in each image."""
    deep = np.stack([distance_transform_edt(brain) > depth for brain in mask[:, 0]])[:, None]
    axes = tuple(range(1, maps.ndim))
    lowest = np.where(deep, maps, np.inf).min(axis=axes, keepdims=True)
    lowest = np.where(np.isfinite(lowest), lowest, 0)
    return np.where(mask & ~deep, lowest, maps).astype(np.float32)


def parts_of(
    recipe: RecipeOptions,
    images: Maps,
    mask: Masks,
    *,
    residual: Maps,
    segmentation: Maps | None,
    dark: Dark,
    left_right: int | None,
    voxel: float,
) -> dict[str, Maps]:
    """The parts that ``evaluation.score.weights`` names, smoothed, each ``(N, 1, *spatial)``.

    ``residual_by_place`` is the residual yet, see `places.Places`.

    Args:
        images, mask: ``(N, C, *spatial)`` and ``(N, 1, *spatial)``.
        residual, segmentation: of the model.
        dark: whether lesions are dark.
        left_right: spatial axis from left to right; None where a slice shows one side.
        voxel: side of a voxel, mm.

    Raises:
        UserError: asymmetry is wanted of images that show one side, or a segmentation of a network that makes none.
    """
    found: dict[str, Maps] = {}
    for name in recipe.evaluation.score.weights:
        base, _, how = name.partition("_")
        asymmetry = how == "asymmetry"
        if base == "intensity":
            raw = intensity_map(images, mask, dark=dark)
        elif base == "residual":
            raw = residual
        elif segmentation is not None:
            raw = segmentation
        else:
            raise UserError(
                "evaluation.score.weights segmentation needs evaluation.score.levels: a chain marks nothing"
            )
        part = smoothed(raw, mask, recipe.evaluation, voxel)
        if asymmetry and left_right is None:
            raise UserError(f"evaluation.score.weights {name}: these images do not show left and right; take it out")
        found[name] = part if not asymmetry or left_right is None else excess_map(part, mask, left_right)
    return found


def combined(
    parts: Mapping[str, Maps],
    mask: Masks,
    weights: Mapping[str, float],
    standards: Units,
    contrasts: NDArray[np.object_],
) -> Maps:
    """Parts in units of healthy images, added with their weights; a single part stays in its own units, but for the network's mark
    of a lesion, whose smoothed logits become values from 0 to 1 (1 from a logit of 17 on): 0 outside the brain is then the lowest.

    Args:
        parts: from `parts_of`, ``(N, 1, *spatial)`` each.
        standards: of each part where there are several.
        contrasts: of each image, ``(N,)``.
    """
    if len(parts) == 1:
        (only,) = parts.values()
        return np.where(mask, expit(only), 0).astype(np.float32) if is_mark(parts) else only
    total = sum(weights[name] * in_units(standards, name, part, contrasts) for name, part in parts.items())
    return np.where(mask, total, 0).astype(np.float32)
