"""Anomaly maps over pictures, the most abnormal first, for the page of a chunk that holds many."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline_lib.inference.chunks import open_array
from pipeline_lib.inference.pictures import Row, Tile, mosaic, plane, save
from pipeline_lib.report.page import Picture, load_picture
from pipeline_lib.report.tables import Download, download
from pipeline_lib.report.view import Inferred

SHOWN, ABREAST = 40, 4
"""Pictures that a page shows, and beside each other."""


@dataclass(frozen=True)
class Mapped:
    """What a recipe marked in the pictures of a chunk: the most abnormal ones, and all of them as a table."""

    recipe: str
    shown: Picture
    table: Download
    pictures: int


def mapped_pictures(chunk: str, inferred: Sequence[Inferred]) -> Iterator[Mapped]:
    """The maps of every recipe that made some, by the highest score in each."""
    for each in inferred:
        if not (each.inference / "maps.npy").is_file() or each.index.empty:
            continue
        maps, masks = open_array(each.inference, "maps"), open_array(each.dataset, "mask")
        rows = each.index["row"].to_numpy(dtype=int)
        inside = [np.where(masks[row] > 0, maps[place], np.nan) for place, row in enumerate(rows)]
        table = each.index[["scan", "participant", "group"]].assign(
            highest=[_over_brain(one, np.max) for one in inside],
            mean=[_over_brain(one, np.mean) for one in inside],
        )
        if each.threshold is not None:
            table["pixels_at_threshold"] = [int((one >= each.threshold).sum()) for one in inside]
        order = np.argsort(-table["highest"].fillna(-np.inf).to_numpy(), kind="stable")
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / f"{each.recipe}.png"
            save(_figure(each, inside, order[:SHOWN], table), path, dpi=90)
            shown = load_picture(
                path,
                alt=f"Pictures of {chunk} with the map of {each.recipe} beside each, the highest score first.",
                caption=_caption(len(table), each.threshold),
            )
        yield Mapped(each.recipe, shown, download(f"{chunk}_{each.recipe}_maps.tsv", table.iloc[order]), len(table))


def _over_brain(scores: NDArray[np.float32], of: Callable[[NDArray[np.float32]], np.floating]) -> float:
    found = scores[np.isfinite(scores)]
    return float(of(found)) if found.size else float("nan")


def _caption(pictures: int, threshold: float | None) -> str:
    which = f"The {SHOWN} of {pictures:,} pictures" if pictures > SHOWN else "The pictures"
    line = " The red line is the threshold that was chosen on validation people." if threshold is not None else ""
    return f"{which} with the highest scores, each with its map beside it.{line}"


def _figure(
    each: Inferred, inside: Sequence[NDArray[np.float32]], order: NDArray[np.int64], table: pd.DataFrame
) -> Figure:
    low, high = np.nanpercentile(np.concatenate([one.ravel() for one in inside]), (1, 99.8)).tolist()
    tiles = []
    for place in order:
        image = open_array(each.dataset, "data")[int(each.index["row"].iloc[place])]
        scores = np.nan_to_num(inside[place][0], nan=low)
        over = None if each.threshold is None else (inside[place][0] >= each.threshold).astype(np.float32)
        tiles += [
            Tile(
                plane(np.asarray(image, dtype=np.float32)),
                contour=over,
                title=str(table["participant"].iloc[place])[:18],
            ),
            Tile(scores, low=low, high=max(high, low + 1e-6), colours="inferno"),
        ]
    rows = [Row(tiles[first : first + 2 * ABREAST]) for first in range(0, len(tiles), 2 * ABREAST)]
    return mosaic(rows, "", tile_inches=1.1)
