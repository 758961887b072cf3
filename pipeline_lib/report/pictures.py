"""The pictures of a chunk that holds many: a table with each of them, and anomaly maps, the most abnormal first."""

from __future__ import annotations

import base64
import io
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipeline_lib.imaging.planes import plane
from pipeline_lib.imaging.stacks import Stacks
from pipeline_lib.inference.chunks import open_array
from pipeline_lib.inference.pictures import Row, Tile, mosaic, save
from pipeline_lib.report.page import Picture, load_picture
from pipeline_lib.report.tables import Column, Download, Explorer, Sheets, download, packed, tsv
from pipeline_lib.report.view import Inferred

TOLD = ("scan", "participant", "session", "group", "age", "sex", "site", "reason")
SHOWN, ABREAST = 40, 4
"""Pictures that a page shows, and beside each other."""


ACROSS, ON_A_SHEET = 25, 500
LARGE, SMALL, MANY = 80, 40, 1000
"""Pixels of a picture in the table, and of one of more than so many."""
QUALITY = 70


@dataclass(frozen=True)
class Mapped:
    """What a recipe marked in the pictures of a chunk: the most abnormal ones, and all of them as a table.

    ``highest`` is scan to the highest score in its pictures.
    """

    recipe: str
    shown: Picture
    table: Download
    pictures: int
    highest: Mapping[str, float]


def table_of_pictures(
    chunk: str, preprocess: Path, rows: Sequence[Mapping[str, str]], maps: Sequence[Mapped]
) -> Explorer:
    """Every row of the chunk with its first picture, its verdict, and the highest score that each recipe gave it."""
    stacks = Stacks(preprocess)
    images = [json.loads(row.get("outputs") or "{}").get("image", "") if row["ok"] == "true" else "" for row in rows]
    tiles = {n: tile for tile, n in enumerate(n for n, image in enumerate(images) if image)}
    scored = [f"highest score, {each.recipe}" for each in maps]
    table = [
        {name: row.get(name, "") for name in TOLD}
        | {"verdict": "included" if row["ok"] == "true" else "excluded", "tile": str(tiles.get(n, ""))}
        | {
            name: f"{each.highest[row['scan']]:.4g}" if row["scan"] in each.highest else ""
            for name, each in zip(scored, maps, strict=True)
        }
        for n, row in enumerate(rows)
    ]
    columns = (
        Column("scan", "Scan"),
        Column("tile", "Picture"),
        Column("participant", "Person"),
        Column("group", "Group"),
        Column("verdict", "Verdict"),
        *(Column(name, name.capitalize(), number=True) for name in scored),
        Column("reason", "Reason"),
    )
    values = {name: tuple(sorted({row[name] for row in table} - {""})) for name in ("group", "verdict")}
    return Explorer(
        name="pictures",
        file=f"{chunk}_pictures.tsv",
        columns=columns,
        filters=tuple((name, name.capitalize(), found) for name, found in values.items() if len(found) > 1),
        rows=len(table),
        packed=packed(tsv([*TOLD, "verdict", "tile", *scored], table)),
        sheets=_sheets([stacks[images[n]][0] for n in tiles]),
    )


def _sheets(pictures: Sequence[NDArray[np.uint8]]) -> Sheets:
    """Pictures (H, W, C) in squares, `ACROSS` side by side and `ON_A_SHEET` on each sheet."""
    pixels = SMALL if len(pictures) > MANY else LARGE
    addresses = []
    for first in range(0, len(pictures), ON_A_SHEET):
        part = pictures[first : first + ON_A_SHEET]
        sheet = Image.new("RGB", (ACROSS * pixels, -(-len(part) // ACROSS) * pixels))
        for place, values in enumerate(part):
            picture = Image.fromarray(values.squeeze(-1) if values.shape[-1] == 1 else values).convert("RGB")
            picture = ImageOps.contain(picture, (pixels, pixels))
            down, across = divmod(place, ACROSS)
            corner = (across * pixels + (pixels - picture.width) // 2, down * pixels + (pixels - picture.height) // 2)
            sheet.paste(picture, corner)
        data = io.BytesIO()
        sheet.save(data, "WEBP", quality=QUALITY)
        addresses.append(f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}")
    return Sheets(tuple(addresses), pixels, ACROSS, ON_A_SHEET)


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
        yield Mapped(
            each.recipe,
            shown,
            download(f"{chunk}_{each.recipe}_maps.tsv", table.iloc[order]),
            len(table),
            {str(scan): float(score) for scan, score in table.groupby("scan")["highest"].max().dropna().items()},
        )


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
