"""The first page: recipes, who is in the cohort, who is out and why, and quality over the cohort."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from pipeline_lib.config.schema import CohortOptions, PreprocessOptions, SplitOptions
from pipeline_lib.errors import UserError
from pipeline_lib.files import read_json, read_table
from pipeline_lib.report.charts import Strip, Value, strip
from pipeline_lib.report.measures import MEASURES, Measure
from pipeline_lib.report.methods import methods_text, preprocess_paragraph, split_paragraph
from pipeline_lib.report.page import number, read_provenance, write_page

CARD_ID = "recipe-card"
PERSON = ("scan", "participant", "session", "modality", "group", "age", "sex", "site")
VERDICT = ("page", "ok", "stage", "reason")
SPLITS = ("train", "validation", "test")
MOST_ROWS = 1000
"""Excluded scans and duplicates that the page lists."""


def write_index(
    cohort: CohortOptions,
    split: SplitOptions,
    preprocess: PreprocessOptions,
    cohort_tables: Sequence[Path],
    checks: Path,
    scan_tables: Sequence[Path],
    recipe_pages: Mapping[str, Path],
    out: Path,
) -> None:
    """Write ``out``, the index of the report; all links are relative to its folder.

    Args:
        cohort: name and note shown on the page.
        split: how people were placed, for the methods text.
        preprocess: how scans were preprocessed, for the methods text.
        cohort_tables: ``results/cohort/{split}.tsv``, a row a scan.
        checks: ``results/cohort/checks.json``: duplicates, leakage, balance, problems of the sheet.
        scan_tables: the ``scans.tsv`` of every folder of scan pages.
        recipe_pages: recipe name to the page that ``write_recipe_page`` wrote.
        out: the HTML file, ``results/report/index.html``.
    """
    people = [row for table in cohort_tables for row in read_table(table)]
    scans = _scans(scan_tables, out.parent)
    found: dict[str, Any] = read_json(checks)
    splits = {row["scan"]: row["split"] for row in people}
    provenance = [read_provenance("Cohort", checks)]
    write_page(
        out,
        "index.html",
        title=cohort.name,
        home="",
        cohort=cohort,
        cards=[{**read_card(page), "page": os.path.relpath(page, out.parent)} for page in recipe_pages.values()],
        tiles=_tiles(people, found),
        counts=_counts(people),
        balance=[_balance(row) for split in SPLITS for row in found["balance"] if row["split"] == split],
        ages=_ages(people, scans),
        found=found,
        excluded=_excluded(people, found, scans),
        reasons=Counter(row["stage"] or "sheet" for row in _excluded(people, found, scans)).most_common(),
        strips=_strips(scans),
        measured=[(name, MEASURES.get(name, Measure(name))) for name in _measured(scans)],
        scans=[{**row, "split": splits.get(name, "")} for name, row in scans.items() if row["modality"] != "image"],
        chunks=_picture_chunks(scans),
        most=MOST_ROWS,
        methods=methods_text(
            split_paragraph(split), preprocess_paragraph(preprocess, {row["modality"] for row in scans.values()})
        ),
        provenance=[item for item in provenance if item],
    )


def read_card(page: Path) -> dict[str, Any]:
    """The summary that a recipe's page carries.

    Raises:
        UserError: the file is no page of a recipe.
    """
    reader = _CardReader()
    try:
        reader.feed(page.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"report: cannot read {page}: {error.strerror}; run its recipe again") from None
    if not reader.text:
        raise UserError(f"report: {page} is not the page of a recipe; delete it and run again")
    return dict(json.loads(reader.text))


class _CardReader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag == "script" and ("id", CARD_ID) in attrs

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        self._inside = False


def _scans(tables: Sequence[Path], folder: Path) -> dict[str, dict[str, str]]:
    return {
        row["scan"]: {**row, "page": os.path.relpath(table.parent / row["page"], folder)}
        for table in tables
        for row in read_table(table)
    }


def _measured(scans: Mapping[str, Mapping[str, str]]) -> list[str]:
    names = dict.fromkeys(name for row in scans.values() for name in row if name not in {*PERSON, *VERDICT})
    return [name for name in names if any(_finite(row.get(name, "")) for row in scans.values())]


def _finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _picture_chunks(scans: Mapping[str, Mapping[str, str]]) -> list[dict[str, Any]]:
    """Pictures have a page a chunk: its name, its page, and how many passed and did not."""
    pages: dict[str, Counter[str]] = {}
    for row in scans.values():
        if row["modality"] == "image":
            pages.setdefault(row["page"], Counter())[row["ok"]] += 1
    return [
        {"name": Path(page).parent.name, "page": page, "passed": count["true"], "excluded": count["false"]}
        for page, count in pages.items()
    ]


def _tiles(people: Sequence[Mapping[str, str]], found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    failed = sum(row["included"] != "true" for row in people)
    refused = len(found["excluded_rows"])
    return [
        ("People", number(len({row["participant"] for row in people})), "with at least one scan"),
        ("Scans", number(len(people) + refused), "rows of the sheet"),
        ("Included", number(len(people) - failed), "passed every stage"),
        ("Excluded", number(failed + refused), f"{refused} by the sheet, {failed} later"),
    ]


def _counts(people: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """People and scans included, split by split and group by group."""
    inside = [row for row in people if row["included"] == "true"]
    groups = sorted({row["group"] for row in people})
    splits = [name for name in SPLITS if any(row["split"] == name for row in people)]

    def cell(split: str | None, group: str | None) -> tuple[int, int]:
        rows = [row for row in inside if split in (None, row["split"]) and group in (None, row["group"])]
        return len({row["participant"] for row in rows}), len(rows)

    rows = [(split, [cell(split, group) for group in groups], cell(split, None)) for split in splits]
    return {"groups": groups, "rows": rows, "total": ([cell(None, group) for group in groups], cell(None, None))}


def _balance(row: Mapping[str, Any]) -> dict[str, str]:
    age = "" if row["age_mean"] is None else f"{row['age_mean']:.1f}"
    if row["age_sd"] is not None:
        age += f" (SD {row['age_sd']:.1f})"
    return {
        "split": row["split"],
        "group": row["group"] or "not given",
        "people": number(row["people"]),
        "age": age,
        "sex": ", ".join(f"{name} {count}" for name, count in row["sex"].items()),
    }


def _ages(people: Sequence[Mapping[str, str]], scans: Mapping[str, Mapping[str, str]]) -> list[Strip]:
    """Age of the people in each split, on one axis."""
    aged = [row for row in people if row["included"] == "true" and _finite(row["age"])]
    ages = [float(row["age"]) for row in aged]
    strips = []
    for split in SPLITS:
        once = {
            row["participant"]: Value(float(row["age"]), row["participant"], scans.get(row["scan"], {}).get("page", ""))
            for row in aged
            if row["split"] == split
        }
        if once:
            limits = (min(ages), max(ages))
            title = f"Age, {split}"
            strips.append(strip(list(once.values()), title=title, unit="years", limits=limits, mark_outliers=False))
    return [drawn for drawn in strips if drawn]


def _excluded(
    people: Sequence[Mapping[str, str]], found: Mapping[str, Any], scans: Mapping[str, Mapping[str, str]]
) -> list[dict[str, str]]:
    refused = [
        {"scan": row["scan"], "split": "", "stage": "sheet", "reason": row["reason"], "page": ""}
        for row in found["excluded_rows"]
    ]
    failed = [
        {
            **{name: row[name] for name in ("scan", "split", "stage", "reason")},
            "page": scans.get(row["scan"], {}).get("page", ""),
        }
        for row in people
        if row["included"] != "true"
    ]
    return refused + failed


def _strips(scans: Mapping[str, Mapping[str, str]]) -> list[Strip]:
    """A strip for every measure and modality: a T1w and a FLAIR are no outliers of each other."""
    strips = []
    modalities = sorted({row["modality"] for row in scans.values()})
    for name in _measured(scans):
        measure = MEASURES.get(name, Measure(name))
        for modality in modalities:
            values = [
                Value(float(row[name]), scan, row["page"])
                for scan, row in scans.items()
                if row["modality"] == modality and _finite(row.get(name, "")) and float(row[name]) != measure.absent
            ]
            title = f"{measure.title}, {modality}" if len(modalities) > 1 else measure.title
            drawn = strip(values, title=title, unit=measure.unit, meaning=measure.meaning)
            strips += [drawn] if drawn else []
    return strips
