"""Volumes of a structure in two sets of people, or of images: how far apart the sets are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

Values = NDArray[np.floating]


def hedges_g(difference: float, spreads: tuple[float, float], counts: tuple[int, int]) -> float:
    """Difference of the means of two unpaired sets in pooled standard deviations, corrected for small sets.

    Hedges 1981, doi:10.3102/10769986006002107, with the approximate correction 1 - 3 / (4 N - 9). NaN where nothing varies.

    Args:
        spreads: standard deviation of each set, with n - 1.
        counts: of each set.
    """
    freedom = sum(counts) - 2
    if freedom < 1:
        return float("nan")
    pooled = sum((n - 1) * s**2 for n, s in zip(counts, spreads, strict=True)) / freedom
    return difference / float(np.sqrt(pooled)) * (1 - 3 / (4 * freedom - 1)) if pooled > 0 else float("nan")


def paired_effect(differences: Values) -> float:
    """Mean of paired differences ``(n,)`` in their standard deviations (Cohen's d_z). NaN where they do not vary."""
    over = spread(differences)
    return float(differences.mean()) / over if over > 0 else float("nan")


def spread(values: Values) -> float:
    """Standard deviation of a set ``(n,)``, with n - 1; NaN for fewer than two."""
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")


def slope(over: Values, values: Values) -> float:
    """Least-squares slope of ``values`` over ``over``, each ``(n,)``; NaN where that does not vary."""
    around = over - over.mean()
    squares = float((around**2).sum())
    return float((around * values).sum()) / squares if squares > 0 else float("nan")


def residuals(over: Values, values: Values) -> Values:
    """What a straight line of ``values`` over ``over`` leaves, ``(n,)``; of a constant ``over``, deviations from the mean."""
    rise = slope(over, values)
    return values - values.mean() - (rise if np.isfinite(rise) else 0.0) * (over - over.mean())


def wasserstein(ones: Values, others: Values) -> float:
    """Earth mover's distance between the distributions of two sets, in their unit (WASABI compares regional volumes so)."""
    return float(wasserstein_distance(ones, others))
