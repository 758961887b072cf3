"""People a recipe does best and worst on, with their pages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline_lib.cohort.chunks import ChunkName
from pipeline_lib.files import read_table
from pipeline_lib.report.page import PICTURES
from pipeline_lib.report.tables import Download, download
from pipeline_lib.report.verdict import Judged

SHOWN = 5


@dataclass(frozen=True)
class Case:
    participant: str
    group: str
    value: float
    scans: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Cases:
    """The best and the worst test people by the recipe's own metric, and the table of all."""

    title: str
    best: tuple[Case, ...]
    worst: tuple[Case, ...]
    people: int
    table: Download


def cases_of(evaluation: Path, chosen: Judged | None, pages: Mapping[str, tuple[tuple[str, str], ...]]) -> Cases | None:
    """Test people ranked by the headline metric; None where it is none of single people.

    Args:
        evaluation: the stage's folder, with ``per_subject.tsv``.
        pages: participant to scans and the addresses of their pages.
    """
    path = evaluation / "per_subject.tsv"
    own = chosen.result if chosen else None
    if chosen is None or own is None or not path.is_file():
        return None
    table = pd.read_csv(path, sep="\t", dtype={"participant": str}, keep_default_na=False, na_values=[""])
    column = {name.casefold(): name for name in map(str, table)}.get(chosen.name.replace(" ", "_").casefold())
    if column is None or "method" not in table:
        return None
    rows = table[(table["method"] == own.method) & (table["split"] == "test")]
    if chosen.part and "channel" in rows:
        rows = rows[rows["channel"] == chosen.part]
    rows = rows.dropna(subset=[column]).sort_values(column, ascending=own.direction == "lower", kind="stable")
    cases = [
        Case(
            str(row["participant"]),
            "" if _absent(group := row.get("group", "")) else str(group),
            float(row[column]),
            pages.get(str(row["participant"]), ()),
        )
        for row in rows.to_dict("records")
    ]
    half = min(SHOWN, len(cases) // 2)
    if not half:
        return None
    return Cases(
        chosen.title, tuple(cases[:half]), tuple(cases[::-1][:half]), len(cases), download("per_subject.tsv", table)
    )


def scan_pages(datasets: Iterable[Path]) -> dict[str, tuple[tuple[str, str], ...]]:
    """Participant to the scans in packed chunks, each with the address of its page from that of a recipe."""
    pages: dict[str, dict[str, str]] = {}
    for folder in datasets:
        pictures = ChunkName.parse(folder.name).family == "image"
        for row in read_table(folder / "index.tsv"):
            page = f"{PICTURES}#{row['scan']}" if pictures else f"{row['scan']}.html"
            pages.setdefault(row["participant"], {})[row["scan"]] = f"scans/{folder.name}/{page}"
    return {participant: tuple(scans.items()) for participant, scans in pages.items()}


def _absent(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
