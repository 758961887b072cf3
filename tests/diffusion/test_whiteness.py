"""The white-noise test: its false alarms are as rare as stated, and it sees what it should see."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from pipeline_lib.diffusion.whiteness import whiteness
from pipeline_lib.noise.simplex import SimplexNoise

SHAPES = [(4, 2, 16, 16), (2, 1, 8, 8, 8), (3, 1, 15, 9)]


def normal(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES)
def test_false_alarms_are_as_rare_as_stated(shape: tuple[int, ...]) -> None:
    alarms = sum(not whiteness(normal(shape, seed), significance=0.1).white for seed in range(300))
    assert 10 <= alarms <= 48  # 30 expected at most, standard deviation 5.2


@pytest.mark.parametrize("shape", [(64, 1, 2, 2), (12, 1, 5, 5)])
def test_p_values_of_white_noise_are_uniform(shape: tuple[int, ...]) -> None:
    """On 2 x 2 voxels every lag is its own opposite, on 5 x 5 none but 0."""
    noise = normal((1500, *shape), 4)
    found = [whiteness(field, significance=0.3) for field in noise]
    for name in ("p_mean", "p_variance", "p_autocorrelation"):
        assert stats.kstest([getattr(result, name) for result in found], "uniform").statistic < 0.05, name
    alarms = sum(not result.white for result in found) / len(found)
    assert alarms == pytest.approx(1 - 0.9**3, abs=0.04)  # three independent tests, each at a third of 0.3


@pytest.mark.parametrize("shape", SHAPES)
def test_autocorrelation_is_the_direct_sum(shape: tuple[int, ...], device: torch.device) -> None:
    noise = normal(shape, 1).to(device)
    found = whiteness(noise)
    for axis in range(2, len(shape)):
        lag = tuple(int(i == axis - 2) for i in range(len(shape) - 2))
        direct = float((noise * noise.roll(-1, axis)).sum() / noise.square().sum())
        assert float(found.autocorrelation[lag]) == pytest.approx(direct, abs=1e-6)
    assert float(found.autocorrelation.flatten()[0]) == pytest.approx(1)


def test_shift_scale_and_correlation_are_each_seen() -> None:
    noise = normal((4, 1, 32, 32), 2)
    assert whiteness(noise).white
    shifted, scaled = whiteness(noise + 0.1), whiteness(noise * 1.1)
    assert shifted.p_mean < 1e-4
    assert scaled.p_variance < 1e-4
    assert scaled.p_autocorrelation == pytest.approx(whiteness(noise).p_autocorrelation)
    smooth = whiteness((noise + noise.roll(1, -1)) / 2**0.5)
    assert smooth.p_autocorrelation < 1e-6
    assert smooth.lag in ((0, 1), (0, 31))
    assert smooth.largest == pytest.approx(0.5, abs=0.06)
    assert not any(result.white for result in (shifted, scaled, smooth))


def test_limit_is_where_the_verdict_turns() -> None:
    noise = normal((8, 1, 16, 16), 3)
    found = whiteness(noise)
    assert found.largest < found.limit
    lag = noise.roll(1, -1)
    verdicts = [whiteness(noise + share * lag) for share in torch.linspace(0, 0.2, 81).tolist()]
    turned = next(result for result in verdicts if result.p_autocorrelation < result.significance / 3)
    assert turned.largest == pytest.approx(found.limit, rel=0.05)


def test_simplex_noise_is_not_white() -> None:
    assert not whiteness(SimplexNoise()((4, 1, 32, 32), generator=torch.Generator().manual_seed(0))).white


@pytest.mark.parametrize("value", [0.0, float("inf"), float("nan")])
@pytest.mark.parametrize("shape", [(1, 1, 4, 4), (4, 1, 8, 8, 8)])
def test_nothing_and_what_is_not_finite_are_not_white(value: float, shape: tuple[int, ...]) -> None:
    found = whiteness(torch.full(shape, value))
    assert not found.white
    assert found.p_autocorrelation == 0
    noise = normal(shape, 3)
    noise[0, 0, 0, 0] = value
    assert whiteness(noise).white == (value == 0)


def test_bad_arguments_say_what_is_allowed() -> None:
    with pytest.raises(ValueError, match=r"float32 of shape \(4, 4\); real values \(N, C, \*spatial\)"):
        whiteness(torch.zeros(4, 4))
    with pytest.raises(ValueError, match=r"shape \(0, 1, 4, 4\)"):
        whiteness(torch.zeros(0, 1, 4, 4))
    with pytest.raises(ValueError, match="complex64 of shape"):
        whiteness(torch.zeros(1, 1, 4, 4, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"significance is 1\.5"):
        whiteness(torch.zeros(1, 1, 4, 4), 1.5)
    with pytest.raises(ValueError, match="at least two voxels"):
        whiteness(torch.ones(1, 1, 1, 1))
