"""Scans made again under other conditions: what the round trip loses, and whether ventricles change as between people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline_lib.config.schema import EvaluationOptions
from pipeline_lib.evaluation.contrasts import FEWEST
from pipeline_lib.evaluation.metric import Metric, joined
from pipeline_lib.evaluation.sets import HELD_OUT, Real
from pipeline_lib.evaluation.ventricles import DECADE, SHARE
from pipeline_lib.files import read_json
from pipeline_lib.inference.segmenter import Segmenter
from pipeline_lib.metrics.bootstrap import bootstrap_groups, bootstrap_mean
from pipeline_lib.metrics.volumes import slope

ROUND_TRIP = "round trip of a scan"
CHANGE = "change of the " + SHARE
Values = NDArray[np.floating]


def measure_counterfactuals(
    folder: Path, segmenter: Segmenter | None, other: Real, options: EvaluationOptions, result: Metric
) -> list[Metric]:
    """Error of the round trip and, with a segmenter, the change of ventricles beside that between held-out people.

    Args:
        folder: of `make_counterfactuals`.
        other: held-out people, whose slope over age or difference between groups at the same slice stands beside it.
        result: says method and note.
    """
    metrics: list[Metric] = []
    for condition, values in read_json(folder / "counterfactuals.json").items():
        people = pd.read_csv(folder / f"counterfactuals_{condition}.tsv", sep="\t", keep_default_na=False)
        metrics += _round_trip(people, options, replace(result, part=f"people spread over {condition}"))
        if segmenter is not None and len(people) >= FEWEST:
            changed = np.load(folder / condition / "changed.npy", mmap_mode="r")
            metrics += _ventricles(changed, segmenter, people, condition, values, other, options, result)
    return metrics


def _round_trip(people: pd.DataFrame, options: EvaluationOptions, result: Metric) -> Iterator[Metric]:
    for column, name, unit in (("psnr", "PSNR", "dB"), ("mean_absolute_error", "mean absolute error", "")):
        row = replace(
            result, name=f"{ROUND_TRIP}, {name}", unit=unit, people=len(people), images=len(people),
            direction="higher" if unit else "lower",
        )  # fmt: skip
        values = people[column].to_numpy(dtype=float) / (1 if unit else 2)
        interval = bootstrap_mean(values, resamples=options.bootstrap, seed=options.seed)
        yield row.measured(interval, "inverted and made again under the person's own conditions")


def _ventricles(
    changed: NDArray[np.floating],
    segmenter: Segmenter,
    people: pd.DataFrame,
    condition: str,
    values: list[str | float],
    other: Real,
    options: EvaluationOptions,
    result: Metric,
) -> Iterator[Metric]:
    shares = 100 * segmenter.shares(changed.reshape(-1, *changed.shape[2:])).reshape(changed.shape[:2])
    result = replace(result, people=len(people), images=int(shares.size), note=joined(segmenter.figures, result.note))
    real = _at_slices(segmenter, other, people)

    def both(name: str, unit: str, own: Values, of_people: Values, statistic: object) -> Iterator[Metric]:
        row = replace(result, name=name, unit=unit)
        assert callable(statistic)
        yield row.measured(
            bootstrap_mean(own, resamples=options.bootstrap, seed=options.seed), "within a person, made again"
        )
        reference = replace(row, role="reference", method=HELD_OUT, people=len(of_people), images=len(of_people))
        yield reference.measured(
            bootstrap_groups(statistic, of_people, resamples=options.bootstrap, seed=options.seed),
            "between people, same slices",
        )

        def ratio(rows: Values, mine: Values) -> float:
            below = statistic(rows)
            return float(mine.mean() / below) if below else float("nan")

        over = replace(row, name=f"{name}, counterfactuals over held-out people", unit="")
        yield over.measured(
            bootstrap_groups(ratio, of_people, own, resamples=options.bootstrap, seed=options.seed),
            "1 where they agree",
        )

    if condition == "age":
        told = np.array(values, dtype=float) / DECADE
        own = np.array([slope(told, row) for row in shares])
        aged = real[real["age"].notna()]
        rows = np.stack([aged["age"].to_numpy(dtype=float) / DECADE, aged["share"].to_numpy(dtype=float)], axis=1)
        if len(rows) >= FEWEST:
            yield from both(f"{CHANGE} over age", "% a decade", own, rows, lambda x: slope(x[:, 0], x[:, 1]))
    elif condition == "group":
        for place, name in enumerate(values[1:], start=1):
            first, second = (real["share"].to_numpy(dtype=float)[real["group"] == group] for group in (values[0], name))
            if min(len(first), len(second)) < FEWEST:
                continue
            rows = np.concatenate(
                [np.stack([np.zeros_like(first), first], 1), np.stack([np.ones_like(second), second], 1)]
            )
            yield from both(
                f"{CHANGE}, {name} minus {values[0]}",
                "%",
                shares[:, place] - shares[:, 0],
                rows,
                lambda x: slope(x[:, 0], x[:, 1]),
            )


def _at_slices(segmenter: Segmenter, other: Real, people: pd.DataFrame) -> pd.DataFrame:
    """Share, %, of each held-out person at the slices at which scans were made again: their mean."""
    rows = np.ones(len(other.index), bool)
    if (people["slice"].astype(str) != "").any():
        wanted = set(pd.to_numeric(people["slice"]).round(3))
        rows = pd.to_numeric(other.index["slice"]).round(3).isin(wanted).to_numpy()
    index = other.index[rows].reset_index(drop=True)
    index["share"] = 100 * segmenter.shares(other.images[np.flatnonzero(rows)])
    return index.groupby("participant").agg({"share": "mean", "age": "first", "group": "first"}).reset_index()
