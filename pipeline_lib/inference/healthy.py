"""Healthy training images, on which scores are standardised."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pipeline_lib.inference.chunks import read_index


def healthy_images(
    train: Sequence[Path], groups: Sequence[str], most: int, *, by_chance: bool = False
) -> list[tuple[Path, pd.DataFrame]]:
    """Up to ``most`` lesion-free training images: rows of the index, chunk by chunk.

    Args:
        train: packed chunk folders of the training split.
        groups: the healthy groups; empty: all.
        by_chance: drawn with a fixed seed, so that every level of slices is among them; else evenly spread.
    """
    free = {}
    for chunk in train:
        index = read_index(chunk)
        lesioned = index["has_lesion"].astype(str).str.lower() == "true"
        free[chunk] = index[~lesioned & (index["group"].isin(list(groups)) if groups else True)]
    total = sum(map(len, free.values()))
    if by_chance:
        share = min(1.0, most / max(1, total))
        free = {chunk: index.sample(frac=share, random_state=0).sort_index() for chunk, index in free.items()}
    every = 1 if by_chance else max(1, -(-total // most))
    return [(chunk, index.iloc[::every]) for chunk, index in free.items() if len(index)]
