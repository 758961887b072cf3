"""Views of images as rows of a figure, with labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipeline_lib.files import atomic_path
from pipeline_lib.imaging.planes import Plane


@dataclass(frozen=True)
class Tile:
    """One picture of a mosaic; intensities from ``low`` to ``high`` span the colours."""

    image: Plane
    low: float = -1.0
    high: float = 1.0
    colours: str = "gray"
    contour: Plane | None = None
    title: str = ""


@dataclass(frozen=True)
class Row:
    """A labelled row of tiles."""

    tiles: Sequence[Tile]
    label: str = ""
    colour: str = field(default="black")


def mosaic(rows: Sequence[Row], title: str = "", tile_inches: float = 1.5) -> Figure:
    """A figure of rows of tiles; a tile of three channels in [-1, 1] is shown in its own colours."""
    columns = max(len(row.tiles) for row in rows)
    wide = max([1.0, *(tile.image.shape[1] / tile.image.shape[0] for row in rows for tile in row.tiles)])
    size = (columns * wide * tile_inches + 1.2, len(rows) * tile_inches + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, row in zip(axes, rows, strict=True):
        for axis in line:
            axis.set_axis_off()
        for axis, tile in zip(line, row.tiles, strict=False):
            picture = (tile.image + 1) / 2 if tile.image.ndim == 3 else tile.image
            picture = np.clip(picture, 0, 1) if tile.image.ndim == 3 else picture
            axis.imshow(picture, vmin=tile.low, vmax=tile.high, cmap=tile.colours, interpolation="nearest")
            if tile.contour is not None and tile.contour.any():
                axis.contour(tile.contour, levels=[0.5], colors="red", linewidths=0.8)
            if tile.title:
                axis.set_title(tile.title, fontsize=8)
        if row.label:
            line[0].text(
                -0.06, 0.5, row.label, transform=line[0].transAxes, rotation=90, ha="right", va="center",
                fontsize=8, color=row.colour,
            )  # fmt: skip
    if title:
        figure.suptitle(title, fontsize=10)
    return figure


def save(figure: Figure, path: Path, dpi: int = 110) -> None:
    """Write a figure as PNG, complete or not at all, the same bytes for the same figure."""
    FigureCanvasAgg(figure)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=dpi, format="png", metadata={"Software": None})
