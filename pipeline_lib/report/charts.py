"""Geometry of the report's small charts; the templates draw them as inline SVG.

A strip shows one measurement over the cohort. Its outliers are the values more than 1.5 interquartile
ranges outside the quartiles (Tukey, Exploratory Data Analysis, 1977).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

STRIP_WIDTH, STRIP_HEIGHT, STRIP_MARGIN = 480, 60, 8
INTERVAL_WIDTH, INTERVAL_MARGIN = 220, 8
FENCE = 1.5
FEWEST = 5
MOST_DOTS = 1000
"""Of more values not every one is drawn; quartiles are those of all."""
MOST_NAMED = 20
"""Outliers with a name and a link, those farthest from the median; the others are drawn and counted."""


@dataclass(frozen=True)
class Value:
    """A measurement and the scan, person or page it belongs to."""

    value: float
    label: str
    link: str = ""


@dataclass(frozen=True)
class Mark:
    x: float
    y: float
    value: float
    label: str
    link: str


@dataclass(frozen=True)
class StripPlot:
    """A distribution: dots as one path, the box of the quartiles, outliers one by one. Positions in SVG units.

    ``unnamed`` counts the outliers beyond those in ``outliers``; they are drawn in the path ``others``.
    """

    title: str
    unit: str
    meaning: str
    count: int
    low: float
    high: float
    median: float
    quartiles: tuple[float, float]
    fences: tuple[float, float] | None
    box: tuple[float, float]
    middle: float
    dots: str
    outliers: tuple[Mark, ...]
    others: str = ""
    unnamed: int = 0
    width: int = STRIP_WIDTH
    height: int = STRIP_HEIGHT


@dataclass(frozen=True)
class Whisker:
    """A value with its confidence interval on a shared axis. Positions in SVG units."""

    x: float
    low: float
    high: float
    width: int = INTERVAL_WIDTH


def strip_plot(
    values: Sequence[Value],
    *,
    title: str,
    unit: str = "",
    meaning: str = "",
    limits: tuple[float, float] | None = None,
    mark_outliers: bool = True,
) -> StripPlot | None:
    """Lay out one measurement; None when no value is finite. Fewer than five values have no outliers.

    ``limits`` is the range of the axis where several strips share one; by default that of the values.
    """
    values = [item for item in values if math.isfinite(item.value)]
    if not values:
        return None
    values = sorted(values, key=lambda item: item.value)
    numbers = np.array([item.value for item in values])
    first, median, third = (float(q) for q in np.quantile(numbers, [0.25, 0.5, 0.75]))
    reach = FENCE * (third - first)
    fences = (first - reach, third + reach) if mark_outliers and len(values) >= FEWEST else None
    low, high = limits or (float(numbers.min()), float(numbers.max()))
    count = len(values)
    beyond = np.zeros(count, bool) if fences is None else (numbers < fences[0]) | (numbers > fences[1])
    far = np.flatnonzero(beyond)
    named = {int(n) for n in far[np.argsort(-np.abs(numbers[far] - median), kind="stable")][:MOST_NAMED]}
    if count > MOST_DOTS:  # spread evenly over the ranks; outliers with a name are among them
        kept = np.union1d(np.linspace(0, count - 1, MOST_DOTS).astype(int), np.array(sorted(named), int))
        values, numbers, beyond = [values[n] for n in kept], numbers[kept], beyond[kept]
        named = {place for place, n in enumerate(kept) if int(n) in named}
    x = _scale(numbers, low, high, STRIP_WIDTH, STRIP_MARGIN)
    y = _swarm(x)
    with_name = np.array([n in named for n in range(len(values))], bool)
    dots, others = (
        "".join(f"M{a:.4g} {b:.3g}h0" for a, b in zip(x[of], y[of], strict=True))
        for of in (~beyond, beyond & ~with_name)
    )
    outliers = [
        Mark(round(float(x[i]), 1), round(float(y[i]), 1), values[i].value, values[i].label, values[i].link)
        for i in np.flatnonzero(with_name)
    ]
    edges = _scale(np.array([first, median, third]), low, high, STRIP_WIDTH, STRIP_MARGIN)
    return StripPlot(
        title=title,
        unit=unit,
        meaning=meaning,
        count=count,
        low=low,
        high=high,
        median=median,
        quartiles=(first, third),
        fences=fences,
        box=(round(float(edges[0]), 1), round(float(edges[2] - edges[0]), 1)),
        middle=round(float(edges[1]), 1),
        dots=dots,
        outliers=tuple(sorted(outliers, key=lambda mark: mark.value)),
        others=others,
        unnamed=len(far) - len(outliers),
    )


def intervals(rows: Sequence[tuple[float, float, float]]) -> list[Whisker]:
    """Place (value, low, high) triples on one axis that spans them all; a missing bound equals the value."""
    full = [(v, v if math.isnan(lo) else lo, v if math.isnan(hi) else hi) for v, lo, hi in rows]
    finite = [number for row in full for number in row if math.isfinite(number)]
    if not finite:
        return [Whisker(math.nan, math.nan, math.nan) for _ in rows]
    low, high = min(finite), max(finite)
    placed = [_scale(np.array(row, float), low, high, INTERVAL_WIDTH, INTERVAL_MARGIN) for row in full]
    return [Whisker(round(float(value), 1), round(float(low), 1), round(float(high), 1)) for value, low, high in placed]


def _scale(numbers: np.ndarray, low: float, high: float, width: int, margin: int) -> np.ndarray:
    if high == low:
        return np.full(len(numbers), width / 2)
    return margin + (numbers - low) / (high - low) * (width - 2 * margin)


def _swarm(x: np.ndarray) -> np.ndarray:
    """Heights that keep dots of nearly equal ``x`` apart: stacked outwards from the middle within columns."""
    columns = np.round(x / 7).astype(int)
    y = np.empty(len(x))
    for column in np.unique(columns):
        members = np.flatnonzero(columns == column)
        members = members[np.argsort(x[members], kind="stable")]
        order = np.arange(len(members))
        offsets = ((order + 1) // 2) * np.where(order % 2, 1.0, -1.0)
        spacing = min(6.5, (STRIP_HEIGHT / 2 - STRIP_MARGIN) / max(1.0, float(np.abs(offsets).max())))
        y[members] = STRIP_HEIGHT / 2 + offsets * spacing
    return y
