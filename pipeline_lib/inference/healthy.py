"""Healthy training images, on which scores are standardised."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pipeline_lib.config.schema import DataOptions, RecipeOptions
from pipeline_lib.dataset.index import without_lesion
from pipeline_lib.inference.chunks import read_index
from pipeline_lib.inference.score import contrasts_of


def healthy_images(
    train: Sequence[Path], recipe: RecipeOptions, most: int, *, by_chance: bool = False
) -> list[tuple[Path, pd.DataFrame]]:
    """Up to ``most`` lesion-free training images, an equal share of each contrast: rows of the index, chunk by chunk.

    Args:
        train: packed chunk folders of the training split.
        recipe: ``data.train_groups`` are the healthy groups (empty: all); where ``data.lesion_free``, scans that the training
            leaves out are left out here.
        by_chance: drawn with a fixed seed, so that every level of slices is among them; else evenly spread.
    """
    indices = {number: _free(read_index(chunk), recipe.data) for number, chunk in enumerate(train)}
    if not (some := {number: index for number, index in indices.items() if len(index)}):
        return []
    free = pd.concat(some)
    share = most // len(recipe.data.modalities)
    chosen = [_chosen(own, share, by_chance=by_chance) for _, own in free.groupby(contrasts_of(recipe, free))]
    by_chunk = pd.concat(chosen).sort_index()
    return [(train[number], by_chunk.loc[number]) for number in by_chunk.index.unique(level=0).tolist()]


def _free(index: pd.DataFrame, data: DataOptions) -> pd.DataFrame:
    """Rows without a lesion, of the groups that are trained on."""
    own = index[index["group"].isin(data.train_groups)] if data.train_groups else index
    return own[without_lesion(own, known=bool(data.train_groups) or not data.lesion_free)]


def _chosen(index: pd.DataFrame, most: int, *, by_chance: bool) -> pd.DataFrame:
    if by_chance:
        return index.sample(n=min(most, len(index)), random_state=0)
    return index.iloc[:: -(-len(index) // most)]
