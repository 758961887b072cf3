"""A preprocessed chunk of pictures: they stay as ingest read them, with a sheet of some of them to look at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipeline_lib.files import atomic_directory, read_table
from pipeline_lib.imaging.chunk import link
from pipeline_lib.imaging.stacks import FILE, Stacks
from pipeline_lib.imaging.status import write_status

SHEET = "figures/pictures.png"
ACROSS, DOWN, TILE = 12, 5, 80
"""Pictures in a row and rows of the sheet, and pixels of each."""


def preprocess_pictures(ingested: Path, out: Path) -> None:
    """Write ``out``: ``status.tsv``, ``scans/pictures.npy`` and ``figures/pictures.png``.

    Args:
        ingested: folder of the ingest stage.
        out: folder to write, complete or not at all.
    """
    rows = read_table(ingested / "status.tsv")
    with atomic_directory(out) as folder:
        (folder / FILE).parent.mkdir()
        link(ingested / FILE, folder / FILE)
        write_status(folder / "status.tsv", rows)
        stacks = Stacks(folder)
        usable = [row for row in rows if row["ok"] == "true"]
        spread = sorted(set(np.linspace(0, len(usable) - 1, ACROSS * DOWN).astype(int).tolist())) if usable else []
        draw_sheet(folder / SHEET, [stacks[json.loads(usable[n]["outputs"])["image"]][0] for n in spread])


def draw_sheet(path: Path, pictures: Sequence[NDArray[np.uint8]]) -> None:
    """Pictures (H, W, C) side by side in rows, each as large as its tile allows."""
    sheet = Image.new("RGB", (ACROSS * TILE, max(1, -(-len(pictures) // ACROSS)) * TILE))
    for number, pixels in enumerate(pictures):
        picture = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).convert("RGB")
        picture = ImageOps.contain(picture, (TILE - 4, TILE - 4))
        row, column = divmod(number, ACROSS)
        left, top = column * TILE + (TILE - picture.width) // 2, row * TILE + (TILE - picture.height) // 2
        sheet.paste(picture, (left, top))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
