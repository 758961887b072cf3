"""Whether the spread of draws says how far their mean is from the truth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.floating]
Mask = NDArray[np.bool_]


def coverage(mean: Array, spread: Array, draws: int, truth: Array, mask: Mask, level: float) -> float:
    """Share of voxels inside the mask whose true value lies in the interval of ``level`` about the mean of the draws.

    The interval is that of one normal draw more (Student's t): mean +- t sqrt(1 + 1 / draws) spread. Where the truth is
    as one of the draws, the share is the level, however few draws there are.

    Args:
        mean, truth: ``(*spatial)``.
        spread: standard deviation of the draws, with draws - 1 in the denominator.
        draws: how many, at least 2.
        level: from 0 to 1.
    """
    if draws < 2:
        raise ValueError(f"draws is {draws}; a spread needs 2 or more")
    reach = float(stats.t.ppf((1 + level) / 2, draws - 1)) * np.sqrt(1 + 1 / draws)
    return float((np.abs(truth - mean)[mask] <= reach * spread[mask]).mean())


def spread_skill(mean: Array, spread: Array, draws: int, truth: Array, mask: Mask) -> float:
    """Spread of the draws over the error of their mean, root mean squares inside the mask (Fortin et al., 2014).

    1 where the truth is as one of the draws; below, they are too sure.
    """
    error = np.square((truth - mean)[mask].astype(np.float64)).mean()
    expected = np.square(spread[mask].astype(np.float64)).mean() * (1 + 1 / draws)
    return float(np.sqrt(expected / error)) if error else float("nan")
