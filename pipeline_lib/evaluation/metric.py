"""The one form in which every evaluation reports: a value with its interval, its role and whom it rests on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import pandas as pd

from pipeline_lib.files import read_json, write_json
from pipeline_lib.metrics.bootstrap import Interval

Role = Literal["result", "baseline", "floor", "ceiling", "reference", "checkpoint"]
"""What a method is to the recipe.

result: the finished model. baseline: another way to do it, trained or not. floor: what needs no training, or real
against real; a result that does not pass it is worth nothing. ceiling: what the result's own parts allow.
reference: stands beside the result to read it by. checkpoint: the model at an earlier step.
"""
Direction = Literal["higher", "lower", "neither"]
"""Which values are better."""
VENTRICLES = "ventricles.tsv"
"""File beside the metrics with the ventricles of each image (`ventricles.measure_ventricles`)."""
REMARKS = "remarks.json"
"""File beside the metrics with plain sentences that the page of the recipe shows below its verdict."""
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class Metric:
    """One number of an evaluation; ``value`` is None where it cannot be computed and ``note`` says why.

    Attributes:
        name: what was measured.
        part: of what part of the output: a channel, a lesion size; empty: of all of it.
        against: name of the method subtracted; the value is then a paired difference, not a level.
        role: of ``method``.
        step: training step of a checkpoint.
        people, images: how many the number rests on; 0: none, as for samples, who are nobody.
    """

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    unit: str = ""
    direction: Direction = "neither"
    role: Role = "result"
    method: str = ""
    part: str = ""
    against: str = ""
    step: int | None = None
    group: str = "all"
    split: str = "test"
    people: int = 0
    images: int = 0
    note: str = ""

    def measured(self, interval: Interval, note: str = "") -> Metric:
        """This metric with a value; what is not finite becomes None. ``note`` is put before the note it has."""

        return replace(
            self,
            value=finite(interval.value),
            low=finite(interval.low),
            high=finite(interval.high),
            note=joined(note, self.note),
        )

    def better(self, other: Metric) -> bool:
        """Whether this value is better than the other's; one without a value never is."""
        if self.value is None or other.value is None or self.direction == "neither":
            return self.value is not None and other.value is None
        return self.value > other.value if self.direction == "higher" else self.value < other.value


def finite(value: float | None) -> float | None:
    """A number, or None where there is none."""
    return float(value) if value is not None and math.isfinite(value) else None


def best(metrics: Iterable[Metric]) -> Metric | None:
    """The best of metrics of one name and direction; None where none has a value."""
    found: Metric | None = None
    for metric in metrics:
        if metric.value is not None and (found is None or metric.better(found)):
            found = metric
    return found


def joined(*parts: str) -> str:
    """Remarks as one note, empty ones left out."""
    return "; ".join(part for part in parts if part)


def write_metrics(folder: Path, metrics: Sequence[Metric], per_subject: pd.DataFrame) -> None:
    """Write ``metrics.json`` (a list of rows), ``metrics.tsv`` (the same) and ``per_subject.tsv``.

    Args:
        per_subject: a row a person; the report ranks test people by its columns ``participant``, ``split``, ``method``,
            ``group`` where there is one, and the headline metric under its name, blanks as underscores.
    """
    rows = [asdict(row) for row in metrics]
    write_json(folder / "metrics.json", rows)
    columns = list(Metric.__dataclass_fields__)
    pd.DataFrame(rows, columns=columns).to_csv(folder / "metrics.tsv", sep="\t", index=False)
    per_subject.to_csv(folder / "per_subject.tsv", sep="\t", index=False)


def read_metrics(folder: Path) -> list[Metric]:
    """What `write_metrics` wrote, None where a number is not finite; nothing where there is no such file."""
    path = folder / "metrics.json"
    rows = read_json(path) if path.is_file() else []
    return [Metric(**row | {name: finite(row.get(name)) for name in ("value", "low", "high")}) for row in rows]
