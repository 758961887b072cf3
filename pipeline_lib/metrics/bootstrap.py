"""Intervals that respect who the images came from: people are resampled, never slices.

Slices of one person are alike, so an interval over slices is too narrow. Percentile bootstrap
(Efron and Tibshirani 1993, chapter 13) for means and sums over people; half-sampling (Politis,
Romano and Wolf 1999) for distances between distributions, which the bootstrap's repeated people bias.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval; the limits are None where one person leaves nothing to resample."""

    value: float
    low: float | None
    high: float | None


def resample_counts(subjects: int, resamples: int, seed: int) -> Weights:
    """How often each person was drawn: ``(resamples, subjects)``, each row sums to ``subjects``."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(subjects, np.full(subjects, 1 / subjects), size=resamples)


def bootstrap(
    statistic: Callable[[Weights], NDArray[np.floating]], subjects: int, *, resamples: int, seed: int
) -> Interval:
    """Percentile 95 % interval of a statistic of weighted people.

    Args:
        statistic: maps weights ``(R, subjects)`` to values ``(R,)``; may give NaN where a resample
            leaves it undefined (no lesion drawn), and such resamples are left out.
        subjects: number of people.
        resamples: number of resamples.
        seed: of the random draws.
    """
    value = float(statistic(np.ones((1, subjects), dtype=np.int64))[0])
    if subjects < 2 or not np.isfinite(value):
        return Interval(value, None, None)
    values = statistic(resample_counts(subjects, resamples, seed))
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return Interval(value, None, None)
    low, high = np.percentile(values, [2.5, 97.5])
    return Interval(value, float(low), float(high))


def bootstrap_mean(per_subject: NDArray[np.floating], *, resamples: int, seed: int) -> Interval:
    """Mean over people, ``(subjects,)``, with its percentile 95 % interval."""

    def mean(weights: Weights) -> NDArray[np.floating]:
        return weights @ per_subject / weights.sum(axis=1)

    return bootstrap(mean, len(per_subject), resamples=resamples, seed=seed)


def halves(subjects: int, number: int, seed: int) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Random halves of people: pairs of indices ``(subjects // 2,)`` and of the others."""
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(subjects) for _ in range(number)]
    return [(np.sort(order[: subjects // 2]), np.sort(order[subjects // 2 :])) for order in orders]


def half_sampling(values: NDArray[np.floating], subjects: int) -> Interval:
    """Mean of a statistic over random halves of the people, +- 1.96 standard deviations over them.

    The variance over halves drawn without replacement estimates the variance of the whole for
    smooth statistics, and no person is counted twice.

    Args:
        values: the statistic of each half, ``(number,)``.
        subjects: number of people of both halves together.
    """
    half = subjects // 2
    value, spread = float(values.mean()), 1.96 * float(values.std(ddof=1)) * np.sqrt(half / (subjects - half))
    return Interval(value, value - spread, value + spread)


def bootstrap_groups(
    statistic: Callable[..., float],
    *groups: NDArray[np.floating],
    resamples: int,
    seed: int,
    clusters: Sequence[NDArray[np.str_] | None] | None = None,
) -> Interval:
    """Percentile 95 % interval of a statistic of several groups, each resampled on its own.

    Rows of one cluster are drawn together, in every group that has some (the cluster bootstrap; Davison and Hinkley 1997, section 3.8):
    images from the same noise are alike, so that one by one they would count as more than they are. Groups that share clusters are
    resampled as one, the others each on their own; resamples that leave a group empty are left out.

    Args:
        statistic: maps as many arrays as there are groups to a number; may give NaN where a resample leaves it undefined.
        groups: a row a person, or a person's row of paired values, ``(n, ...)``.
        resamples: number of resamples.
        seed: of the random draws.
        clusters: of each group the cluster of each row, ``(n,)``, or None where each row is one of its own.
    """
    value = float(statistic(*groups))
    codes, strata = _clusters([len(group) for group in groups], clusters or [None] * len(groups))
    if min(len(np.unique(own)) for own in codes) < 2 or not np.isfinite(value):
        return Interval(value, None, None)
    rng = np.random.default_rng(seed)
    times = np.zeros(sum(map(len, strata)), np.intp)
    drawn = []
    for _ in range(resamples):
        for together in strata:
            times[together] = np.bincount(rng.integers(0, len(together), len(together)), minlength=len(together))
        if any(not times[own].any() for own in codes):
            continue
        drawn.append(
            float(statistic(*(np.repeat(group, times[own], axis=0) for group, own in zip(groups, codes, strict=True))))
        )
    values = np.array(drawn)
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return Interval(value, None, None)
    low, high = np.percentile(values, [2.5, 97.5])
    return Interval(value, float(low), float(high))


def _clusters(
    sizes: Sequence[int], given: Sequence[NDArray[np.str_] | None]
) -> tuple[list[NDArray[np.intp]], list[NDArray[np.intp]]]:
    """The number of each row's cluster, a group at a time, and the clusters of groups that have some in common."""
    labels = [
        np.array([f"row {row:012d} of group {place}" for row in range(size)]) if own is None else own.astype(str)
        for place, (size, own) in enumerate(zip(sizes, given, strict=True))
    ]
    _, numbers = np.unique(np.concatenate(labels), return_inverse=True)
    codes = np.split(numbers, np.cumsum(sizes)[:-1])
    strata: list[NDArray[np.intp]] = []
    for own in map(np.unique, codes):
        shared = [one for one in strata if np.isin(own, one).any()]
        strata = [one for one in strata if not np.isin(own, one).any()] + [np.unique(np.concatenate([own, *shared]))]
    return codes, strata
