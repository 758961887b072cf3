"""The first page: recipes, who is in the cohort, who is out and why, and quality over the cohort."""

from __future__ import annotations

import json
import math
import os
import shutil
import urllib.parse
from collections import Counter
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline_lib.config.schema import CohortOptions, PreprocessOptions, SplitOptions
from pipeline_lib.errors import UserError
from pipeline_lib.files import atomic_path, read_table, write_text
from pipeline_lib.report.charts import StripPlot, Value, strip_plot
from pipeline_lib.report.flow import cohort_flow
from pipeline_lib.report.measures import MEASURES, Measure
from pipeline_lib.report.methods import methods_text, preprocess_paragraph, split_paragraph
from pipeline_lib.report.page import VENDOR, number, read_provenance, write_page
from pipeline_lib.report.records import read_record
from pipeline_lib.report.run import as_yaml, command_of, git_state
from pipeline_lib.report.stages import KEPT, Graph, changes, graph, stages_of
from pipeline_lib.report.tables import Column, Download, Explorer, download, packed, tsv

CARD_ID = "recipe-card"
PERSON = ("scan", "participant", "session", "modality", "group", "age", "sex", "site")
VERDICT = ("page", "ok", "stage", "reason")
SPLITS = ("train", "validation", "test")
MOST_ROWS = 1000
"""Duplicates that the page lists."""
MOST_SITES = 6
"""Sites named in a line of the balance."""
SHOWN = (
    Column("scan", "Scan", link="page"),
    Column("verdict", "Verdict"),
    Column("split", "Split"),
    Column("modality", "Modality"),
    Column("group", "Group"),
    Column("age", "Age", number=True),
    Column("sex", "Sex"),
    Column("site", "Site"),
)
QUANTILES = np.linspace(0, 1, 21)
RATINGS = ("good", "doubtful", "bad")
FILTERS = ("verdict", "split", "modality", "group", "site")


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
        cohort: name, note and licence shown on the page.
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
    found: dict[str, Any] = read_record(checks)
    provenance = [read_provenance("Cohort", checks)]
    pages = {scan: row["page"] for scan, row in scans.items()}
    _copy(VENDOR / "niivue.umd.js", out.parent)
    _copy(VENDOR / "niivue.license.txt", out.parent)
    write_text(out.parent / "cohort.js", f"globalThis.cohortOfReport = {json.dumps(_spread(scans))};\n")
    stages = stages_of(out.parent.parent)
    drawn = graph(stages, out.parent.parent)
    cards = [{**read_card(page), "page": os.path.relpath(page, out.parent)} for page in recipe_pages.values()]
    write_page(
        out,
        "index.html",
        scripts=["shared.js", "page.js"],
        title=cohort.name,
        home="",
        cohort=cohort,
        cards=cards,
        tiles=_tiles(people, found),
        counts=_counts(people),
        balance=_balance(people, found["balance"]),
        ages=_ages(people, scans),
        found=found,
        flow=cohort_flow(people, found["excluded_rows"], pages),
        graph=drawn,
        times=_times(drawn) if drawn else None,
        anew=changes(stages, out.parent / KEPT),
        strips=_strips(scans),
        table=_table(people, found["excluded_rows"], scans, cohort.name),
        chunks=_picture_chunks(scans),
        most=MOST_ROWS,
        methods=methods_text(
            split_paragraph(split), preprocess_paragraph(preprocess, {row["modality"] for row in scans.values()})
        ),
        git=git_state(),
        command=command_of(out.parent.parent),
        configuration=as_yaml(
            {
                "cohort": {"name": cohort.name, "note": cohort.note, "licence": cohort.licence},
                "split": split.model_dump(mode="json"),
                "preprocess": preprocess.model_dump(mode="json"),
            }
        ),
        provenance=[item for item in provenance if item],
    )


def _copy(file: Path, folder: Path) -> None:
    """Put a vendored file beside the pages that load it."""
    with atomic_path(folder / file.name) as temporary:
        shutil.copyfile(file, temporary)


def _times(graph: Graph) -> Download:
    names = ("stage", "recipe", "jobs", "seconds", "longest", "memory", "finished")
    rows = [{name: getattr(node, name) for name in names} for node in graph.nodes]
    return download("stages.tsv", pd.DataFrame(rows))


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


def _balance(people: Sequence[Mapping[str, str]], cells: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """A line for each split and group: people, age, sex, and sites, which the cells of the checks do not have."""
    sites: dict[tuple[str, str], dict[str, str]] = {}
    for row in people:
        if row["included"] == "true":
            sites.setdefault((row["split"], row["group"]), {})[row["participant"]] = row["site"] or "not given"
    lines = []
    for cell in (cell for split in SPLITS for cell in cells if cell["split"] == split):
        age = "" if cell["age_mean"] is None else f"{cell['age_mean']:.1f}"
        if cell["age_sd"] is not None:
            age += f" (SD {cell['age_sd']:.1f})"
        of = Counter(sites.get((cell["split"], cell["group"]), {}).values()).most_common()
        rest = sum(count for _, count in of[MOST_SITES:])
        lines.append(
            {
                "split": cell["split"],
                "group": cell["group"] or "not given",
                "people": number(cell["people"]),
                "age": age,
                "sex": ", ".join(f"{name} {count}" for name, count in cell["sex"].items()),
                "site": ", ".join(f"{name} {count}" for name, count in of[:MOST_SITES])
                + (f", {len(of) - MOST_SITES} others {rest}" if rest else ""),
            }
        )
    return lines


def _ages(people: Sequence[Mapping[str, str]], scans: Mapping[str, Mapping[str, str]]) -> list[StripPlot]:
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
            strips.append(
                strip_plot(list(once.values()), title=title, unit="years", limits=limits, mark_outliers=False)
            )
    return [drawn for drawn in strips if drawn]


def _table(
    people: Sequence[Mapping[str, str]],
    refused: Sequence[Mapping[str, Any]],
    scans: Mapping[str, Mapping[str, str]],
    rated: str,
) -> Explorer:
    """Every scan of the sheet but pictures, which are many: verdict, reason, and what was measured."""
    measured = _measured(scans)
    rows = [
        {
            **{name: row.get(name, "") for name in (*PERSON, "split", "stage", "reason")},
            **{name: _short(scans.get(row["scan"], {}).get(name, "")) for name in measured},
            "verdict": "included" if row["included"] == "true" else "excluded",
            "page": urllib.parse.quote(scans[row["scan"]]["page"]) if row["scan"] in scans else "",
        }
        for row in people
        if row["modality"] != "image"
    ]
    rows += [
        {
            "scan": row["scan"],
            "participant": row["participant"],
            "verdict": "excluded",
            "stage": "sheet",
            "reason": row["reason"],
        }
        for row in refused
    ]
    titles = [(name, MEASURES.get(name, Measure(name))) for name in measured]
    columns = [
        *SHOWN,
        Column("rating", "Rating"),
        Column("reason", "Reason"),
        *(Column(name, f"{of.title}, {of.unit}" if of.unit else of.title, number=True) for name, of in titles),
    ]
    names = [column.name for column in columns if column.name != "rating"]  # which the reader's browser knows
    names += [name for name in (*PERSON, "stage", "page") if name not in names]
    values = {name: sorted({row.get(name, "") for row in rows} - {""}) for name in FILTERS}
    return Explorer(
        name="scans",
        file="scans.tsv",
        columns=tuple(columns),
        filters=(
            *(
                (column.name, column.title, tuple(values[column.name]))
                for column in SHOWN
                if len(values.get(column.name, ())) > 1
            ),
            ("rating", "Rating", RATINGS),
        ),
        rated=rated,
        rows=len(rows),
        packed=packed(tsv(names, rows)),
    )


def _short(text: str) -> str:
    """A number with four significant digits; other text as it is."""
    return f"{float(text):.4g}" if _finite(text) else text


def _spread(scans: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """What the page of a scan says of the whole cohort: quantiles of every measure, and which chunk follows which."""
    quantiles: dict[str, dict[str, Any]] = {}
    for modality in sorted({row["modality"] for row in scans.values()}):
        passed = [row for row in scans.values() if row["modality"] == modality and row["ok"] == "true"]
        for name in _measured(scans):
            absent = MEASURES.get(name, Measure(name)).absent
            values = [float(row[name]) for row in passed if _finite(row.get(name, ""))]
            if values := [value for value in values if value != absent]:
                at = [float(f"{value:.6g}") for value in np.quantile(values, QUANTILES)]
                quantiles.setdefault(modality, {})[name] = {"at": at, "scans": len(values)}
    pages: dict[str, list[str]] = {}
    for row in scans.values():
        if row["modality"] != "image":
            pages.setdefault(Path(row["page"]).parent.name, []).append(Path(row["page"]).name)
    return {"quantiles": quantiles, "chunks": [[chunk, names[0], names[-1]] for chunk, names in pages.items()]}


def _strips(scans: Mapping[str, Mapping[str, str]]) -> list[StripPlot]:
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
            drawn = strip_plot(values, title=title, unit=measure.unit, meaning=measure.meaning)
            strips += [drawn] if drawn else []
    return strips
