"""Schedules against diffusers and against their definitions."""

from __future__ import annotations

import math

import diffusers
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_lib.diffusion.schedule import log_snr_shift, make_schedule

NAMES = ["linear", "scaled_linear", "cosine", "sigmoid"]


@pytest.mark.parametrize(
    ("name", "theirs", "options"),
    [
        ("linear", "linear", {"beta_start": 1e-4, "beta_end": 0.02}),
        ("scaled_linear", "scaled_linear", {"beta_start": 0.00085, "beta_end": 0.012}),
        ("cosine", "squaredcos_cap_v2", {}),
    ],
)
@pytest.mark.parametrize("zero", [False, True])
def test_equal_to_diffusers(name: str, theirs: str, options: dict, zero: bool) -> None:
    reference = diffusers.DDIMScheduler(
        num_train_timesteps=1000, beta_schedule=theirs, rescale_betas_zero_snr=zero, **options
    )
    ours = make_schedule(name, 1000, zero_terminal_snr=zero)
    assert torch.allclose(ours.alphas_cumprod, reference.alphas_cumprod, atol=2e-6, rtol=1e-4)
    assert torch.allclose(ours.betas, reference.betas, atol=2e-6, rtol=1e-3)


def test_cosine_is_its_formula_and_float64() -> None:
    schedule = make_schedule("cosine", 50)
    abar = [math.cos((t / 50 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(51)]
    assert schedule.exact.dtype == torch.float64
    assert schedule.exact[:-1].tolist() == pytest.approx([a / abar[0] for a in abar[1:-1]], rel=1e-12)
    assert schedule.betas.dtype == schedule.alphas_cumprod.dtype == torch.float32
    assert float(schedule.betas[-1]) == pytest.approx(0.999)


def test_sigmoid_is_its_formula() -> None:
    def signal(u: float) -> float:
        return 1 / (1 + math.exp(-(3 - 6 * u))) - 1 / (1 + math.exp(3))

    schedule = make_schedule("sigmoid", 40)
    expected = [signal(t / 40) / signal(0) for t in range(1, 40)]
    assert schedule.exact[:-1].tolist() == pytest.approx(expected, rel=1e-9)


@given(name=st.sampled_from(NAMES), timesteps=st.integers(2, 2000), zero=st.booleans())
@settings(max_examples=60, deadline=None)
def test_signal_only_falls(name: str, timesteps: int, zero: bool) -> None:
    schedule = make_schedule(name, timesteps, zero_terminal_snr=zero)
    abar = schedule.exact
    assert len(abar) == schedule.timesteps == timesteps
    assert (abar[1:] < abar[:-1]).all()
    assert abar[0] < 1
    assert abar[-1] == 0 if zero else abar[-1] > 0
    assert (schedule.betas > 0).all()
    assert (schedule.betas <= 1).all()
    if zero:
        plain = make_schedule(name, timesteps).exact
        assert float(abar[0]) == pytest.approx(float(plain[0]), rel=1e-12)
    rebuilt = torch.cumprod(1 - schedule.betas.double(), 0)
    assert torch.allclose(rebuilt, abar, atol=1e-4)


@pytest.mark.parametrize("name", ["linear", "scaled_linear"])
def test_fewer_timesteps_end_at_about_the_same_signal(name: str) -> None:
    few, many = make_schedule(name, 200).exact, make_schedule(name, 1000).exact
    assert float(few[99].log()) == pytest.approx(float(many[499].log()), rel=0.05)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shift", [-4.5, -2.5, 1.0])
def test_the_log_snr_is_shifted_by_so_much_at_every_timestep(name: str, shift: float) -> None:
    plain, shifted = (make_schedule(name, 1000, shift=by).exact for by in (0.0, shift))
    assert torch.allclose(shifted.logit(), plain.logit() + shift, rtol=1e-9, atol=1e-9)


def test_a_shifted_cosine_schedule_is_hoogebooms_closed_form() -> None:
    """log SNR = -2 log tan(pi t / 2) + 2 log(64 / d), eq. 3, but for the offset of 0.008 and the largest beta."""
    d, T = 256, 1000
    shifted = make_schedule("cosine", T, shift=2 * math.log(64 / d)).exact
    for t in (100, 500, 900):
        u = ((t + 1) / T + 0.008) / 1.008
        scale = math.cos(0.008 / 1.008 * math.pi / 2) ** 2  # abar(0), by which abar is divided
        signal = math.cos(u * math.pi / 2) ** 2 / scale
        expected = math.log(signal / (1 - signal)) + 2 * math.log(64 / d)
        assert math.log(shifted[t] / (1 - shifted[t])) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_a_shifted_schedule_may_end_without_signal(name: str) -> None:
    abar = make_schedule(name, 100, zero_terminal_snr=True, shift=-3.0).exact
    assert abar[-1] == 0
    assert float(abar[0]) == pytest.approx(float(make_schedule(name, 100, shift=-3.0).exact[0]), rel=1e-12)
    assert (abar[1:] < abar[:-1]).all()


def test_the_shift_grows_with_the_number_of_voxels_from_that_of_a_slice_on() -> None:
    assert log_snr_shift((112, 96)) == log_snr_shift((128, 128)) == log_snr_shift((20, 24, 20)) == 0
    assert log_snr_shift((256, 256)) == pytest.approx(-4 / 3 * math.log(2))
    assert log_snr_shift((80, 96, 80)) == pytest.approx(-2.416, abs=1e-3)  # the measured one of volumes at 2 mm: -2.5


@pytest.mark.parametrize(
    ("name", "timesteps", "zero", "message"),
    [
        ("quadratic", 10, False, "'quadratic'; allowed: linear, scaled_linear, cosine, sigmoid"),
        ("cosine", 0, False, "timesteps is 0; at least 1"),
        ("cosine", 1, True, "timesteps is 1; at least 2"),
    ],
)
def test_bad_arguments_say_what_is_allowed(name: str, timesteps: int, zero: bool, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_schedule(name, timesteps, zero_terminal_snr=zero)
