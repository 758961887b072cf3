"""The small charts: what is marked, and where it is drawn."""

from __future__ import annotations

import math

import pytest

from pipeline_lib.report.charts import INTERVAL_WIDTH, STRIP_HEIGHT, STRIP_WIDTH, Value, intervals, strip_plot


def values(*numbers: float) -> list[Value]:
    return [Value(number, f"scan {number}") for number in numbers]


def test_outliers_lie_beyond_one_and_a_half_interquartile_ranges() -> None:
    # quartiles 2 and 4: fences at -1 and 7
    drawn = strip_plot(values(1, 2, 3, 4, 7.5), title="SNR")
    assert drawn is not None
    assert drawn.fences == (-1, 7)
    assert [mark.value for mark in drawn.outliers] == [7.5]
    assert drawn.dots.count("M") == 4


def test_few_values_have_no_outliers_and_none_no_chart() -> None:
    drawn = strip_plot(values(1, 1, 1, 100), title="SNR")
    assert drawn is not None
    assert not drawn.outliers
    assert strip_plot(values(math.nan), title="SNR") is None


@pytest.mark.parametrize("numbers", [[5.0] * 300, [float(n % 7) for n in range(1000)]])
def test_dots_stay_inside_the_drawing(numbers: list[float]) -> None:
    drawn = strip_plot(values(*numbers), title="SNR")
    assert drawn is not None
    dots = [tuple(map(float, dot.removesuffix("h0").split())) for dot in drawn.dots.split("M")[1:]]
    assert len(dots) == len(numbers)
    assert all(0 <= x <= STRIP_WIDTH and 0 <= y <= STRIP_HEIGHT for x, y in dots)


def test_intervals_share_an_axis() -> None:
    model, floor = intervals([(2, 1, 3), (5, math.nan, math.nan)])
    assert model.low < model.x < model.high < floor.x
    assert floor.low == floor.x == floor.high
    assert floor.x < INTERVAL_WIDTH
