"""How well a score per pixel finds lesions.

Counts per person and score bin are kept, so that an interval over people costs one matrix product
and not a sort per resample. Area under precision-recall is the step-wise average precision, without
interpolation; area under ROC is the trapezoid (equal to the Mann-Whitney statistic with ties at a half).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

Scores = NDArray[np.floating]
Truth = NDArray[np.bool_]
Weights = NDArray[np.int64]


def average_precision(scores: Scores, truth: Truth) -> float:
    """Average precision of flat ``scores`` against ``truth``; NaN where there is no positive."""
    return float(average_precision_score(truth, scores)) if truth.any() else float("nan")


def auroc(scores: Scores, truth: Truth) -> float:
    """Area under the ROC curve; NaN where there is only one class."""
    return float(roc_auc_score(truth, scores)) if truth.any() and not truth.all() else float("nan")


def dice(prediction: Truth, truth: Truth) -> float:
    """Dice coefficient of two masks of one shape; 1 where both are empty."""
    size = int(prediction.sum()) + int(truth.sum())
    return 1.0 if size == 0 else 2 * int((prediction & truth).sum()) / size


@dataclass(frozen=True)
class Counts:
    """Pixels of each person in each score bin, bins from the highest score down.

    ``thresholds`` ``(B,)``: the lowest score of each bin; ``positives`` and ``negatives`` ``(S, B)``.
    """

    thresholds: NDArray[np.float64]
    positives: NDArray[np.int64]
    negatives: NDArray[np.int64]

    @classmethod
    def of(cls, scores: Sequence[Scores], truths: Sequence[Truth], bins: int = 4096) -> Counts:
        """Count the flat scores and truths of each person in bins that hold about as many pixels each.

        With no more distinct scores than ``bins`` every score has its own bin and all is exact.
        """
        ordered = np.unique(np.concatenate(scores).astype(np.float64))
        if len(ordered) > bins:
            # Most pixels are healthy and score low; half of the bins are spent on the lesions' scores.
            lesion = np.concatenate([s[t] for s, t in zip(scores, truths, strict=True)]).astype(np.float64)
            of_all = np.quantile(np.concatenate(scores), np.linspace(0, 1, bins // 2 + 1)).astype(np.float64)
            of_lesions = np.quantile(lesion, np.linspace(0, 1, bins // 2)) if len(lesion) else lesion
            ordered = np.unique(np.concatenate([of_all, of_lesions]))
        positives = np.zeros((len(scores), len(ordered)), dtype=np.int64)
        negatives = np.zeros_like(positives)
        for row, (score, truth) in enumerate(zip(scores, truths, strict=True)):
            place = np.clip(np.searchsorted(ordered, score, side="right") - 1, 0, None)
            positives[row] = np.bincount(place[truth], minlength=len(ordered))
            negatives[row] = np.bincount(place[~truth], minlength=len(ordered))
        return cls(ordered[::-1], positives[:, ::-1], negatives[:, ::-1])

    def found(self, weights: Weights | None = None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """True and false positives at each threshold, ``(R, B)``, of people weighted ``(R, S)``."""
        if weights is None:
            weights = np.ones((1, len(self.positives)), dtype=np.int64)
        # Float products run in BLAS and counts stay exact below 2^53.
        scaled = weights.astype(np.float64)
        true = np.cumsum(scaled @ self.positives.astype(np.float64), axis=1)
        false = np.cumsum(scaled @ self.negatives.astype(np.float64), axis=1)
        return true.astype(np.int64), false.astype(np.int64)

    def average_precision(self, weights: Weights) -> NDArray[np.float64]:
        """Average precision ``(R,)`` of people weighted ``(R, S)``; NaN without a positive."""
        true, false = self.found(weights)
        precision = true / np.maximum(true + false, 1)
        gained = np.diff(true, axis=1, prepend=0)
        total = true[:, -1].astype(np.float64)
        return (precision * gained).sum(axis=1) / np.where(total > 0, total, np.nan)

    def auroc(self, weights: Weights) -> NDArray[np.float64]:
        """Area under ROC ``(R,)`` of people weighted ``(R, S)``; NaN where one class is absent."""
        true, false = (np.concatenate([np.zeros((len(c), 1)), c], axis=1) for c in self.found(weights))
        area = np.trapezoid(true, false, axis=1)
        whole = true[:, -1] * false[:, -1]
        return area / np.where(whole > 0, whole, np.nan)

    def dice(self, weights: Weights | None = None) -> NDArray[np.float64]:
        """Dice of all pixels pooled, at each threshold, ``(R, B)``; NaN without a positive."""
        true, false = self.found(weights)
        total = true[:, -1:].astype(np.float64)
        return np.where(total > 0, 2 * true / np.maximum(true + false + total, 1), np.nan)

    def best_threshold(self) -> tuple[float, float]:
        """The threshold of the highest pooled Dice and that Dice: "score >= threshold" is a lesion.

        Of equal ones the highest threshold. NaN twice where there is no positive.
        """
        values = self.dice()[0]
        if not np.isfinite(values).any():
            return float("nan"), float("nan")
        place = int(np.argmax(values))
        return float(self.thresholds[place]), float(values[place])
