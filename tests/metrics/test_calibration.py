"""Coverage is the level where the truth is as one of the draws."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline_lib.metrics.calibration import coverage, spread_skill

VOXELS = 40_000
MASK = np.arange(VOXELS) % 4 > 0


@pytest.mark.parametrize("draws", [2, 3, 8])
@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_a_truth_like_the_draws_is_covered_at_the_level(draws: int, level: float) -> None:
    random = np.random.default_rng(draws)
    centre, width = random.normal(size=VOXELS), random.uniform(0.1, 3, VOXELS)
    values = centre + width * random.normal(size=(draws + 1, VOXELS))
    mean, spread = values[:-1].mean(0), values[:-1].std(0, ddof=1)
    found = coverage(mean, spread, draws, values[-1], MASK, level)
    assert found == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / MASK.sum()))
    assert spread_skill(mean, spread, draws, values[-1], MASK) == pytest.approx(1, abs=0.03)
    assert spread_skill(mean, spread / 2, draws, values[-1], MASK) == pytest.approx(0.5, abs=0.02)


def test_voxels_outside_the_mask_do_not_count() -> None:
    truth = np.where(MASK, 0.0, 100.0)
    assert coverage(np.zeros(VOXELS), np.ones(VOXELS), 4, truth, MASK, 0.5) == 1
    assert coverage(np.zeros(VOXELS), np.zeros(VOXELS), 4, truth + 1, MASK, 0.95) == 0


def test_one_draw_has_no_spread() -> None:
    with pytest.raises(ValueError, match="needs 2 or more"):
        coverage(np.zeros(3), np.zeros(3), 1, np.zeros(3), np.ones(3, bool), 0.5)
