"""Volumes of two sets: against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline_lib.metrics.volumes import hedges_g, paired_effect, residuals, slope, spread, wasserstein


def test_hedges_g_of_a_case_worked_by_hand() -> None:
    """Means 6 and 4 and deviations 2 and 1 of 9 and 5: pooled variance (8 x 4 + 4 x 1) / 12 = 3, J = 1 - 3 / 47."""
    assert hedges_g(2.0, (2.0, 1.0), (9, 5)) == pytest.approx(2 / math.sqrt(3) * (1 - 3 / 47))


def test_hedges_g_estimates_the_true_difference_without_bias() -> None:
    """Small sets of unit variance one apart: the mean over many is 1, where that of Cohen's d is above it."""
    rng = np.random.default_rng(0)
    ones, others = rng.normal(1, 1, (4000, 5)), rng.normal(0, 1, (4000, 5))
    found = [
        hedges_g(float(a.mean() - b.mean()), (spread(a), spread(b)), (5, 5)) for a, b in zip(ones, others, strict=True)
    ]
    assert np.mean(found) == pytest.approx(1, abs=0.04)


def test_nothing_that_varies_has_no_effect_size() -> None:
    assert math.isnan(hedges_g(1.0, (0.0, 0.0), (5, 5)))
    assert math.isnan(hedges_g(1.0, (1.0, 1.0), (1, 1)))
    assert math.isnan(paired_effect(np.ones(5)))
    assert math.isnan(slope(np.ones(5), np.arange(5.0)))


def test_paired_effect_is_t_over_the_root_of_n() -> None:
    from scipy.stats import ttest_1samp

    values = np.random.default_rng(0).normal(0.5, 1, 30)
    assert paired_effect(values) == pytest.approx(ttest_1samp(values, 0).statistic / math.sqrt(30))


def test_slope_and_residuals_are_those_of_least_squares() -> None:
    rng = np.random.default_rng(0)
    over = rng.uniform(20, 80, 40)
    values = 1 + 0.03 * over + rng.normal(0, 0.2, 40)
    rise, level = np.polyfit(over, values, 1)
    assert slope(over, values) == pytest.approx(rise)
    np.testing.assert_allclose(residuals(over, values), values - level - rise * over, atol=1e-12)
    np.testing.assert_allclose(residuals(np.ones(40), values), values - values.mean())


def test_wasserstein_of_shifted_and_of_widened_sets() -> None:
    """A shift costs itself, whatever the shape; uniform on [0, 1] to uniform on [0, 2] costs 1/2."""
    values = np.random.default_rng(0).normal(size=500)
    assert wasserstein(values, values + 0.7) == pytest.approx(0.7)
    even = (np.arange(1000) + 0.5) / 1000
    assert wasserstein(even, 2 * even) == pytest.approx(0.5, abs=1e-3)
