"""The line plots of a recipe's page, from the tables its stages wrote."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from pipeline_lib.evaluation.metric import Metric, best
from pipeline_lib.report.plots import Plot, Series, plot
from pipeline_lib.report.tables import download
from pipeline_lib.report.verdict import metrics_of

SET_DISTANCES = ("FID", "KID")
HISTORY, LEVELS, CURVE = "history.csv", "noise_levels.tsv", "precision_recall.tsv"


def plots_of(folder: Path, prefix: str) -> list[Plot]:
    """Every line plot of a stage's folder; which are drawn is what is there.

    Args:
        prefix: put before the names of the tables that a reader saves.
    """
    plots = [*_losses(folder, prefix), *_noise_levels(folder, prefix), *_precision_recall(folder, prefix)]
    metrics = metrics_of(folder)
    plots += [_over_steps(metrics, name, prefix) for name in SET_DISTANCES]
    return [drawn for drawn in plots if drawn is not None]


def _losses(folder: Path, prefix: str) -> Iterator[Plot | None]:
    """Training and validation, a plot for every part of the loss."""
    if not (folder / HISTORY).is_file():
        return
    history = pd.read_csv(folder / HISTORY)
    table = download(f"{prefix}_history.tsv", history)
    parts = [str(column).partition("_") for column in history]
    for name in dict.fromkeys(name for split, _, name in parts if split in ("train", "validation")):
        series = []
        for split in ("train", "validation"):
            if f"{split}_{name}" in history:
                rows = history[["step", f"{split}_{name}"]].dropna()
                marked = split == "validation" and len(rows) <= 60
                series.append(Series(split, rows["step"].tolist(), rows.iloc[:, 1].tolist(), marked=marked))
        title = name.replace("_", " ").capitalize()
        yield plot(
            series, title=title, x_title="optimiser step", y_title=title.lower(),
            alt=f"{title} of training and validation images against optimiser steps{_ends_of(series)}.",
            log_y=all(y > 0 for one in series for y in one.y), table=table,
        )  # fmt: skip


def _noise_levels(folder: Path, prefix: str) -> Iterator[Plot | None]:
    """Error of x0 by noise level, beside the best linear function of one voxel: what needs no network."""
    if not (folder / LEVELS).is_file():
        return
    levels = pd.read_csv(folder / LEVELS, sep="\t").sort_values("log_snr")
    x = levels["log_snr"].tolist()
    table = download(f"{prefix}_noise_levels.tsv", levels)
    yield plot(
        [
            Series("network", x, levels["x0_mse"].tolist(), marked=True),
            Series("floor: best linear function of one noisy voxel", x, levels["x0_mse_linear"].tolist(), marked=True, quiet=True),
        ],
        title="Error of the clean image by noise level", x_title="log SNR (noise on the left)", y_title="mean squared error",
        alt="Mean squared error of the clean image against log SNR, of the network and of the best linear function of a voxel.",
        caption="On validation images. Where the network is no lower than the floor, it has learned nothing of images at that level.",
        log_y=True, table=table,
    )  # fmt: skip
    yield plot(
        [Series("loss", x, levels["loss"].tolist(), marked=True)],
        title="Loss by noise level", x_title="log SNR (noise on the left)", y_title="loss",
        alt="Loss of the network on validation images against log SNR.",
        caption="What training minimised, level by level: a level far above the others is where more training or another weight helps.",
        table=table,
    )  # fmt: skip
    if "eps_limit" in levels:
        yield plot(
            [
                Series("predicted noise", x, levels["eps_autocorrelation"].tolist(), marked=True),
                Series("floor: white noise, 1 in 100 above", [0], [float(levels["eps_limit"].iloc[0])], level=True, quiet=True),
            ],
            title="Is the predicted noise white?", x_title="log SNR (noise on the left)", y_title="largest autocorrelation",
            alt="Largest autocorrelation at any lag of the noise that the network takes out, against log SNR, beside the limit of white noise.",
            caption="Noise was drawn for every voxel by itself; where what the network takes for noise is correlated, it takes anatomy for "
            "noise, or noise for anatomy. Mean, variance and the outcome at a level of 1 % are in the table. Of simplex and coarse noise, "
            "which are correlated, it says nothing.",
            log_y=True, table=table,
        )  # fmt: skip


def _precision_recall(folder: Path, prefix: str) -> Iterator[Plot | None]:
    if not (folder / CURVE).is_file():
        return
    curves = pd.read_csv(folder / CURVE, sep="\t")
    series = [
        Series(
            str(method) if role == "result" else f"{role}: {method}", curve["recall"].tolist(),
            curve["precision"].tolist(), quiet=role != "result",
        )
        for (method, role), curve in curves.groupby(["method", "role"], sort=False)
    ]  # fmt: skip
    chance = float(curves["chance"].iloc[0])
    yield plot(
        [*series, Series("floor: chance, the share of lesion pixels", [0], [chance], level=True, quiet=True)],
        title="Precision against recall", x_title="recall", y_title="precision",
        alt="Precision against recall of lesion pixels of test people, of the model and of what needs no training.",
        caption="Over the lesion pixels of test people; every method is smoothed alike.",
        table=download(f"{prefix}_precision_recall.tsv", curves),
    )  # fmt: skip


def _over_steps(metrics: Sequence[Metric], name: str, prefix: str) -> Plot | None:
    """A set distance against the training step, the lowest marked, beside floor and reference; None of a single checkpoint."""
    rows = [
        row for row in metrics if row.name == name and row.value is not None and not row.against and row.group == "all"
    ]
    stepped = sorted(
        (row for row in rows if row.role == "checkpoint" and row.step is not None), key=lambda row: row.step or 0
    )
    lowest = best(stepped)
    if lowest is None or len(stepped) == 1:
        return None
    levels = [row for row in rows if row.role in ("floor", "reference") and row.direction == lowest.direction]
    series = [
        Series(
            "samples", [row.step or 0 for row in stepped], [_or_nan(row.value) for row in stepped],
            [_or_nan(row.low) for row in stepped], [_or_nan(row.high) for row in stepped], marked=True,
        ),
        *(
            Series(f"{row.role}: {row.method}", [0], [_or_nan(row.value)], [_or_nan(row.low)], [_or_nan(row.high)], level=True, quiet=True)
            for row in levels
        ),
    ]  # fmt: skip
    return plot(
        series, title=f"{name} to held-out people", x_title="training step", y_title=name,
        alt=f"{name} of samples to held-out people against the training step{_ends_of(series[:1])}, with the real-against-real floor.",
        caption=f"The lowest is marked, at step {lowest.step:,}. It is marked to be seen: no checkpoint was chosen by it.",
        best=(float(lowest.step or 0), _or_nan(lowest.value)),
        table=download(f"{prefix}_{name.lower()}.tsv", pd.DataFrame([asdict(row) for row in [*stepped, *levels]])),
    )  # fmt: skip


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _ends_of(series: Sequence[Series]) -> str:
    """Where curves begin and end, in words."""
    told = [f"{one.name} from {one.y[0]:.3g} to {one.y[-1]:.3g}" for one in series if len(one.y)]
    return f": {', '.join(told)}" if told else ""
