"""The closed form of the powder mean against the simulated signal's mean over many directions."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline_lib.cohort import diffusion_mri
from pipeline_lib.metrics.powder import D_FREE, D_PARALLEL, powder_mean


def test_it_is_the_mean_over_directions_of_the_simulated_signal() -> None:
    random = np.random.default_rng(0)
    maps = random.uniform(0.05, 0.95, (3, 4, 4, 4))
    spread = diffusion_mri._spread(400, None)
    for b in (1000.0, 2000.0):
        signal = diffusion_mri.simulate(maps, np.full(400, b), spread, np.random.default_rng(1))
        np.testing.assert_allclose(powder_mean(maps, b), signal.mean(-1), atol=2e-3)


def test_diffusivities_are_those_of_the_simulation() -> None:
    assert (D_PARALLEL, D_FREE) == (diffusion_mri.D_PARALLEL, diffusion_mri.D_FREE)


@pytest.mark.parametrize("odi", [0.0, 1.0])
def test_free_water_decays_as_one_exponential_and_ends_of_the_scale_are_finite(odi: float) -> None:
    maps = np.array([[0.5, 0.5], [odi, odi], [1.0, 0.0]])
    found = powder_mean(maps, 2000)
    assert found[0] == pytest.approx(np.exp(-2000 * D_FREE))
    assert 0 < found[1] < 1
