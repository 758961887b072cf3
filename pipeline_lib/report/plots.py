"""Geometry of line plots; the templates draw them as inline SVG, which is sharp, small and follows the reader's colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator

from pipeline_lib.report.page import number
from pipeline_lib.report.tables import Download

WIDTH, HEIGHT = 520, 300
LEFT, RIGHT, TOP, BOTTOM = 70, 12, 12, 46
MOST_POINTS = 400
"""Of a longer curve not every point is drawn; its table has them all."""
TICKS = 5


@dataclass(frozen=True)
class Series:
    """A curve to draw, or a ``level``: one value, with its interval, at all x.

    ``low`` and ``high`` bound each value, NaN where it has no interval. ``marked`` draws its points.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    marked: bool = False
    level: bool = False
    quiet: bool = False


@dataclass(frozen=True)
class Dot:
    x: float
    y: float
    label: str
    best: bool = False


@dataclass(frozen=True)
class Curve:
    """A series in SVG units; ``look`` numbers its colour and dashes, ``band`` is (y, height) of a level's interval."""

    name: str
    look: str
    path: str
    whiskers: str
    dots: tuple[Dot, ...]
    band: tuple[float, float] | None


@dataclass(frozen=True)
class Plot:
    """A line plot, its axes' ticks as (position, text)."""

    title: str
    x_title: str
    y_title: str
    alt: str
    caption: str
    curves: tuple[Curve, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    table: Download | None
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


@dataclass(frozen=True)
class Axis:
    """From values to SVG units, along one axis."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float, *, log: bool) -> Axis:
        """An axis that holds the finite values, with a little room."""
        known = [value for value in values if math.isfinite(value) and (not log or value > 0)]
        low, high = (math.log10(v) if log else v for v in (min(known), max(known)))
        room = 0.04 * (high - low) or abs(low) * 0.1 or 1.0
        return cls(low - room, high + room, start, end, log)

    def __call__(self, value: float) -> float:
        """The place of a value; NaN where the axis has none."""
        if not math.isfinite(value) or (self.log and value <= 0):
            return math.nan
        share = ((math.log10(value) if self.log else value) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self) -> tuple[tuple[float, str], ...]:
        """Places of round values and what is written there."""
        if self.log:
            low, high = 10**self.low, 10**self.high
            values = [float(v) for v in LogLocator(subs=(1, 2, 5)).tick_values(low, high) if low <= v <= high]
            while len(values) > 2 * TICKS:
                values = values[::3]
            if len(values) < 2:
                values = [low, high]
        else:
            values = [
                v for v in map(float, MaxNLocator(TICKS).tick_values(self.low, self.high)) if self.low <= v <= self.high
            ]
        return tuple(
            (self(value), f"{value:,.0f}" if abs(value) >= 1000 else f"{round(value, 12):.3g}") for value in values
        )


def plot(
    series: Sequence[Series],
    *,
    title: str,
    x_title: str,
    y_title: str,
    alt: str,
    caption: str = "",
    log_y: bool = False,
    best: tuple[float, float] | None = None,
    table: Download | None = None,
) -> Plot | None:
    """Lay out curves on shared axes; None where there is nothing to draw.

    Args:
        log_y: whether y is drawn on a logarithmic axis, on which values of 0 and below have no place.
        best: the point to mark, as (x, y).
    """
    series = [one for one in series if any(math.isfinite(y) and (y > 0 or not log_y) for y in one.y)]
    across = [float(x) for one in series if not one.level for x in one.x]
    if not series or not across:
        return None
    up = [float(y) for one in series for ys in (one.y, one.low, one.high) for y in ys]
    x_axis = Axis.over(across, LEFT, WIDTH - RIGHT, log=False)
    y_axis = Axis.over(up, HEIGHT - BOTTOM, TOP, log=log_y)
    looks = iter(f"s{n}" for n in range(len(series)))
    quiet = iter(f"q{n}" for n in range(len(series)))
    return Plot(
        title=title,
        x_title=x_title,
        y_title=y_title,
        alt=alt,
        caption=caption,
        curves=tuple(_curve(one, next(quiet if one.quiet else looks), x_axis, y_axis, best) for one in series),
        x_ticks=x_axis.ticks(),
        y_ticks=y_axis.ticks(),
        table=table,
    )


def _curve(series: Series, look: str, x_axis: Axis, y_axis: Axis, best: tuple[float, float] | None) -> Curve:
    if series.level:
        y = y_axis(series.y[0])
        ends = [y_axis(end[0]) for end in (series.high, series.low) if end and math.isfinite(end[0])]
        band = (ends[0], round(ends[1] - ends[0], 1)) if len(ends) == 2 else None
        return Curve(series.name, look, f"M{LEFT} {y}H{WIDTH - RIGHT}", "", (), band)
    points = [(float(x), float(y)) for x, y in zip(series.x, series.y, strict=True)]
    kept = np.unique(np.linspace(0, len(points) - 1, MOST_POINTS).round().astype(int))
    placed = [(x_axis(points[n][0]), y_axis(points[n][1])) for n in kept]
    placed = [(x, y) for x, y in placed if math.isfinite(y)]
    path = "M" + "L".join(f"{x} {y}" for x, y in placed)
    whiskers = "".join(
        f"M{x_axis(float(x))} {y_axis(low)}V{y_axis(high)}"
        for x, low, high in zip(series.x, series.low, series.high, strict=False)
        if math.isfinite(y_axis(low)) and math.isfinite(y_axis(high))
    )
    dots = []
    if series.marked:
        for x, y in points:
            if math.isfinite(y_axis(y)):
                marked = best is not None and best == (x, y)
                dots.append(Dot(x_axis(x), y_axis(y), f"{series.name}: {number(y)} at {number(x)}", marked))
    return Curve(series.name, look, path, whiskers, tuple(dots), None)
