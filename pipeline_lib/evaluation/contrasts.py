"""Pairs of kinds of people that a recipe makes images of: two groups, or young and old."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

FEWEST = 4
"""People, and samples, of each kind without which the two are not compared."""
MOST = 3
"""Pairs of groups that are compared."""


@dataclass(frozen=True)
class Contrast:
    """Two kinds, by their names; ``ages`` is None for groups."""

    ones: str
    others: str
    ages: tuple[float, float] | None = None

    def kinds(self, table: pd.DataFrame) -> NDArray[np.str_]:
        """Which of the two each row is, ``(N,)``; empty where neither."""
        if self.ages is None:
            groups = table["group"].astype(str).to_numpy(dtype=str)
            return np.where(np.isin(groups, [self.ones, self.others]), groups, "")
        ages = pd.to_numeric(table["age"], errors="coerce").to_numpy(dtype=float)
        found = np.where(ages < self.ages[0], self.ones, np.where(ages >= self.ages[1], self.others, ""))
        return found.astype(str)

    def turned(self) -> Contrast:
        """The same two the other way round; only of groups."""
        return Contrast(self.others, self.ones, self.ages)


def contrasts_of(samples: pd.DataFrame, people: pd.DataFrame, ages: tuple[float, float]) -> list[Contrast]:
    """What samples were told that people of either kind are: groups, pair by pair, and young and old.

    Args:
        samples: a row a sample, as `sampling.write_samples` writes them.
        people: index of real images, of which there have to be enough people of either kind.
        ages: young are below the first, old from the second on.
    """
    return [pair for pair in told_apart(samples, ages) if enough(pair, people)]


def told_apart(samples: pd.DataFrame, ages: tuple[float, float]) -> list[Contrast]:
    """What enough samples of either kind were told, whoever there is to hold them against."""
    groups: Sequence[str] = sorted(set(samples["group"]) - {"all", ""}) if "group" in samples else []
    pairs = [Contrast(*pair) for pair in itertools.combinations(groups, 2)][:MOST]
    if "age" in samples:
        pairs.append(Contrast(f"under {ages[0]:g}", f"{ages[1]:g}+", ages))
    return [
        pair
        for pair in pairs
        if all((pair.kinds(samples) == kind).sum() >= FEWEST for kind in (pair.ones, pair.others))
    ]


def enough(pair: Contrast, people: pd.DataFrame) -> bool:
    """Whether there are people enough of both kinds."""
    known = pair.kinds(people)
    return all(people["participant"][known == kind].nunique() >= FEWEST for kind in (pair.ones, pair.others))
