"""Healthy training images, on which scores are standardised."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pipeline_lib.inference.chunks import read_index


def healthy_images(train: Sequence[Path], groups: Sequence[str], most: int) -> list[tuple[Path, pd.DataFrame]]:
    """Up to ``most`` lesion-free training images, evenly spread: rows of the index, chunk by chunk.

    Args:
        train: packed chunk folders of the training split.
        groups: the healthy groups; empty: all.
    """
    free = {}
    for chunk in train:
        index = read_index(chunk)
        lesioned = index["has_lesion"].astype(str).str.lower() == "true"
        free[chunk] = index[~lesioned & (index["group"].isin(list(groups)) if groups else True)]
    every = max(1, -(-sum(map(len, free.values())) // most))
    return [(chunk, index.iloc[::every]) for chunk, index in free.items() if len(index)]
