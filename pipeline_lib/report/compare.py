"""Two runs side by side: what differed in configuration, code and people, and what changed in results."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline_lib.config.schema import CohortOptions
from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.metric import Metric
from pipeline_lib.files import read_table
from pipeline_lib.metrics.bootstrap import bootstrap_mean
from pipeline_lib.report.page import write_page
from pipeline_lib.report.records import read_record
from pipeline_lib.report.stages import SHARED
from pipeline_lib.report.verdict import metrics_of
from pipeline_lib.state import SIDECAR

TITLE = "Two runs"
RESAMPLES, SEED = 2000, 0
FEWEST = 2
"""People in both runs below which no interval is given."""
COUNTS = {"images", "lesion_voxels"}


@dataclass(frozen=True)
class Run:
    """What is compared of a folder of results.

    Attributes:
        code: stage to the hashes of its code.
        options: stage to its options, flat.
        people: participant to split.
        scans: participant to hashes of their scans (their names where no hash was kept).
        included: scans that passed every stage, each with its hash.
    """

    folder: Path
    code: dict[str, set[str]] = field(default_factory=dict)
    options: dict[str, dict[str, str]] = field(default_factory=dict)
    people: dict[str, str] = field(default_factory=dict)
    scans: dict[str, set[str]] = field(default_factory=dict)
    included: set[tuple[str, str]] = field(default_factory=set)
    metrics: dict[str, list[Metric]] = field(default_factory=dict)


@dataclass(frozen=True)
class Changed:
    """A value in one run and in the other."""

    about: str
    first: str
    second: str


@dataclass(frozen=True)
class Paired:
    """The mean over people in both runs of a value in the second minus in the first, with its interval."""

    about: str
    people: int
    difference: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Result:
    """What changed in a recipe."""

    recipe: str
    levels: tuple[tuple[str, Metric, Metric], ...]
    paired: tuple[Paired, ...]


def compare(first: Path, second: Path, out: Path) -> list[str]:
    """Write ``out``, a page on two folders of results, and give its main points as lines.

    Raises:
        UserError: a folder holds no results.
    """
    one, other = read_run(first), read_run(second)
    options, code = _options(one, other), _code(one, other)
    people = _people(one, other)
    recipes = sorted(one.metrics.keys() & other.metrics.keys())
    results = [
        Result(name, _levels(one.metrics[name], other.metrics[name]), _paired(one, other, name)) for name in recipes
    ]
    alone = [
        (run.folder, sorted(run.metrics.keys() - against.metrics.keys()))
        for run, against in ((one, other), (other, one))
    ]
    write_page(
        out,
        "compare.html",
        title=TITLE,
        home="",
        cohort=CohortOptions(name=TITLE),
        first=first,
        second=second,
        options=options,
        code=code,
        people=people,
        same=len(same_people(one, other)),
        namesakes=len(_namesakes(one, other)),
        results=results,
        alone=alone,
    )
    return [
        f"{len(options)} options, the code of {len(code)} stages and {sum(count for _, count, _ in people)} people or scans differ",
        *(
            f"{result.recipe}: {item.about}: {item.difference:+.3g}"
            + (f" [{item.low:+.3g}, {item.high:+.3g}]" if item.low is not None and item.high is not None else "")
            + f", {item.people} people in both"
            for result in results
            for item in result.paired
        ),
    ]


def read_run(folder: Path) -> Run:
    """Read what is compared.

    Raises:
        UserError: there is nothing of a run in it.
    """
    run = Run(folder)
    for sidecar in sorted(folder.rglob(f"*{SIDECAR}")):
        made = read_record(sidecar)
        if not {"stage", "options", "code"} <= made.keys():
            raise UserError(
                f"{sidecar}: no stage of this workflow wrote it; name the folder that `cohort.results` names"
            )
        stage, options = _recorded(sidecar.relative_to(folder), made)
        run.code.setdefault(stage, set()).add(str(made["code"]))
        run.options.setdefault(stage, {}).update(_flat(options))
    for table in sorted((folder / "cohort").glob("*.tsv")):
        for row in read_table(table):
            content = row.get("voxels_sha256") or row.get("sha256") or row["scan"]
            run.people[row["participant"]] = row["split"]
            run.scans.setdefault(row["participant"], set()).add(content)
            if row["included"] == "true":
                run.included.add((row["scan"], content))
    for evaluation in sorted(folder.glob("*/evaluation")):
        run.metrics[evaluation.parent.name] = metrics_of(evaluation)
    if not run.code:
        raise UserError(f"{folder}: holds no results of a run; name the folder that `cohort.results` names")
    return run


def _recorded(sidecar: Path, made: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """A stage's name, with its recipe's, and its options; of the report's those that no other stage has."""
    top, stage, options = sidecar.parts[0], str(made["stage"]), made["options"]
    if top not in SHARED:
        return f"{top}: {stage}", options
    if top != "report":
        return stage, options
    if "recipe" in options:
        return f"{sidecar.name.partition('.')[0]}: {stage}", {"weights": options["recipe"].get("weights")}
    return stage, {name: options[name] for name in ("cohort", "split") if name in options}


def _flat(options: Mapping[str, Any], where: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in options.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{where}{name}.")
        else:
            flat[f"{where}{name}"] = str(value)
    return flat


def _options(one: Run, other: Run) -> list[Changed]:
    """Options that differ, each once however many stages read it."""
    found: dict[tuple[str, str, str], None] = {}
    for stage in sorted(one.options.keys() & other.options.keys()):
        recipe = stage.partition(": ")[0] if ": " in stage else ""
        before, after = one.options[stage], other.options[stage]
        for name in sorted(before.keys() | after.keys()):
            values = before.get(name, "not there"), after.get(name, "not there")
            if values[0] != values[1]:
                found[f"{recipe}: {name}" if recipe else name, *values] = None
    return [Changed(*entry) for entry in found]


def _code(one: Run, other: Run) -> list[Changed]:
    def written(hashes: set[str] | None) -> str:
        return ", ".join(sorted(hashes)) if hashes else "not run"

    return [
        Changed(stage, written(one.code.get(stage)), written(other.code.get(stage)))
        for stage in sorted(one.code.keys() | other.code.keys())
        if one.code.get(stage) != other.code.get(stage)
    ]


def same_people(one: Run, other: Run) -> set[str]:
    """Participants who are the same person in both runs: those of one identifier with a scan in common."""
    return {person for person in one.scans.keys() & other.scans.keys() if one.scans[person] & other.scans[person]}


def _namesakes(one: Run, other: Run) -> set[str]:
    """Participants of one identifier in both runs who are not the same person."""
    return (one.people.keys() & other.people.keys()) - same_people(one, other)


def _people(one: Run, other: Run) -> list[tuple[str, int, list[str]]]:
    """Who is in one run and not the other, and who changed sides: what, how many, names."""
    both, namesakes = same_people(one, other), _namesakes(one, other)
    first, second = one.included - other.included, other.included - one.included
    found = {
        "People in the first only": one.people.keys() - both - namesakes,
        "People in the second only": other.people.keys() - both - namesakes,
        "Same identifier, no scan in common": namesakes,
        "People of another split": {person for person in both if one.people[person] != other.people[person]},
        "Scans included in the first only": {scan for scan, _ in first},
        "Scans included in the second only": {scan for scan, _ in second},
    }
    return [(what, len(names), sorted(names)) for what, names in found.items()]


def _levels(before: Sequence[Metric], after: Sequence[Metric]) -> tuple[tuple[str, Metric, Metric], ...]:
    """Values over all groups that both runs have, in the first run's order."""

    def key(row: Metric) -> tuple[object, ...]:
        return row.name, row.part, row.group, row.role, row.method, row.against, row.split, row.step

    known = {key(row): row for row in after}
    return tuple(
        (row.name, row, known[key(row)])
        for row in before
        if row.group == "all" and row.value is not None and key(row) in known and known[key(row)].value is not None
    )


def _paired(one: Run, other: Run, recipe: str) -> tuple[Paired, ...]:
    """Differences of the finished model, person by person, in every number both runs have of test people."""
    same = same_people(one, other)
    tables = [_per_person(run, recipe) for run in (one, other)]
    return tuple(_differences(*(table[table["participant"].isin(same)] if len(table) else table for table in tables)))


def _per_person(run: Run, recipe: str) -> pd.DataFrame:
    """Numbers of the finished model on test people; empty where it has none of single people."""
    path = run.folder / recipe / "evaluation" / "per_subject.tsv"
    if not path.is_file():
        return pd.DataFrame()
    table = pd.read_csv(path, sep="\t", dtype={"participant": str})
    methods = {row.method for row in run.metrics[recipe] if row.role == "result"}
    if "method" not in table:
        return pd.DataFrame()
    return table[table["method"].isin(methods) & (table["split"] == "test")]


def _differences(before: pd.DataFrame, after: pd.DataFrame) -> Iterator[Paired]:
    if before.empty or after.empty:
        return
    keys = ["participant", *(["channel"] if "channel" in before and "channel" in after else [])]
    numbers = [name for name in before.select_dtypes("number") if name in after and name not in COUNTS]
    joined = before[[*keys, *numbers]].merge(after[[*keys, *numbers]], on=keys, suffixes=("_1", "_2"))
    parts = joined.groupby("channel") if "channel" in joined else [("", joined)]
    for part, rows in parts:
        for name in map(str, numbers):
            values = (rows[f"{name}_2"] - rows[f"{name}_1"]).dropna().to_numpy(dtype=float)
            about = ", ".join(text for text in (name.replace("_", " "), str(part)) if text)
            if len(values) >= FEWEST:
                found = bootstrap_mean(values, resamples=RESAMPLES, seed=SEED)
                yield Paired(about, len(values), found.value, found.low, found.high)
            elif len(values) and math.isfinite(values[0]):
                yield Paired(about, len(values), float(values.mean()), None, None)
