"""Intervals cover the truth at their nominal rate, and people, not slices, are the unit."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline_lib.metrics.bootstrap import (
    bootstrap,
    bootstrap_groups,
    bootstrap_mean,
    half_sampling,
    halves,
    resample_counts,
)


def test_resamples_keep_the_number_of_people() -> None:
    counts = resample_counts(7, 100, seed=3)
    assert counts.shape == (100, 7)
    assert (counts.sum(axis=1) == 7).all()
    assert (counts.std(axis=1) > 0).any()


def test_interval_of_a_mean_covers_it_at_the_nominal_rate() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        interval = bootstrap_mean(rng.normal(5, 2, size=40), resamples=400, seed=trial)
        assert interval.low is not None
        assert interval.high is not None
        covered += interval.low <= 5 <= interval.high
    assert 0.90 <= covered / 300 <= 0.98


def test_interval_of_a_mean_matches_its_standard_error() -> None:
    values = np.random.default_rng(1).normal(size=400)
    interval = bootstrap_mean(values, resamples=2000, seed=0)
    width = float(interval.high or 0) - float(interval.low or 0)
    assert width == pytest.approx(2 * 1.96 * values.std() / np.sqrt(400), rel=0.06)
    assert interval.value == pytest.approx(values.mean())


def test_copies_of_a_person_do_not_narrow_the_interval_of_people() -> None:
    people = np.random.default_rng(2).normal(size=20)
    whole = bootstrap_mean(people, resamples=500, seed=0)
    slices = bootstrap_mean(np.repeat(people, 25), resamples=500, seed=0)
    width = float(whole.high or 0) - float(whole.low or 0)
    assert width > 4 * (float(slices.high or 0) - float(slices.low or 0))


@pytest.mark.parametrize("number", [0, 1])
def test_one_person_or_none_gives_no_interval(number: int) -> None:
    with np.errstate(invalid="ignore"):
        interval = bootstrap_mean(np.ones(number), resamples=10, seed=0)
    assert (interval.low, interval.high) == (None, None)


def test_resamples_without_a_value_are_left_out() -> None:
    interval = bootstrap(lambda w: np.where(w[:, 0] > 0, w[:, 0] * 1.0, np.nan), 3, resamples=200, seed=0)
    assert interval.low is not None
    assert interval.low >= 1


def test_half_sampling_of_a_mean_matches_its_standard_error() -> None:
    values = np.random.default_rng(3).normal(size=201)
    of_halves = np.array([values[one].mean() for one, _ in halves(201, 800, seed=0)])
    interval = half_sampling(of_halves, 201)
    width = float(interval.high or 0) - float(interval.low or 0)
    assert width == pytest.approx(2 * 1.96 * values.std() / np.sqrt(201), rel=0.1)
    assert interval.value == pytest.approx(values.mean(), abs=0.02)


def test_halves_share_nobody_and_leave_nobody_out() -> None:
    for one, other in halves(7, 20, seed=1):
        assert sorted([*one, *other]) == list(range(7))
        assert (len(one), len(other)) == (3, 4)


def test_a_paired_difference_is_tighter_than_two_values_apart() -> None:
    """Two methods on the same people: most of the spread is the people's and falls out of the difference."""
    rng = np.random.default_rng(4)
    easy = rng.normal(0, 3, size=60)
    one, other = easy + rng.normal(1, 0.3, size=60), easy + rng.normal(0, 0.3, size=60)
    paired = bootstrap_mean(one - other, resamples=1000, seed=0)
    alone = bootstrap_mean(one, resamples=1000, seed=0)
    assert float(paired.low or 0) > 0
    assert float(alone.low or 0) < float(bootstrap_mean(other, resamples=1000, seed=0).high or 0)
    error = (one - other).std() / np.sqrt(60)
    assert float(paired.high or 0) - float(paired.low or 0) == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_groups_are_resampled_each_on_its_own() -> None:
    """The interval of a difference of means is 1.96 standard errors wide to each side, in closed form."""
    rng = np.random.default_rng(0)
    ones, others = rng.normal(0, 1, 400), rng.normal(3, 2, 100)
    found = bootstrap_groups(lambda a, b: float(b.mean() - a.mean()), ones, others, resamples=2000, seed=0)
    error = np.sqrt(ones.var() / 400 + others.var() / 100)
    assert found.value == pytest.approx(others.mean() - ones.mean())
    assert found.low is not None
    assert found.high is not None
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.08)


def test_rows_of_a_group_stay_whole() -> None:
    """Of paired values the difference is resampled, whose spread is none here."""
    values = np.random.default_rng(0).normal(0, 10, 50)
    rows = np.stack([values, values + 1], axis=1)
    found = bootstrap_groups(lambda x: float((x[:, 1] - x[:, 0]).mean()), rows, resamples=50, seed=0)
    assert (found.low, found.value, found.high) == pytest.approx((1, 1, 1))


def test_one_person_in_a_group_has_no_interval() -> None:
    found = bootstrap_groups(lambda a, b: float(a.mean() - b.mean()), np.ones(1), np.ones(9), resamples=9, seed=0)
    assert (found.value, found.low, found.high) == (0, None, None)


def test_rows_of_a_cluster_are_drawn_together() -> None:
    """A random effect of each of 60 clusters of 8 rows: the interval is that of a mean over 60, in closed form."""
    rng = np.random.default_rng(1)
    effects = rng.normal(0, 1, 60)
    clusters = np.repeat(np.arange(60), 8).astype(str)
    rows = np.repeat(effects, 8) + rng.normal(0, 0.1, 480)
    found = bootstrap_groups(lambda x: float(x.mean()), rows, clusters=[clusters], resamples=2000, seed=0)
    error = 1.96 * rows.reshape(60, 8).mean(axis=1).std() / np.sqrt(60)
    assert (found.high - found.low) / 2 == pytest.approx(error, rel=0.08)  # type: ignore[operator]
    apart = bootstrap_groups(lambda x: float(x.mean()), rows, resamples=2000, seed=0)
    assert (apart.high - apart.low) / 2 == pytest.approx(error / np.sqrt(8), rel=0.1)  # type: ignore[operator]


def test_a_cluster_of_two_groups_is_drawn_in_both() -> None:
    """What the two share falls out of their difference, as in a paired bootstrap; a third group is resampled on its own."""
    rng = np.random.default_rng(2)
    shared, names = rng.normal(0, 5, 80), np.arange(80).astype(str)
    ones, others, people = shared + rng.normal(0, 1, 80), shared + rng.normal(1, 1, 80), rng.normal(0, 1, 50)

    def difference(a: NDArray[np.floating], b: NDArray[np.floating], of: NDArray[np.floating]) -> float:
        return float(b.mean() - a.mean() - of.mean())

    found = bootstrap_groups(difference, ones, others, people, clusters=[names, names, None], resamples=2000, seed=0)
    error = 1.96 * np.sqrt((others - ones).var() / 80 + people.var() / 50)
    assert (found.high - found.low) / 2 == pytest.approx(error, rel=0.08)  # type: ignore[operator]


def test_all_rows_of_one_cluster_have_no_interval() -> None:
    found = bootstrap_groups(
        lambda x: float(x.mean()), np.arange(5.0), clusters=[np.array(["a"] * 5)], resamples=9, seed=0
    )
    assert (found.value, found.low, found.high) == (2, None, None)


def test_groups_that_share_some_clusters_are_resampled_as_one() -> None:
    """Few clusters in each pattern of groups: one by one, a pattern with a single cluster would never be resampled."""
    found = bootstrap_groups(
        lambda a, b: float(b.mean() - a.mean()),
        np.array([1.0, 2.0]),
        np.array([1.0, 5.0, 6.0]),
        clusters=[np.array(["1", "2"]), np.array(["1", "3", "4"])],
        resamples=200,
        seed=0,
    )
    assert found.value == 2.5
    assert float(found.low or 0) < 1.5
    assert float(found.high or 0) > 3.5


def test_partly_shared_clusters_cover_at_the_nominal_rate() -> None:
    """24 noises, each of two ages by chance: the interval of young against old holds the truth in about 95 of 100 draws."""
    rng = np.random.default_rng(3)
    held = 0
    for number in range(120):
        noise = rng.normal(0, 1, 24)
        rows = noise[:, None] + rng.normal(0, 0.7, (24, 2))
        old = rng.random((24, 2)) < 0.5
        names = np.repeat(np.arange(24)[:, None], 2, axis=1).astype(str)
        rows = rows + old
        found = bootstrap_groups(
            lambda a, b: float(b.mean() - a.mean()),
            rows[~old],
            rows[old],
            clusters=[names[~old], names[old]],
            resamples=150,
            seed=number,
        )
        held += float(found.low or 0) <= 1 <= float(found.high or 0)
    assert 0.86 <= held / 120 <= 0.99
