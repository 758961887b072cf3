"""The figures of a recipe as files, each with its data beside it: for `snakemake --report`, slides and papers."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from pipeline_lib.files import atomic_directory, write_text
from pipeline_lib.inference.pictures import save
from pipeline_lib.report.curves import plots_of
from pipeline_lib.report.figures import data_of, figures_of
from pipeline_lib.report.page import svg_of
from pipeline_lib.report.recipe import picture_files
from pipeline_lib.report.tables import text_of


def write_figures(folders: Mapping[str, Path], out: Path) -> None:
    """Write ``out/{stage}/{figure}``: plots as SVG, pictures as they are, their tables with the same name beside them.

    Args:
        folders: stage folders by name, as `write_recipe_page` has them.
    """
    with atomic_directory(out) as scratch:
        for key, folder in folders.items():
            place = scratch / key.replace("/", "-")
            place.mkdir()
            for drawn in plots_of(folder, key.replace("/", "-")):
                name = _plain(drawn.title)
                write_text(place / f"{name}.svg", svg_of(drawn))
                if drawn.table:
                    write_text(place / f"{name}.tsv", text_of(drawn.table))
            for stem, figure in figures_of(folder):
                save(figure, place / f"{stem}.png")
            for path in picture_files(folder):
                shutil.copyfile(path, place / path.name)
            for picture in sorted(place.glob("*.*")):
                beside, table = picture.with_suffix(".tsv"), data_of(folder, picture.stem)
                if table is not None and not beside.exists():
                    table.to_csv(beside, sep="\t", index=False)


def _plain(title: str) -> str:
    """A title as the name of a file."""
    return "_".join("".join(letter if letter.isalnum() else " " for letter in title).lower().split())
