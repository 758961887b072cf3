"""Line plots: where points lie, what is left out, and what the reader is told."""

from __future__ import annotations

import math
import re
from typing import Any

from pipeline_lib.report.plots import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, Plot, Series, plot

WORDS: dict[str, Any] = {"title": "loss", "x_title": "step", "y_title": "loss", "alt": "loss against steps"}


def drawn(*series: Series, **options: Any) -> Plot:
    found = plot(series, **WORDS, **options)
    assert found is not None
    return found


def points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path)]


def test_points_stay_inside_and_lower_values_lie_lower() -> None:
    (curve,) = drawn(Series("train", [1, 2, 3], [5, 1, 3])).curves
    placed = points(curve.path)
    assert all(LEFT <= x <= WIDTH - RIGHT and TOP <= y <= HEIGHT - BOTTOM for x, y in placed)
    assert [x for x, _ in placed] == sorted(x for x, _ in placed)
    assert placed[1][1] > placed[2][1] > placed[0][1], "y grows downwards"


def test_decades_are_evenly_spaced_on_a_logarithmic_axis() -> None:
    (curve,) = drawn(Series("train", [1, 2, 3, 4], [1, 10, 100, 0]), log_y=True).curves
    one, ten, hundred = (y for _, y in points(curve.path))
    assert math.isclose(one - ten, ten - hundred, abs_tol=0.2)


def test_long_curves_keep_their_ends_and_ticks_their_places() -> None:
    number = 5000
    found = drawn(Series("train", range(number), [float(n) for n in range(number)]))
    placed = points(found.curves[0].path)
    assert len(placed) <= 400
    axis = Axis.over(range(number), LEFT, WIDTH - RIGHT, log=False)
    assert (placed[0][0], placed[-1][0]) == (axis(0), axis(number - 1))
    assert len(found.x_ticks) >= 3
    assert all(axis(float(text.replace(",", ""))) == place for place, text in found.x_ticks)


def test_level_spans_the_axis_with_its_interval_and_the_best_is_marked() -> None:
    curve = Series("samples", [1, 2], [3.0, 1.0], marked=True)
    floor = Series("floor", [0], [0.5], [0.4], [0.6], level=True, quiet=True)
    samples, level = drawn(curve, floor, best=(2, 1.0)).curves
    assert [dot.best for dot in samples.dots] == [False, True]
    assert level.path.endswith(f"H{WIDTH - RIGHT}")
    assert level.band is not None
    assert level.band[1] > 0


def test_nothing_finite_is_no_plot() -> None:
    assert plot([Series("train", [1, 2], [math.nan, math.nan])], **WORDS) is None
    assert plot([Series("train", [1], [-1.0])], **WORDS, log_y=True) is None
