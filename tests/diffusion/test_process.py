"""The forward process and its conversions against algebra, autograd, diffusers and simulation."""

from __future__ import annotations

import diffusers
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_lib.diffusion.process import DiffusionProcess, make_process
from pipeline_lib.diffusion.schedule import make_schedule

PREDICTIONS = ["eps", "v", "x0"]
SHAPES = [(4, 2, 5, 7), (4, 1, 3, 5, 4), (1, 1, 4, 4)]


def process(
    prediction: str = "eps", name: str = "cosine", timesteps: int = 100, zero: bool = False
) -> DiffusionProcess:
    return DiffusionProcess(make_schedule(name, timesteps, zero_terminal_snr=zero), prediction)


def batch(shape: tuple[int, ...], timesteps: int = 100, dtype: torch.dtype = torch.float64, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    x0, noise = (torch.randn(shape, generator=generator, dtype=dtype) for _ in range(2))
    return x0, noise, torch.randint(timesteps, shape[:1], generator=generator)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_true_target_gives_back_sample_and_noise(shape: tuple[int, ...], prediction: str) -> None:
    x0, noise, t = batch(shape, 99)
    diffusion = process(prediction)
    xt = diffusion.forward_diffusion(x0, noise, t)
    target = diffusion.target(x0, noise, t)
    assert torch.allclose(diffusion.to_x0(xt, target, t), x0, atol=1e-9)
    assert torch.allclose(diffusion.reconstruct(xt, target, t), x0, atol=1e-9)
    assert torch.allclose(diffusion.to_eps(xt, target, t), noise, atol=1e-9)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@given(t=st.integers(0, 99), name=st.sampled_from(["linear", "cosine", "sigmoid"]), zero=st.booleans())
@settings(max_examples=40, deadline=None)
def test_conversions_lose_nothing_at_any_timestep(prediction: str, t: int, name: str, zero: bool) -> None:
    x0, noise, _ = batch((2, 1, 3, 3))
    diffusion = process(prediction, name, zero=zero and prediction != "eps")
    time = torch.tensor([t, 99 - t])
    xt = diffusion.forward_diffusion(x0, noise, time)
    target = diffusion.target(x0, noise, time)
    tolerance = 1e-12 if prediction == "v" else 1e-10  # eps and x0 are divided by what may be small
    assert torch.allclose(diffusion.to_x0(xt, target, time), x0, atol=tolerance)
    assert torch.allclose(diffusion.to_eps(xt, target, time), noise, atol=tolerance)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("step", [0, 30, 98])
def test_targets_and_conversions_are_derivatives(prediction: str, step: int) -> None:
    """By autograd: v is dx / dphi along x = cos(phi) x0 + sin(phi) eps (Salimans and Ho, app. D); eps and x0 follow
    from the score of q(x_t | x0), by its definition and by Tweedie's formula."""
    x0, noise, _ = batch((1, 1, 4, 4))
    diffusion, t = process(prediction), torch.tensor([step])
    phi = torch.acos(diffusion.schedule.exact[step].sqrt())
    xt, v = torch.func.jvp(lambda p: p.cos() * x0 + p.sin() * noise, (phi,), (torch.ones_like(phi),))
    score = torch.func.grad(lambda x: torch.distributions.Normal(phi.cos() * x0, phi.sin()).log_prob(x).sum())(xt)
    output = {"v": v, "eps": -phi.sin() * score, "x0": (xt + phi.sin() ** 2 * score) / phi.cos()}[prediction]
    assert torch.allclose(diffusion.target(x0, noise, t), output, atol=1e-9)
    assert torch.allclose(diffusion.to_x0(xt, output, t), x0, atol=1e-9)
    assert torch.allclose(diffusion.to_eps(xt, output, t), noise, atol=1e-9)


def test_each_sample_has_its_own_timestep() -> None:
    x0, noise, t = batch((4, 2, 5, 7))
    diffusion = process("v")
    together = diffusion.forward_diffusion(x0, noise, t)
    alone = [diffusion.forward_diffusion(x0[i : i + 1], noise[i : i + 1], t[i : i + 1]) for i in range(4)]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_equal_to_diffusers(prediction: str) -> None:
    reference = diffusers.DDPMScheduler(
        num_train_timesteps=1000,
        beta_schedule="linear",
        prediction_type={"eps": "epsilon", "v": "v_prediction", "x0": "sample"}[prediction],
        clip_sample=False,
    )
    diffusion = process(prediction, "linear", 1000)
    x0, noise, _ = batch((3, 1, 6, 6), dtype=torch.float32)
    t = torch.tensor([5, 400, 950])
    xt = diffusion.forward_diffusion(x0, noise, t)
    assert torch.allclose(xt, reference.add_noise(x0, noise, t), atol=2e-5)
    process_v = process("v", "linear", 1000)
    assert torch.allclose(process_v.target(x0, noise, t), reference.get_velocity(x0, noise, t), atol=2e-5)
    for i, step in enumerate(t.tolist()):
        generator = torch.Generator().manual_seed(1)
        theirs = reference.step(noise[i : i + 1], step, xt[i : i + 1], generator=generator)
        z = torch.randn(xt[:1].shape, generator=torch.Generator().manual_seed(1))
        ours = diffusion.reverse_timestep(xt[i : i + 1], noise[i : i + 1], t[i : i + 1], z)
        assert torch.allclose(ours, theirs.prev_sample, atol=2e-4)
        predicted = diffusion.reconstruct(xt[i : i + 1], noise[i : i + 1], t[i : i + 1])
        assert torch.allclose(predicted, theirs.pred_original_sample, rtol=1e-3, atol=2e-4)


def test_a_step_back_from_the_truth_has_the_forward_distribution() -> None:
    """x_{t-1} drawn from the posterior at the true x0 is distributed as the forward process at t - 1."""
    diffusion = process("x0", "linear", 50)
    x0 = torch.full((40_000, 1, 1, 1), 0.7, dtype=torch.float64)
    generator = torch.Generator().manual_seed(3)
    for step in (1, 25, 49):
        t = torch.full((len(x0),), step)
        noise = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
        xt = diffusion.forward_diffusion(x0, noise, t)
        before = diffusion.reverse_timestep(xt, x0, t, generator=generator)
        abar = diffusion.abar(step - 1)
        assert float(before.mean()) == pytest.approx(0.7 * abar**0.5, abs=0.02)
        assert float(before.var()) == pytest.approx(1 - abar, rel=0.03)


def test_no_noise_is_added_at_the_first_timestep() -> None:
    diffusion = process("x0")
    x0, noise, _ = batch((2, 1, 3, 3))
    t = torch.tensor([0, 1])
    xt = diffusion.forward_diffusion(x0, noise, t)
    one, other = (diffusion.reverse_timestep(xt, x0, t, z) for z in (noise, noise + 1))
    assert torch.equal(one[0], other[0])
    assert torch.allclose(one[0], x0[0])
    assert not torch.equal(one[1], other[1])


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_min_snr_weights_the_x0_error(prediction: str) -> None:
    """weight * loss on the prediction equals min(SNR, gamma) * loss on x0, at the same x_t."""
    diffusion = process(prediction, "linear")
    t = torch.tensor([0, 20, 60, 99])
    x0, noise, _ = batch((4, 1, 3, 3))
    xt = diffusion.forward_diffusion(x0, noise, t)
    output = diffusion.target(x0, noise, t) + 0.1
    own = (output - diffusion.target(x0, noise, t)).square().flatten(1).mean(1)
    on_x0 = (diffusion.to_x0(xt, output, t) - x0).square().flatten(1).mean(1)
    abar = diffusion.schedule.exact[t]
    expected = (abar / (1 - abar)).clamp(max=5.0) * on_x0
    assert torch.allclose(diffusion.loss_weight(t, "min_snr", 5.0) * own, expected, rtol=1e-5)
    assert torch.equal(diffusion.loss_weight(t), torch.ones(4))


def test_weighted_as_v_the_x0_loss_is_the_v_loss_until_the_cap() -> None:
    """1 / (1 - abar) on the x0 error is the v error: both of one x_t, the outputs standing for the same x0."""
    clean, velocity = process("x0"), process("v")
    t = torch.tensor([5, 20, 60, 99])
    x0, noise, _ = batch((4, 1, 3, 3))
    xt, guess = clean.forward_diffusion(x0, noise, t), x0 + 0.1
    signal, sigma = clean._coefficients(x0, t)
    as_v = (signal * xt - guess) / sigma  # the v whose x0 is the guess
    assert torch.allclose(velocity.to_x0(xt, as_v, t), guess, atol=1e-5)
    on_x0, on_v = (
        (output - target).square().flatten(1).mean(1)
        for output, target in ((guess, x0), (as_v, velocity.target(x0, noise, t)))
    )
    assert torch.allclose(clean.loss_weight(t, "v", 1e9) * on_x0, on_v, rtol=1e-3)
    assert torch.equal(velocity.loss_weight(t, "v", 1e9), torch.ones(4))
    assert clean.loss_weight(torch.tensor([0, 99]), "v").tolist() == pytest.approx([20, 1], abs=1e-3)


def test_weights_that_mean_nothing_are_refused() -> None:
    t = torch.tensor([3])
    with pytest.raises(ValueError, match="v with prediction eps is unbounded"):
        process("eps").loss_weight(t, "v")
    with pytest.raises(ValueError, match="min_snr with zero_terminal_snr is 0 where sampling starts"):
        process("v", zero=True).loss_weight(t, "min_snr", 5)
    with pytest.raises(ValueError, match="'snr'; allowed: none, v, min_snr"):
        process("v").loss_weight(t, "snr")


def test_a_process_from_plain_values_is_its_schedule_and_prediction() -> None:
    made = make_process("linear", 50, "v", zero_terminal_snr=True, shift=-2.0)
    assert made.prediction == "v"
    assert torch.equal(made.schedule.exact, make_schedule("linear", 50, zero_terminal_snr=True, shift=-2.0).exact)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_sample_keeps_its_dtype_and_coefficients_are_not_rounded_to_it(dtype: torch.dtype) -> None:
    diffusion = process("v", "linear", 1000)
    t = torch.tensor([0])
    x0, noise = torch.zeros((1, 1, 2, 2), dtype=dtype), torch.ones((1, 1, 2, 2), dtype=dtype)
    xt = diffusion.forward_diffusion(x0, noise, t)
    assert xt.dtype == diffusion.to_x0(xt, noise, t).dtype == diffusion.reverse_timestep(xt, noise, t).dtype == dtype
    expected = torch.full((1, 1, 2, 2), 0.01, dtype=dtype)  # sqrt(1 - abar_0), beta_0 = 1e-4; 0 if abar were rounded
    assert torch.allclose(xt, expected, rtol=1e-2 if dtype == torch.bfloat16 else 1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("step", [300, 500, 700])
def test_in_the_middle_of_the_schedule_too(dtype: torch.dtype, step: int) -> None:
    diffusion, t = process("v", "linear", 1000), torch.tensor([step])
    x0, noise, _ = batch((1, 1, 40, 40), dtype=dtype)
    abar = diffusion.schedule.exact[step]
    for found, exact in (
        (diffusion.forward_diffusion(x0, noise, t), abar.sqrt() * x0.double() + (1 - abar).sqrt() * noise.double()),
        (diffusion.target(x0, noise, t), abar.sqrt() * noise.double() - (1 - abar).sqrt() * x0.double()),
    ):
        if dtype == torch.float64:
            assert torch.allclose(found, exact, rtol=0, atol=1e-14)
        assert (found == exact.to(dtype)).double().mean() > 0.99  # rounded once, at the end


def test_a_step_back_draws_from_its_generator() -> None:
    diffusion = process("x0")
    x0, noise, t = batch((4, 2, 5, 7))
    one, same, other = (
        diffusion.reverse_timestep(noise, x0, t, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    drawn = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1), dtype=x0.dtype)
    assert torch.equal(one, diffusion.reverse_timestep(noise, x0, t, drawn))


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_same_on_every_device(prediction: str, device: torch.device) -> None:
    diffusion = process(prediction)
    x0, noise, t = batch((4, 2, 5, 7), 99)
    there = [value.to(device) for value in (x0.float(), noise.float(), t)]
    for method in ("forward_diffusion", "target", "to_x0", "to_eps"):
        found = getattr(diffusion, method)(*there)
        assert found.device.type == device.type
        assert torch.allclose(found.cpu().double(), getattr(diffusion, method)(x0, noise, t), rtol=1e-4, atol=1e-4)
    found = diffusion.reverse_timestep(*there, generator=torch.Generator().manual_seed(1))
    drawn = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1))
    expected = diffusion.reverse_timestep(x0, noise, t, drawn.double())
    assert torch.allclose(found.cpu().double(), expected, rtol=1e-4, atol=1e-4)
    assert torch.allclose(
        diffusion.loss_weight(there[2], "min_snr", 5.0).cpu(), diffusion.loss_weight(t, "min_snr", 5.0)
    )


def test_zero_terminal_snr_ends_in_pure_noise() -> None:
    diffusion = process("v", zero=True)
    x0, noise, _ = batch((1, 1, 3, 3))
    assert torch.equal(diffusion.forward_diffusion(x0, noise, torch.tensor([99])), noise)


@pytest.mark.parametrize(
    "method", ["forward_diffusion", "target", "to_x0", "to_eps", "reconstruct", "reverse_timestep"]
)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize(
    ("t", "message"),
    [
        (torch.tensor([0, 100]), r"\[0, 100\]; allowed: 0 to 99"),
        (torch.tensor([-1, 5]), r"\[-1, 5\]; allowed: 0 to 99"),
        (torch.tensor(5), r"t has shape \(\); one timestep a sample"),
        (torch.tensor([5]), r"t has shape \(1,\); one timestep a sample is needed, \(2,\)"),
        (torch.tensor([5.0, 6.0]), "dtype torch.float32; timesteps are integers"),
        (torch.tensor([True, False]), "dtype torch.bool; timesteps are integers"),
        (torch.tensor([5, 6], dtype=torch.int16), "dtype torch.int16; timesteps are integers, int64 or int32"),
    ],
)
def test_bad_timesteps_are_refused_whatever_is_predicted(
    method: str, prediction: str, t: torch.Tensor, message: str
) -> None:
    x0, noise, _ = batch((2, 1, 3, 3))
    with pytest.raises(ValueError, match=message):
        getattr(process(prediction), method)(x0, noise, t)


@pytest.mark.parametrize("kind", ["none", "min_snr"])
@pytest.mark.parametrize("t", [torch.tensor([500]), torch.tensor([-1, 5]), torch.tensor(5), torch.tensor([True])])
def test_bad_timesteps_have_no_weight(kind: str, t: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="allowed: 0 to 99|one timestep a sample|timesteps are integers"):
        process().loss_weight(t, kind)


def test_bad_arguments_say_what_is_allowed() -> None:
    x0, noise, t = batch((2, 1, 3, 3))
    diffusion = process()
    with pytest.raises(ValueError, match=r"noise has shape \(1, 1, 3, 3\)"):
        diffusion.forward_diffusion(x0, noise[:1], t)
    with pytest.raises(ValueError, match="'score'; allowed: eps, v, x0"):
        process("score")
    with pytest.raises(ValueError, match="zero terminal SNR"):
        process("eps", zero=True)
    with pytest.raises(ValueError, match="cap of the loss weight is 0"):
        diffusion.loss_weight(t, "min_snr", 0)
    with pytest.raises(ValueError, match="t is 100"):
        diffusion.abar(100)
