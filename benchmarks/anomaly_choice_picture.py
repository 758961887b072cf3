"""The trade-off of noise level and smoothing on validation people, as curves of the table that anomaly_choice.py printed.

python benchmarks/anomaly_choice_picture.py docs/anomaly_choice.md docs/images/anomaly_choice.png
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

SHOWN = {
    "segmentation": ("mark", "#b3401f", "o-"),
    "+ intensity": ("residual, intensity, asymmetry of both", "#2b6a4d", "o-"),
    "residual": ("residual", "#3f6f9f", "o-"),
    "floor": ("floor: intensity + asymmetry", "#808080", "s--"),
}
"""Columns of the table: what they are called in the picture, colour and line."""
LEVEL = re.compile(r"abar ([\d.]+); box \d+")
"""Rows of a single level; those of several are left out."""
BOX = re.compile(r"box (\d+)")


def table_of(page: str) -> pd.DataFrame:
    """The page's table of Markdown: a row a choice, a column a mix of parts; columns of one name count once."""
    lines = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in page.splitlines()
        if line.startswith("| ")
    ]
    names, rows = lines[0], lines[1:]
    table = pd.DataFrame(rows, columns=names).set_index(names[0]).astype(float)
    return table.loc[:, ~table.columns.duplicated()]


def curves(table: pd.DataFrame) -> Figure:
    """AP over the level, left, and over the side of the box, right."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axis, pattern in ((left, LEVEL), (right, BOX)):
        matches = {row: pattern.fullmatch(str(row)) for row in table.index}
        at = {row: float(found[1]) for row, found in matches.items() if found}
        for column, (name, colour, line) in SHOWN.items():
            axis.plot(list(at.values()), table.loc[list(at), column], line, color=colour, label=name, markersize=4)
        axis.spines[["top", "right"]].set_visible(False)
    left.set(xlabel="share of signal left of the slice (abar)", ylabel="AP, validation people")
    left.invert_xaxis()
    right.set(xlabel="side of the box (pixels)", xticks=[1, 3, 5, 7, 9])
    lines, names = left.get_legend_handles_labels()
    figure.legend(lines, names, frameon=False, loc="outside lower center", ncols=4, fontsize=8)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    curves(table_of(arguments.page.read_text(encoding="utf-8"))).savefig(arguments.out, dpi=110)


if __name__ == "__main__":
    main()
