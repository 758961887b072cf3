"""The stages that made the results: what followed from what, how long it took, and what was made anew and why.

Read from the sidecars (``provenance.json``) and Snakemake's benchmarks that lie in the results.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline_lib.files import write_json
from pipeline_lib.report.records import read_record
from pipeline_lib.state import SIDECAR

SHARED = ("ingest", "preprocess", "cohort", "report")
"""Folders of stages that belong to no recipe."""
KEPT = "stages.json"
"""What the last report knew, beside the index."""
WIDTH, HEIGHT, COLUMN, ROW = 176, 50, 202, 62
"""Of a box and of its cell, SVG units."""


@dataclass(frozen=True)
class Made:
    """A finished folder (or table) of a stage."""

    path: str
    stage: str
    recipe: str
    code: str
    options: str
    inputs: tuple[str, ...]
    finished: float


@dataclass(frozen=True)
class Node:
    """A stage of a recipe, or of all: its jobs together.

    Attributes:
        seconds: of all jobs, wall clock; None where no benchmark was kept.
        longest: of one job.
        memory: the most that a job took, MB.
        x, y: of its box, SVG units.
    """

    stage: str
    recipe: str
    jobs: int
    seconds: float | None
    longest: float | None
    memory: float | None
    finished: str
    x: int
    y: int

    @property
    def time(self) -> str:
        """Seconds, minutes or hours."""
        return duration(self.seconds)


@dataclass(frozen=True)
class Graph:
    """Boxes, and the lines between them as SVG paths."""

    nodes: tuple[Node, ...]
    edges: tuple[str, ...]
    width: int
    height: int
    box: tuple[int, int] = (WIDTH, HEIGHT)


@dataclass(frozen=True)
class Change:
    """Stages made anew since the last report, and why."""

    stage: str
    recipe: str
    why: str
    jobs: int


def stages_of(results: Path) -> list[Made]:
    """Every finished stage below ``results`` but the report's own."""
    found = []
    for sidecar in sorted(results.rglob(f"*{SIDECAR}")):
        path = sidecar.relative_to(results)
        if path.parts[0] == "report":
            continue
        made = read_record(sidecar)
        own = sidecar.parent if sidecar.name == SIDECAR else sidecar.with_name(sidecar.name.removesuffix(f".{SIDECAR}"))
        found.append(
            Made(
                own.relative_to(results).as_posix(),
                str(made["stage"]),
                "" if path.parts[0] in SHARED else path.parts[0],
                str(made["code"]),
                str(made["options_sha256"]),
                tuple(_below(each, results) for each in made.get("inputs", ())),
                sidecar.stat().st_mtime,
            )
        )
    return found


def graph(stages: Sequence[Made], results: Path) -> Graph | None:
    """The stages as boxes: one step of the way a column, a recipe a lane; None where there are none."""
    jobs: dict[tuple[str, str], list[Made]] = defaultdict(list)
    for made in stages:
        jobs[made.recipe, made.stage].append(made)
    if not jobs:
        return None
    at = {made.path.removesuffix(".tsv").removesuffix(".json"): (made.recipe, made.stage) for made in stages}
    before = {
        key: {at[name] for made in members for name in made.inputs if name in at} - {key}
        for key, members in jobs.items()
    }
    column = _columns(before)
    row = _rows(column)
    times = _benchmarks(results, {recipe for recipe, _ in jobs} - {""})
    nodes = tuple(
        _node(key, members, times.get(key, ()), column[key], row[key]) for key, members in sorted(jobs.items())
    )
    edges = tuple(
        _line((column[early], row[early]), (column[key], row[key]))
        for key, earlier in sorted(before.items())
        for early in sorted(earlier)
        if not _led(early, key, before)
    )
    return Graph(nodes, edges, (max(column.values()) + 1) * COLUMN - COLUMN + WIDTH + 4, (max(row.values()) + 1) * ROW)


def changes(stages: Sequence[Made], kept: Path) -> list[Change] | None:
    """What was made anew since the report before, and why; remembers ``stages`` in ``kept`` for the next one.

    Where nothing was, what was said then stands. None: there was no report before.
    """
    now = {made.path: made for made in stages}
    known: dict[str, Any] = read_record(kept) if kept.is_file() else {}
    then: dict[str, Any] = known.get("stages", {})
    anew = {path for path, made in now.items() if path not in then or then[path]["finished"] != made.finished}
    said: list[dict[str, Any]] = known.get("changes", [])
    if then and anew:
        counted: dict[tuple[str, str, str], int] = defaultdict(int)
        for path in sorted(anew):
            counted[now[path].stage, now[path].recipe, _why(now[path], then.get(path), anew)] += 1
        said = [
            {"stage": stage, "recipe": recipe, "why": why, "jobs": number}
            for (stage, recipe, why), number in counted.items()
        ]
    remembered = {
        path: {"code": made.code, "options": made.options, "inputs": list(made.inputs), "finished": made.finished}
        for path, made in now.items()
    }
    write_json(kept, {"stages": remembered, "changes": said})
    return [Change(**each) for each in said] if then else None


def duration(seconds: float | None) -> str:
    """``38 s``, ``12 min``, ``3.4 h``."""
    if seconds is None:
        return ""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _below(path: str, results: Path) -> str:
    """A path as it is named below the results, wherever these have gone since, under another name too."""
    parts = [part for part in Path(path).parts if part != "/"]
    tails = (Path(*parts[place:]) for place in range(len(parts)))
    by_name = len(parts) - parts[::-1].index(results.name) if results.name in parts else 0
    tail = next((tail for tail in tails if (results / tail).exists()), Path(*parts[by_name:]))
    return tail.as_posix().removesuffix(".tsv").removesuffix(".json")


def _why(made: Made, then: Mapping[str, Any] | None, anew: set[str]) -> str:
    if then is None:
        return "there was none"
    reasons = [
        text
        for text, differs in (
            ("its code changed", then["code"] != made.code),
            ("its options changed", then["options"] != made.options),
            ("it has other inputs", set(then["inputs"]) != set(made.inputs)),
        )
        if differs
    ]
    if not reasons and any(path.removesuffix(".tsv").removesuffix(".json") in made.inputs for path in anew):
        reasons = ["its inputs were made anew"]
    return " and ".join(reasons) or "it was asked for, or its files were gone"


def _columns(before: Mapping[tuple[str, str], Iterable[tuple[str, str]]]) -> dict[tuple[str, str], int]:
    """The longest way to each stage."""
    found: dict[tuple[str, str], int] = {}

    def depth(key: tuple[str, str], path: tuple[tuple[str, str], ...]) -> int:
        if key not in found:
            found[key] = 1 + max((depth(each, (*path, key)) for each in before[key] if each not in path), default=-1)
        return found[key]

    for key in before:
        depth(key, ())
    return found


def _rows(column: Mapping[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    """Lanes, the shared stages first; stages of one column of a recipe lie below each other."""
    rows: dict[tuple[str, str], int] = {}
    first = 0
    for recipe in sorted({recipe for recipe, _ in column}):
        filled: dict[int, int] = defaultdict(int)
        for key in sorted((key for key in column if key[0] == recipe), key=lambda key: (column[key], key)):
            rows[key] = first + filled[column[key]]
            filled[column[key]] += 1
        first += max(filled.values())
    return rows


def _led(early: tuple[str, str], late: tuple[str, str], before: Mapping[tuple[str, str], set[tuple[str, str]]]) -> bool:
    """Whether ``late`` follows from ``early`` by way of another stage, so that no line of its own is needed."""
    waiting, seen = list(before[late] - {early}), {late}
    while waiting:
        key = waiting.pop()
        if key in seen:
            continue
        seen.add(key)
        if early in before[key]:
            return True
        waiting += before[key]
    return False


def _benchmarks(results: Path, recipes: set[str]) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """Recipe and stage to seconds and MB of each job, as Snakemake measured them."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for file in sorted((results / "benchmarks").rglob("*.tsv")):
        rule, *rest = file.relative_to(results / "benchmarks").with_suffix("").parts
        if rule == "cohort" and rest != ["checks"]:
            rule = "cohort_split"
        recipe = rest[0].split("-")[0] if rest and rest[0].split("-")[0] in recipes else ""
        with open(file, encoding="utf-8", newline="") as table:
            rows = list(csv.DictReader(table, delimiter="\t"))
        if rows:
            found[recipe, rule].append((_number(rows[-1].get("s")), _number(rows[-1].get("max_rss"))))
    return found


def _number(text: str | None) -> float:
    """0 where Snakemake could not measure it."""
    try:
        return float(text or 0)
    except ValueError:
        return 0.0


def _node(
    key: tuple[str, str], members: Sequence[Made], times: Sequence[tuple[float, float]], column: int, row: int
) -> Node:
    seconds = [each for each, _ in times]
    return Node(
        stage=key[1],
        recipe=key[0],
        jobs=len(members),
        seconds=sum(seconds) if seconds else None,
        longest=max(seconds) if seconds else None,
        memory=max(memory for _, memory in times) if times else None,
        finished=datetime.fromtimestamp(max(made.finished for made in members)).strftime("%Y-%m-%d %H:%M"),
        x=column * COLUMN + 2,
        y=row * ROW + 2,
    )


def _line(start: tuple[int, int], end: tuple[int, int]) -> str:
    """A curve from the right of a box to the left of another."""
    x, y = start[0] * COLUMN + 2 + WIDTH, start[1] * ROW + 2 + HEIGHT // 2
    to_x, to_y = end[0] * COLUMN + 2, end[1] * ROW + 2 + HEIGHT // 2
    bend = max(12, min(COLUMN - WIDTH, to_x - x) // 2)
    return f"M{x} {y}C{x + bend} {y} {to_x - bend - 8} {to_y} {to_x} {to_y}"
