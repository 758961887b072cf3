"""Detection measures equal scikit-learn's, exactly or through counts, and thresholds are where they should be."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from pipeline_lib.metrics.detection import Counts, auroc, average_precision, dice

ONES = np.ones((1, 6), dtype=np.int64)


def people(levels: int | None, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Scores and truths of six people; with ``levels`` scores are rounded, so that there are ties."""
    rng = np.random.default_rng(seed)
    truths = [rng.random(4000) < 0.05 for _ in range(6)]
    scores = [rng.normal(truth * 1.5, 1).astype(np.float32) for truth in truths]
    return [np.round(s * levels) / levels if levels else s for s in scores], truths


@pytest.mark.parametrize("levels", [None, 20])
def test_equal_to_scikit_learn(levels: int | None) -> None:
    scores, truths = people(levels)
    flat, truth = np.concatenate(scores), np.concatenate(truths)
    counts = Counts.of(scores, truths)
    ap, auc = average_precision_score(truth, flat), roc_auc_score(truth, flat)
    assert average_precision(flat, truth) == pytest.approx(ap)
    assert auroc(flat, truth) == pytest.approx(auc)
    assert counts.average_precision(ONES)[0] == pytest.approx(ap, abs=1e-9 if levels else 2e-3)
    assert counts.auroc(ONES)[0] == pytest.approx(auc, abs=1e-9 if levels else 1e-3)


def test_weighted_people_equal_repeated_people() -> None:
    scores, truths = people(20)
    weights = np.array([[0, 2, 1, 0, 3, 0]])
    repeated = [n for n, times in enumerate(weights[0]) for _ in range(times)]
    flat, truth = (np.concatenate([part[n] for n in repeated]) for part in (scores, truths))
    counts = Counts.of(scores, truths)
    assert counts.average_precision(weights)[0] == pytest.approx(average_precision_score(truth, flat))
    assert counts.auroc(weights)[0] == pytest.approx(roc_auc_score(truth, flat))


def test_best_dice_is_the_best_over_all_thresholds() -> None:
    scores, truths = people(20)
    flat, truth = np.concatenate(scores), np.concatenate(truths)
    threshold, value = Counts.of(scores, truths).best_threshold()
    every = [f1_score(truth, flat >= candidate) for candidate in np.unique(flat)]
    assert value == pytest.approx(max(every))
    assert f1_score(truth, flat >= threshold) == pytest.approx(value)


def test_perfect_and_useless_maps() -> None:
    truth = np.arange(1000) < 100
    assert average_precision(truth.astype(float), truth) == 1
    assert average_precision(np.zeros(1000), truth) == pytest.approx(0.1)
    assert auroc(np.zeros(1000), truth) == pytest.approx(0.5)
    threshold, value = Counts.of([truth * 2.0], [truth]).best_threshold()
    assert (threshold, value) == (2, 1)


def test_without_a_lesion_nothing_is_made_up() -> None:
    counts = Counts.of([np.arange(5.0)], [np.zeros(5, dtype=bool)])
    assert np.isnan(counts.best_threshold()).all()
    assert np.isnan(counts.average_precision(np.ones((1, 1), dtype=np.int64))).all()
    assert np.isnan(average_precision(np.arange(5.0), np.zeros(5, dtype=bool)))


def test_dice_of_known_masks() -> None:
    a = np.array([1, 1, 0, 0], dtype=bool)
    b = np.array([1, 0, 1, 0], dtype=bool)
    assert dice(a, b) == 0.5
    assert dice(a, a) == 1
    assert dice(a, ~a) == 0
    assert dice(a & ~a, a & ~a) == 1
