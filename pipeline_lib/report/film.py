"""The same people under one value of a condition after the other, as frames that a slider goes through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline_lib.imaging.planes import abreast, ortho
from pipeline_lib.imaging.quality import TILE
from pipeline_lib.report.page import Picture, picture_of
from pipeline_lib.report.records import read_record

PEOPLE, VALUES = 6, 50
"""Shown side by side, and one after the other: a WebP picture has at most 16,383 pixels a side."""


@dataclass(frozen=True)
class Film:
    """Frames of one size below each other in one picture, the scans as they are first."""

    condition: str
    picture: Picture
    labels: tuple[str, ...]
    left_out: int


def films_of(results: Mapping[str, Path]) -> list[Film]:
    """The frames of the stage of counterfactuals, a film a condition."""
    folder = results.get("counterfactuals")
    if folder is None or not (folder / "counterfactuals.json").is_file():
        return []
    return [_film(folder / name, name, values) for name, values in read_record(folder / "counterfactuals.json").items()]


def _film(folder: Path, condition: str, asked: Sequence[str | float]) -> Film:
    scans, changed = (np.load(folder / f"{name}.npy") for name in ("scans", "changed"))
    count = min(abreast(scans, PEOPLE), len(scans))
    people = np.unique(np.linspace(0, len(scans) - 1, count).round().astype(int))
    values = asked[:VALUES]
    rows = [scans[people], *np.moveaxis(changed[people, : len(values)], 1, 0)]
    labels = ["as scanned", *(f"{value:g}" if isinstance(value, float) else str(value) for value in values)]
    frames = np.concatenate([np.concatenate([_tile(image) for image in row], axis=1) for row in rows])
    alt = f"{len(people)} held-out people side by side: {', '.join(labels)}; {condition} changes from row to row."
    return Film(
        condition, picture_of(Image.fromarray(frames), "frames", alt=alt), tuple(labels), len(asked) - len(values)
    )


def _tile(image: np.ndarray) -> np.ndarray:
    """A grey or coloured view of an image in [-1, 1], ``(TILE, TILE, 3)`` uint8; of a volume, ``(TILE, 3 * TILE, 3)``."""
    view = np.clip((ortho(image, ground=-1) + 1) * 127.5, 0, 255).astype(np.uint8)
    picture = Image.fromarray(view).convert("RGB")
    frame = (3 * TILE if image.ndim == 4 else TILE, TILE)
    scale = min(frame[0] / picture.width, frame[1] / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    tile = Image.new("RGB", frame)
    tile.paste(picture.resize(size, Image.Resampling.BILINEAR), ((frame[0] - size[0]) // 2, (frame[1] - size[1]) // 2))
    return np.asarray(tile)
