"""The figures of an evaluation, drawn from the tables and views it wrote: which are drawn is what is there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline_lib.evaluation.metric import VENTRICLES, Metric
from pipeline_lib.inference.pictures import Row, Tile, mosaic
from pipeline_lib.report.verdict import metrics_of

TRANSLATED = {
    "floor": "floor",
    "regression": "regression",
    "prediction": "prediction",
    "draw": "one draw",
    "ceiling": "ceiling",
    "target": "target",
}
"""What pictures of a translation show, where it is there, and its title."""
SET_DISTANCES = ("FID", "KID")
COLOURS = {"result": "tab:blue", "checkpoint": "tab:blue", "floor": "grey", "reference": "tab:orange"}

DATA = {
    "examples": "per_subject.tsv",
    "distances": "metrics.tsv",
    "grid": "samples.tsv",
    "conditions": "samples.tsv",
    "reverse": "samples.tsv",
    "strip": "history.csv",
    "loss": "history.csv",
}
"""The table of a stage that a picture shows, or that belongs to it, where it does not have the picture's name."""


def data_of(folder: Path, stem: str) -> pd.DataFrame | None:
    """The table of a stage's picture, its cells as text; None where there is none, or it is empty."""
    for name in (f"{stem}.tsv", DATA.get(stem, "")):
        table = folder / name
        if table.is_file() and table.read_bytes().strip():
            return pd.read_csv(table, sep="," if table.suffix == ".csv" else "\t", dtype=str, keep_default_na=False)
    return None


def figures_of(folder: Path) -> Iterator[tuple[str, Figure]]:
    """Every figure of an evaluation's folder, by the name of its caption."""
    if (folder / "examples.npz").is_file():
        with np.load(folder / "examples.npz") as views:
            yield "examples", _anomalies(views) if "methods" in views else _translations(views)
    if (folder / "spectrum.tsv").is_file():
        yield "spectrum", _spectra(pd.read_csv(folder / "spectrum.tsv", sep="\t"))
    if (folder / "regions.tsv").is_file():
        yield "regions", _regions(pd.read_csv(folder / "regions.tsv", sep="\t"))
    metrics = metrics_of(folder)
    if len({metric.group for metric in metrics if metric.name in SET_DISTANCES}) > 1:
        yield "distances", _by_group(metrics)
    if (folder / VENTRICLES).is_file():
        yield "ventricles", _ventricles(pd.read_csv(folder / VENTRICLES, sep="\t", keep_default_na=False))
    if (folder / "nearest.npz").is_file():
        with np.load(folder / "nearest.npz") as views:
            yield "nearest", _closest_pairs(views)


def _anomalies(views: Mapping[str, NDArray]) -> Figure:
    rows = []
    for place, person in enumerate(views["people"]):
        truth = views["truth"][place]
        tiles = [
            Tile(views["image"][place], title="scan"),
            Tile(views["reconstruction"][place], title="reconstruction"),
        ]
        for method, scores in zip(views["methods"], views["scores"][place], strict=True):
            low, high = np.nanpercentile(scores, [1, 99.5])
            shown = np.where(np.isnan(scores), low, scores)
            tiles.append(Tile(shown, float(low), float(max(high, low + 1e-6)), "inferno", truth, _wrapped(method)))
        if views["truth"].any():
            tiles.append(Tile(views["image"][place], contour=truth, title="truth"))
        rows.append(Row(tiles if not place else [_untitled(tile) for tile in tiles], str(person)))
    return mosaic(rows, "Test people" + (": the red line is the true lesion" if views["truth"].any() else ""))


def _translations(views: Mapping[str, NDArray]) -> Figure:
    rows = []
    for place, label in enumerate(views["labels"]):
        source, prediction = (views[name][place] for name in ("source", "prediction"))
        tiles = [
            Tile(source, float(source.min()), float(source.max()), title="source, channel 1"),
            *(Tile(views[name][place], title=title) for name, title in TRANSLATED.items() if name in views),
        ]
        if "target" in views:
            tiles.append(Tile(prediction - views["target"][place], -0.5, 0.5, "RdBu_r", title="prediction - target"))
        if "spread" in views and views["spread"].any():
            tiles.append(Tile(views["spread"][place], 0.0, 0.25, "inferno", title="uncertainty"))
        rows.append(Row(tiles if not place else [_untitled(tile) for tile in tiles], str(label)))
    return mosaic(rows, "Test people")


def _spectra(table: pd.DataFrame) -> Figure:
    """Power over that of the truth by frequency, a panel a map and a line a method."""
    channels = list(dict.fromkeys(table["channel"]))
    figure = Figure(figsize=(3.2 * len(channels), 3), layout="constrained")
    for axis, channel in zip(figure.subplots(1, len(channels), sharey=True, squeeze=False)[0], channels, strict=True):
        own = table[table["channel"] == channel]
        for (method, role), line in own.groupby(["method", "role"], sort=False):
            axis.plot(line["frequency"], line["decibels"], color=COLOURS.get(role, "tab:green"), label=method)
        axis.axhline(0, color="black", linewidth=0.5)
        axis.set_title(channel, fontsize=9)
        axis.set_xlabel("cycles a voxel")
    figure.axes[0].set_ylabel("power over the truth's (dB)")
    figure.axes[0].legend(fontsize=7)
    return figure


def _regions(table: pd.DataFrame) -> Figure:
    """Correlation in each region, a panel a map and a dot a method; regions in the order of the result."""
    first = list(table.columns).index("voxels") + 1
    methods = [name for name in table.columns[first:] if " minus " not in name]
    maps = list(dict.fromkeys(table["map"]))
    figure = Figure(figsize=(3.2 * len(maps), 3.4), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(maps), sharey=True, squeeze=False)[0], maps, strict=True):
        own = table[table["map"] == name].sort_values(methods[0])
        for method in reversed(methods):
            axis.plot(
                range(len(own)),
                own[method],
                ".",
                markersize=3,
                color=None if method != methods[0] else "tab:blue",
                label=method,
            )
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("regions")
    figure.axes[0].set_ylabel("correlation")
    figure.axes[0].legend(fontsize=7)
    return figure


def _untitled(tile: Tile) -> Tile:
    return Tile(tile.image, tile.low, tile.high, tile.colours, tile.contour)


def _wrapped(text: str) -> str:
    return str(text).replace(" + ", "\n+ ")


def _by_group(metrics: Sequence[Metric]) -> Figure:
    """FID and KID of each group's samples beside the floor and the reference."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    for axis, name in zip(figure.subplots(1, 2), SET_DISTANCES, strict=True):
        rows = [row for row in metrics if row.name == name and row.value is not None and not row.against]
        groups = list(dict.fromkeys(row.group for row in metrics if row.name == name))
        methods = list(dict.fromkeys((row.method, row.role) for row in rows))
        for number, (method, role) in enumerate(methods):
            own = [row for row in rows if row.method == method]
            values = np.array([row.value for row in own], dtype=float)
            axis.errorbar(
                [groups.index(row.group) + 0.15 * (number - (len(methods) - 1) / 2) for row in own],
                values, yerr=np.abs(np.array([_ends(row) for row in own]).T - values),
                linestyle="none", marker="o" if role == "result" else "s", color=COLOURS[role], capsize=3, label=method,
            )  # fmt: skip
        axis.set_xticks(range(len(groups)), groups)
        axis.set_title(f"{name} to the group's held-out people", fontsize=9)
        if methods:
            axis.legend(fontsize=7)
    return figure


def _ventricles(rows: pd.DataFrame) -> Figure:
    """The ventricles' share of each sample and held-out person, by group and, where samples were told ages, over age."""
    rows = rows.assign(age=pd.to_numeric(rows["age"], errors="coerce"))
    rows = rows.drop_duplicates(["kind", "id"])  # a person's value is the mean over slices
    aged = rows[(rows["kind"] == "sample") & rows["age"].notna()]
    groups = sorted(set(rows["group"][rows["kind"] == "sample"]) - {"", "all"}) or [None]
    figure = Figure(figsize=(8 if len(aged) else 4.5, 3.4), layout="constrained")
    axes = figure.subplots(1, 2 if len(aged) else 1, squeeze=False)[0]
    kinds = (("held-out", "tab:orange", "held-out people"), ("sample", "tab:blue", "samples"))
    for shift, (kind, colour, label) in zip((-0.18, 0.18), kinds, strict=True):
        own = rows[rows["kind"] == kind]
        values = [own["adjusted"][own["group"] == group] if group else own["adjusted"] for group in groups]
        places = np.arange(len(groups)) + shift
        for place, of_group in zip(places, values, strict=True):
            spread = np.random.default_rng(0).uniform(-0.1, 0.1, len(of_group))
            axes[0].scatter(place + spread, of_group, s=8, color=colour, alpha=0.5, linewidths=0)
            if len(of_group):
                axes[0].hlines(of_group.mean(), place - 0.14, place + 0.14, color=colour, linewidth=2)
        axes[0].scatter([], [], s=12, color=colour, label=label)
        if len(aged) and own["age"].notna().sum() > 2:
            known = own[own["age"].notna()]
            axes[-1].scatter(known["age"], known["adjusted"], s=8, color=colour, alpha=0.5, linewidths=0)
            ends = np.array([known["age"].min(), known["age"].max()])
            axes[-1].plot(ends, np.polyval(np.polyfit(known["age"], known["adjusted"], 1), ends), color=colour)
    axes[0].set_xticks(range(len(groups)), [group or "all" for group in groups])
    axes[0].set_ylabel("lateral ventricles, % of the brain")
    axes[0].legend(fontsize=7)
    if len(aged):
        axes[-1].set_xlabel("age, years")
    return figure


def _closest_pairs(views: Mapping[str, NDArray]) -> Figure:
    """The samples most like a training image, above that image and their difference."""
    rows: list[list[Tile]] = [[], [], []]
    for sample, training, similarity in zip(views["sample"], views["training"], views["similarity"], strict=True):
        rows[0].append(Tile(sample, title=f"similarity {similarity:.3f}"))
        rows[1].append(Tile(training))
        rows[2].append(Tile(_grey(sample) - _grey(training), colours="RdBu_r"))
    return mosaic(
        [Row(tiles, label) for tiles, label in zip(rows, ("sample", "nearest training", "difference"), strict=True)],
        f"Most similar pairs (held-out people: median similarity {float(views['typical']):.3f})",
    )


def _grey(picture: NDArray[np.floating]) -> NDArray[np.floating]:
    return picture.mean(axis=-1) if picture.ndim == 3 else picture


def _ends(row: Metric) -> tuple[float, float]:
    value = float(row.value or 0)
    return (value if row.low is None else row.low, value if row.high is None else row.high)
