"""What the numbers of a recipe say, in words: results beside what they have to beat, and one sentence for the index."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.metric import Metric, Role, best, read_metrics
from pipeline_lib.report.charts import Whisker, intervals
from pipeline_lib.report.page import number
from pipeline_lib.report.records import again
from pipeline_lib.tasks.task import Task

Outcome = Literal["better", "worse", "undecided"]
FEW_PEOPLE = 20
TO_BEAT: tuple[Role, ...] = ("floor", "baseline")
RANK: dict[Role, int] = {"result": 0, "baseline": 1, "floor": 1, "ceiling": 1, "reference": 1, "checkpoint": 2}
"""The finished model, then what it is held against, then its checkpoints."""


@dataclass(frozen=True)
class Judged:
    """One metric of one group: a line for each method, on one axis, the finished model first."""

    name: str
    part: str
    unit: str
    group: str
    rows: tuple[tuple[Metric, Whisker], ...]

    @property
    def title(self) -> str:
        """``PSNR, ICVF (dB)``, and the group where it is of one."""
        named = ", ".join(text for text in (self.name, self.part, "" if self.group == "all" else self.group) if text)
        return f"{named} ({self.unit})" if self.unit else named

    @property
    def result(self) -> Metric | None:
        """The finished model's."""
        return next((row for row, _ in self.rows if row.role == "result"), None)


@dataclass(frozen=True)
class Compared:
    """The finished model minus another method, and which way the whole interval points."""

    metric: Metric
    outcome: Outcome
    at: Whisker
    zero: float


@dataclass(frozen=True)
class Verdict:
    """A sentence on a recipe; ``outcome`` is empty where its numbers allow none."""

    outcome: Outcome | Literal[""]
    sentence: str
    detail: str = ""


def metrics_of(folder: Path) -> list[Metric]:
    """What an evaluation found; nothing where the folder has no metrics.

    Raises:
        UserError: ``metrics.json`` is damaged.
    """
    try:
        return read_metrics(folder)
    except (ValueError, TypeError, AttributeError) as error:
        path = folder / "metrics.json"
        raise UserError(f"{path}: is damaged ({error}); {again(path)}") from None


def judged(metrics: Sequence[Metric]) -> list[Judged]:
    """Metrics with at least one value; what a method is held against shares its axis."""
    together: dict[tuple[str, str, str, str], list[Metric]] = {}
    for row in metrics:
        if not row.against:
            together.setdefault((row.name, row.part, row.unit, row.group), []).append(row)
    found = []
    for key, rows in together.items():
        if any(row.value is not None for row in rows):
            rows = sorted(rows, key=lambda row: RANK[row.role])
            found.append(Judged(*key, tuple(zip(rows, intervals([_triple(row) for row in rows]), strict=True))))
    return found


def compared(metrics: Sequence[Metric]) -> list[Compared]:
    """Differences of the finished model to what it is held against, over all groups; each metric has its axis with 0."""
    rows = [row for row in metrics if row.against and row.value is not None and row.group == "all"]
    together: dict[tuple[str, str, str], list[Metric]] = {}
    for row in rows:
        together.setdefault((row.name, row.part, row.unit), []).append(row)
    found = []
    for of_metric in together.values():
        *placed, zero = intervals([*(_triple(row) for row in of_metric), (0.0, 0.0, 0.0)])
        found += [Compared(row, outcome(row), at, zero.x) for row, at in zip(of_metric, placed, strict=True)]
    return found


def outcome(row: Metric) -> Outcome:
    """Better or worse where the whole interval of a difference lies on one side of 0, undecided elsewhere."""
    if row.low is None or row.high is None or row.direction == "neither":
        return "undecided"
    above, below = row.low > 0, row.high < 0
    if above == below:
        return "undecided"
    return "better" if above == (row.direction == "higher") else "worse"


def headline(preferred: Sequence[str], found: Sequence[Judged]) -> Judged | None:
    """The task's own metric, over all groups where possible; None where it could not be computed."""
    wanted = [name.lower() for name in preferred]
    ranked = [
        ((wanted.index(item.name.lower()), item.group != "all"), item)
        for item in found
        if item.name.lower() in wanted and item.rows[0][0].value is not None
    ]
    return min(ranked, key=lambda pair: pair[0])[1] if ranked else None


def verdict(task: Task, metrics: Sequence[Metric], chosen: Judged | None, missing: Sequence[str]) -> Verdict:
    """Whether the model passes the best of what needs no training, by the task's own metric.

    Args:
        metrics: all of the recipe's, with the paired differences.
        chosen: the `headline`.
        missing: why numbers are lacking, for a recipe without a headline.
    """
    own = chosen.result if chosen else None
    if chosen is None or own is None or own.value is None:
        return Verdict("", f"No verdict: {next(iter(missing), 'no metric was written')}.".replace("..", "."))
    bar = best(row for row, _ in chosen.rows if row.role in TO_BEAT)
    level = f"{chosen.title} {number(own.value)}"
    if bar is None:
        return Verdict("", f"No verdict: {level}, and nothing stands beside it that it has to beat.")
    level += f" against {number(bar.value)}"
    difference = _difference(metrics, own, bar)
    if difference is None or difference.low is None or difference.high is None:
        return Verdict("", f"No verdict: {level} of {bar.method}, without an interval of the difference.")
    found = outcome(difference)
    people = f", {difference.people} people" if difference.people else ""
    sentence = (
        f"{task.verdicts[found].format(floor=bar.method)}: {level}, difference {number(difference.value)} "
        f"[{number(difference.low)}, {number(difference.high)}]{people}."
    )
    few = "So few people settle little." if 0 < difference.people < FEW_PEOPLE else ""
    return Verdict(found, sentence, " ".join(text for text in (few, _by_part(metrics, chosen)) if text))


def _by_part(metrics: Sequence[Metric], chosen: Judged) -> str:
    """The outcome in the other parts of the same metric."""
    found = []
    for item in judged([row for row in metrics if (row.name, row.group) == (chosen.name, chosen.group)]):
        own, bar = item.result, best(row for row, _ in item.rows if row.role in TO_BEAT)
        if item.part == chosen.part or own is None or bar is None:
            continue
        difference = _difference(metrics, own, bar)
        if difference is not None:
            found.append(f"{item.part or 'all'} {outcome(difference)}")
    return f"By part: {', '.join(found)}." if found else ""


def _difference(metrics: Sequence[Metric], own: Metric, bar: Metric) -> Metric | None:
    """The row that subtracts ``bar`` from the result, pair by pair."""
    keys = (own.name, own.part, own.group, own.split, bar.method)
    return next(
        (
            row
            for row in metrics
            if (row.name, row.part, row.group, row.split, row.against) == keys and row.value is not None
        ),
        None,
    )


def _triple(row: Metric) -> tuple[float, float, float]:
    value, low, high = (math.nan if end is None else float(end) for end in (row.value, row.low, row.high))
    return value, low, high
