"""Chunk folders as inference and evaluation read them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline_lib.cohort.chunks import ChunkName
from pipeline_lib.dataset import index as packed_index
from pipeline_lib.errors import UserError


def split_of(chunk: Path) -> str:
    """The split of a chunk folder, from its name ``{split}-{family}-{number}``.

    Raises:
        UserError: the folder has another name.
    """
    return ChunkName.parse(chunk.name).split


def read_index(chunk: Path) -> pd.DataFrame:
    """A chunk's index with the columns ``chunk``, ``split`` and ``row`` (the image's place in the dataset chunk)."""
    index = packed_index.read_index(chunk)
    index["chunk"] = chunk.name
    index["split"] = split_of(chunk)
    if "row" not in index:
        index["row"] = np.arange(len(index))
    return index


def read_indices(chunks: Sequence[Path]) -> pd.DataFrame:
    """Rows of several chunks, one after the other."""
    return pd.concat([read_index(chunk) for chunk in chunks], ignore_index=True)


def open_array(chunk: Path, name: str) -> NDArray[np.generic]:
    """A chunk's array ``{name}.npy``, memory-mapped for reading.

    Raises:
        UserError: the file is missing.
    """
    path = chunk / f"{name}.npy"
    if not path.is_file():
        raise UserError(f"{path}: not found; make the chunk again")
    array: NDArray[np.generic] = np.load(path, mmap_mode="r")
    return array


def images_of(chunks: Sequence[Path], name: str = "data") -> NDArray[np.float32]:
    """Images ``(N, C, *spatial)`` of several chunks in memory, in the order of `read_indices`."""
    return np.concatenate([np.asarray(open_array(chunk, name), dtype=np.float32) for chunk in chunks])


def matching(chunks: Sequence[Path], others: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Pairs of folders of one chunk name, in the order of ``chunks``.

    Raises:
        UserError: a chunk has no partner.
    """
    by_name = {other.name: other for other in others}
    missing = [chunk.name for chunk in chunks if chunk.name not in by_name]
    if missing:
        raise UserError(f"chunk {missing[0]}: its dataset folder was not given; give one for each inference chunk")
    return [(chunk, by_name[chunk.name]) for chunk in chunks]
