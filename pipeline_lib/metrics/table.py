"""The one form in which every evaluation reports: a row a number, with its interval and its N."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from pipeline_lib.files import write_json
from pipeline_lib.metrics.bootstrap import Interval


@dataclass(frozen=True)
class Metric:
    """One number of an evaluation; ``value`` is None where it cannot be computed and ``note`` says why."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n_subjects: int = 0
    n_images: int = 0
    unit: str = ""
    group: str = "all"
    split: str = "test"
    method: str = ""
    note: str = ""


def metric(name: str, interval: Interval, **about: str | int) -> Metric:
    """A metric from a value with its interval; what is not finite becomes None."""

    def finite(value: float | None) -> float | None:
        return float(value) if value is not None and math.isfinite(value) else None

    return Metric(name, finite(interval.value), finite(interval.low), finite(interval.high), **about)  # type: ignore[arg-type]


def write_metrics(folder: Path, metrics: Sequence[Metric], per_subject: pd.DataFrame) -> None:
    """Write ``metrics.json`` (a list of rows), ``metrics.tsv`` (the same) and ``per_subject.tsv``."""
    rows = [asdict(row) for row in metrics]
    write_json(folder / "metrics.json", rows)
    columns = list(Metric.__dataclass_fields__)
    pd.DataFrame(rows, columns=columns).to_csv(folder / "metrics.tsv", sep="\t", index=False)
    per_subject.to_csv(folder / "per_subject.tsv", sep="\t", index=False)
