"""Samplers against a mixture whose ideal denoiser is known, and against diffusers step by step.

A mixture of two narrow modes of unequal share sees what a single Gaussian does not: a wrong order of steps, a wrong
stride, or noise of the wrong size moves the shares or the widths of the modes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import diffusers
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline_lib.diffusion.process import DiffusionProcess
from pipeline_lib.diffusion.samplers import (
    Progress,
    ddim,
    ddim_invert,
    ddpm,
    dpm_solver_pp,
    inpaint,
    timestep_pairs,
)
from pipeline_lib.diffusion.schedule import make_schedule

MEANS, WIDTH, SHARES = (-1.0, 0.5), 0.1, (0.3, 0.7)


def ideal(process: DiffusionProcess) -> Callable[[Tensor, Tensor], Tensor]:
    """The network that is right everywhere: E[target | x_t] for independent voxels of the two-mode mixture."""

    def model(x: Tensor, t: Tensor) -> Tensor:
        abar = process.schedule.exact[t].to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        signal, variance = abar.sqrt(), abar * WIDTH**2 + 1 - abar
        means = torch.tensor(MEANS, dtype=x.dtype)
        d = x[..., None] - signal[..., None] * means
        weights = torch.softmax(torch.tensor(SHARES, dtype=x.dtype).log() - d.square() / (2 * variance[..., None]), -1)
        modes = means + (signal * WIDTH**2 / variance)[..., None] * d
        x0 = (weights * modes).sum(-1)
        if process.prediction == "x0":
            return x0
        eps = (x - signal * x0) / (1 - abar).sqrt()
        return eps if process.prediction == "eps" else signal * eps - (1 - abar).sqrt() * x0

    return model


def check_mixture(x: Tensor, shares: float, means: float, widths: float) -> None:
    values = x.flatten()
    upper = values > sum(MEANS) / 2
    assert float(upper.double().mean()) == pytest.approx(SHARES[1], abs=shares)
    for mode, mean in ((values[~upper], MEANS[0]), (values[upper], MEANS[1])):
        assert float(mode.mean()) == pytest.approx(mean, abs=means)
        assert float(mode.std()) == pytest.approx(WIDTH, rel=widths)


def start(shape: tuple[int, ...] = (10, 1, 50, 40), seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mixture(shape: tuple[int, ...], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    upper = torch.rand(shape, generator=generator) < SHARES[1]
    spread = torch.randn(shape, generator=generator, dtype=torch.float64)
    return torch.where(upper, MEANS[1], MEANS[0]) + WIDTH * spread


SAMPLERS = [
    pytest.param(ddpm, {}, 250, id="ddpm"),
    pytest.param(ddim, {"eta": 0.0}, 250, id="ddim"),
    pytest.param(ddim, {"eta": 0.5}, 250, id="ddim eta 0.5"),
    pytest.param(ddim, {"eta": 1.0}, 250, id="ddim eta 1"),
    pytest.param(dpm_solver_pp, {}, 60, id="dpm solver"),
]


@pytest.mark.parametrize(("sampler", "options", "steps"), SAMPLERS)
@pytest.mark.parametrize(("prediction", "zero"), [("eps", False), ("v", True), ("x0", True)])
def test_the_mixture_comes_out(sampler: Callable, options: dict, steps: int, prediction: str, zero: bool) -> None:
    process = DiffusionProcess(make_schedule("cosine", 1000, zero_terminal_snr=zero), prediction)
    generator = torch.Generator().manual_seed(1)
    x = sampler(ideal(process), start(), timestep_pairs(1000, steps), process, generator=generator, **options)
    check_mixture(x, shares=0.015, means=0.01, widths=0.12)


@pytest.mark.parametrize("shape", [(8, 1, 25, 100), (8, 1, 10, 10, 25)])
@pytest.mark.parametrize("sampler", [ddpm, ddim, dpm_solver_pp])
def test_the_same_in_two_and_three_dimensions(sampler: Callable, shape: tuple[int, ...]) -> None:
    process = DiffusionProcess(make_schedule("cosine", 200), "v")
    x = sampler(ideal(process), start(shape), timestep_pairs(200, 100), process, generator=torch.Generator())
    assert x.shape == shape
    check_mixture(x, shares=0.02, means=0.02, widths=0.25)


@pytest.mark.parametrize("sampler", [ddpm, ddim, dpm_solver_pp])
def test_from_a_partly_noised_sample(sampler: Callable) -> None:
    """As the anomaly recipe does it: noise real samples at t, then clean them from there."""
    process = DiffusionProcess(make_schedule("cosine", 1000), "eps")
    generator, x0 = torch.Generator().manual_seed(2), mixture(start().shape, 3)
    xt = process.forward_diffusion(x0, start(seed=4), torch.full((10,), 249))
    x = sampler(ideal(process), xt, timestep_pairs(1000, 125, start=250), process, generator=generator)
    check_mixture(x, shares=0.01, means=0.01, widths=0.1)
    assert float(((x > -0.25) == (x0 > -0.25)).double().mean()) > 0.9  # a quarter of the way keeps most modes


def test_dpm_solver_needs_fewer_steps_than_ddim() -> None:
    process = DiffusionProcess(make_schedule("cosine", 1000), "v")
    exact = ddim(ideal(process), start(), timestep_pairs(1000, 1000), process)
    error = {
        sampler: float((sampler(ideal(process), start(), timestep_pairs(1000, 50), process) - exact).abs().mean())
        for sampler in (ddim, dpm_solver_pp)
    }
    assert error[dpm_solver_pp] < 0.5 * error[ddim]


@pytest.mark.parametrize(("sampler", "order"), [(ddim, 1), (dpm_solver_pp, 2)])
def test_order_of_convergence_to_the_exact_flow(sampler: Callable, order: int) -> None:
    """For one Gaussian mode the flow has a closed form: a sample keeps its distance to the mean in standard
    deviations. A method of order p is 2^p times better with twice the steps; 3.3 and 1.6 are asked for."""
    process, mean, width = DiffusionProcess(make_schedule("linear", 1000), "x0"), 0.4, 0.3

    def moments(t: int) -> tuple[float, float]:
        abar = process.abar(t)
        return math.sqrt(abar) * mean, math.sqrt(abar * width**2 + 1 - abar)

    def model(x: Tensor, t: Tensor) -> Tensor:
        abar, (centre, spread) = process.abar(int(t[0])), moments(int(t[0]))
        return mean + math.sqrt(abar) * width**2 / spread**2 * (x - centre)

    distance = start((1, 1, 10, 10))
    (first, wide), (last, narrow) = moments(900), moments(100)
    errors = []
    for stride in (40, 20, 10, 5):
        pairs = [(t, t - stride) for t in range(900, 100, -stride)]
        x = sampler(model, first + wide * distance, pairs, process)
        errors.append(float((x - last - narrow * distance).abs().mean()))
    assert all(coarse / fine > {1: 1.6, 2: 3.3}[order] for coarse, fine in pairwise(errors)), errors


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_ddim_with_all_noise_is_ddpm(prediction: str) -> None:
    process = DiffusionProcess(make_schedule("cosine", 1000), prediction)
    ancestral, implicit = (
        sampler(
            ideal(process), start((2, 1, 6, 6)), timestep_pairs(1000, 30), process, eta=1.0,
            generator=torch.Generator().manual_seed(12),
        )
        for sampler in (ddpm, ddim)
    )  # fmt: skip
    assert (ancestral - implicit).abs().max() < 1e-10


def linear_model(process: DiffusionProcess) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, t: 0.6 * x.roll(1, -1) - 0.1 * (t.reshape(-1, 1, 1, 1) / process.timesteps) + 0.05


THEIRS = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
@pytest.mark.parametrize(("steps", "clip"), [(10, False), (25, True)])
@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_ddim_equals_diffusers_step_by_step(prediction: str, steps: int, clip: bool, eta: float) -> None:
    reference = diffusers.DDIMScheduler(
        beta_schedule="linear", prediction_type=THEIRS[prediction], clip_sample=clip, timestep_spacing="trailing"
    )
    reference.set_timesteps(steps)
    process = DiffusionProcess(make_schedule("linear", 1000), prediction)
    model, x = linear_model(process), start((2, 1, 6, 6)).float()
    seen: list[Progress] = []
    pairs = timestep_pairs(1000, steps)
    ddim(model, x, pairs, process, eta=eta, clip=clip, generator=torch.Generator().manual_seed(5), callback=seen.append)
    assert [t for t, _ in pairs] == reference.timesteps.tolist()
    generator, theirs = torch.Generator().manual_seed(5), x
    for progress in seen:
        time = torch.full((2,), progress.t)
        step = reference.step(
            model(theirs, time), progress.t, theirs, eta=eta, use_clipped_model_output=clip, generator=generator
        )
        theirs = step.prev_sample
        if progress.s == -1 and eta == 0:
            assert torch.allclose(progress.x, progress.x0, atol=1e-5)
        if progress.s == -1:
            continue  # diffusers ends at abar_0 or 1, by an option; here the end is always clean
        assert torch.allclose(progress.x, theirs, rtol=1e-4, atol=1e-4)
        assert torch.allclose(progress.x0, step.pred_original_sample, rtol=1e-3, atol=1e-3)


def test_ddpm_equals_diffusers_step_by_step() -> None:
    """Unstrided: with strides diffusers' posterior is right as well, its noise in the last step is not compared."""
    reference = diffusers.DDPMScheduler(num_train_timesteps=60, beta_schedule="squaredcos_cap_v2", clip_sample=True)
    reference.set_timesteps(60)
    process = DiffusionProcess(make_schedule("cosine", 60), "eps")
    model, x = linear_model(process), start((2, 1, 6, 6)).float()
    seen: list[Progress] = []
    ddpm(
        model, x, timestep_pairs(60, 60), process, clip=True, generator=torch.Generator().manual_seed(6),
        callback=seen.append,
    )  # fmt: skip
    generator, theirs = torch.Generator().manual_seed(6), x
    for progress in seen:
        theirs = reference.step(
            model(theirs, torch.full((2,), progress.t)), progress.t, theirs, generator=generator
        ).prev_sample
        assert torch.allclose(progress.x, theirs, rtol=1e-4, atol=1e-4)


def test_ddpm_with_strides_equals_diffusers() -> None:
    reference = diffusers.DDPMScheduler(beta_schedule="linear", clip_sample=False, timestep_spacing="trailing")
    reference.set_timesteps(20)
    process = DiffusionProcess(make_schedule("linear", 1000), "eps")
    model, x = linear_model(process), start((2, 1, 6, 6)).float()
    seen: list[Progress] = []
    ddpm(model, x, timestep_pairs(1000, 20), process, generator=torch.Generator().manual_seed(7), callback=seen.append)
    generator, theirs = torch.Generator().manual_seed(7), x
    for progress in seen[:-1]:
        theirs = reference.step(
            model(theirs, torch.full((2,), progress.t)), progress.t, theirs, generator=generator
        ).prev_sample
        assert torch.allclose(progress.x, theirs, rtol=1e-3, atol=1e-3)


def test_dpm_solver_equals_diffusers_step_by_step() -> None:
    reference = diffusers.DPMSolverMultistepScheduler(
        beta_schedule="linear", prediction_type="v_prediction", timestep_spacing="trailing", solver_order=2
    )
    reference.set_timesteps(20)
    process = DiffusionProcess(make_schedule("linear", 1000), "v")
    model, x = linear_model(process), start((2, 1, 6, 6)).float()
    seen: list[Progress] = []
    pairs = timestep_pairs(1000, 20)
    assert [t for t, _ in pairs] == reference.timesteps.tolist()
    dpm_solver_pp(model, x, pairs, process, callback=seen.append)
    theirs = x
    for progress in seen:
        theirs = reference.step(model(theirs, torch.full((2,), progress.t)), progress.t, theirs).prev_sample
        assert torch.allclose(progress.x, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("sampler", [ddpm, ddim, dpm_solver_pp])
def test_one_step_is_the_one_shot_estimate(sampler: Callable) -> None:
    process = DiffusionProcess(make_schedule("cosine", 100), "v")
    x, t = start((2, 1, 4, 4)), torch.full((2,), 99)
    assert torch.allclose(
        sampler(ideal(process), x, [(99, -1)], process), process.reconstruct(x, ideal(process)(x, t), t), atol=1e-9
    )


@given(data=st.data(), timesteps=st.integers(1, 1000))
@settings(max_examples=100, deadline=None)
def test_pairs_form_a_chain_to_the_clean_sample(data: st.DataObject, timesteps: int) -> None:
    begin = data.draw(st.integers(1, timesteps))
    steps = data.draw(st.integers(1, begin))
    pairs = timestep_pairs(timesteps, steps, begin)
    assert len(pairs) == steps
    assert pairs[0][0] == begin - 1
    assert pairs[-1][1] == -1
    assert all(t > s for t, s in pairs)
    assert all(s == t for (_, s), (t, _) in pairwise(pairs))


def test_pairs_of_skip_ten() -> None:
    pairs = timestep_pairs(1000, 100)
    assert pairs[:2] == [(999, 989), (989, 979)]
    assert pairs[-1] == (9, -1)
    # 1000 / 300 is no integer: trailing, the last timestep is always used
    assert timestep_pairs(10, 3) == [(9, 6), (6, 2), (2, -1)]


def test_inversion_and_sampling_are_a_round_trip() -> None:
    process = DiffusionProcess(make_schedule("cosine", 1000), "v")
    pairs, model = timestep_pairs(1000, 100), ideal(process)
    x = mixture((2, 1, 10, 10), 11)
    error = [
        float((ddim(model, ddim_invert(model, x, pairs, process, corrections=n), pairs, process) - x).abs().mean())
        for n in (0, 1, 30)
    ]
    assert error[0] < 0.02
    assert error[1] < 0.2 * error[0]
    assert error[2] < 1e-4


@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("steps", [3, 10])
def test_inversion_is_exact_where_noise_prevails(zero: bool, steps: int) -> None:
    """Of standard normal data v is 0 whatever the noise; the first of few pairs ends far above the noise."""
    process, pairs = (
        DiffusionProcess(make_schedule("cosine", 1000, zero_terminal_snr=zero), "v"),
        timestep_pairs(1000, steps),
    )
    x = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    noise = ddim_invert(lambda x, t: torch.zeros_like(x), x, pairs, process, corrections=60)
    assert torch.allclose(ddim(lambda x, t: torch.zeros_like(x), noise, pairs, process), x, rtol=1e-6, atol=0)


def test_inversion_leads_to_standard_normal_noise() -> None:
    process = DiffusionProcess(make_schedule("cosine", 1000, zero_terminal_snr=True), "v")
    x0 = mixture((5, 1, 50, 20), 8)
    noise = ddim_invert(ideal(process), x0, timestep_pairs(1000, 250), process, corrections=2)
    assert float(noise.mean()) == pytest.approx(0, abs=0.03)
    assert float(noise.std()) == pytest.approx(1, abs=0.03)
    assert float((noise.abs() < 0.6745).double().mean()) == pytest.approx(0.5, abs=0.02)


def pair_model(process: DiffusionProcess) -> Callable[[Tensor, Tensor], Tensor]:
    """Ideal x0 for two voxels that are always equal: both 1 or both -1, at equal shares."""

    def model(x: Tensor, t: Tensor) -> Tensor:
        abar = process.schedule.exact[t].reshape(-1, 1, 1, 1)
        return torch.tanh(abar.sqrt() * x.sum(-1, keepdim=True) / (1 - abar)).expand_as(x)

    return model


def test_inpainting_keeps_the_known_and_agrees_with_it() -> None:
    process = DiffusionProcess(make_schedule("cosine", 100), "x0")
    known = torch.tensor([1.0, 9.0], dtype=torch.float64).expand(400, 1, 1, 2).clone()
    known[200:, ..., 0] = -1
    mask = torch.tensor([1.0, 0.0]).expand(400, 1, 1, 2)
    share = {}
    for resample in (1, 10):
        x = inpaint(
            pair_model(process), start((400, 1, 1, 2)), timestep_pairs(100, 50), process,
            known=known, mask=mask, resample=resample, generator=torch.Generator().manual_seed(10),
        )  # fmt: skip
        assert torch.equal(x[..., 0], known[..., 0])
        assert torch.allclose(x[..., 1].abs(), torch.ones(1, dtype=torch.float64), atol=1e-3)
        share[resample] = float((x[..., 1].sign() == x[..., 0]).double().mean())
    assert share[1] > 0.7
    assert share[10] > 0.97


def test_inpainting_repeats_leave_the_distribution_as_it_is() -> None:
    """Half of the voxels known, all independent: the others are the mixture, however often a step is repeated, and
    at every s the known ones are distributed as the forward process has them."""
    process, known = DiffusionProcess(make_schedule("cosine", 1000), "x0"), mixture((3, 1, 50, 40), 13)
    mask = (torch.arange(40) < 20).expand(3, 1, 50, 40)
    seen: list[Progress] = []
    outputs: list[Tensor] = []

    def model(x: Tensor, t: Tensor) -> Tensor:
        outputs.append(ideal(process)(x, t))
        return outputs[-1]

    pairs = timestep_pairs(1000, 150)
    x = inpaint(
        model, start(known.shape), pairs, process, known=known, mask=mask, resample=2,
        generator=torch.Generator().manual_seed(14), callback=seen.append,
    )  # fmt: skip
    check_mixture(x[..., 20:], shares=0.02, means=0.01, widths=0.18)
    assert torch.equal(x[..., :20], known[..., :20])
    assert [(p.index, p.total, p.t, p.s) for p in seen] == [(i, 150, t, s) for i, (t, s) in enumerate(pairs)]
    assert len(outputs) == 2 * 149 + 1
    for progress, output in zip(seen, [*outputs[1::2], outputs[-1]], strict=True):
        assert torch.equal(progress.x0, output)
    for progress in seen[:-1]:
        abar = process.abar(progress.s)
        noise = (progress.x - math.sqrt(abar) * known)[..., :20] / math.sqrt(1 - abar)
        assert float(noise.mean()) == pytest.approx(0, abs=0.07)
        assert float(noise.std()) == pytest.approx(1, abs=0.05)
    assert torch.equal(seen[-1].x, x)


def test_noise_of_the_last_step_and_clipping() -> None:
    process = DiffusionProcess(make_schedule("cosine", 50), "x0")

    def model(x: Tensor, t: Tensor) -> Tensor:
        return torch.full_like(x, 1.7)

    for sampler in (ddpm, ddim, dpm_solver_pp):
        x = sampler(model, start((1, 1, 3, 3)), timestep_pairs(50, 10), process, eta=1.0, clip=True)
        assert torch.allclose(x, torch.ones_like(x))
        x = sampler(model, start((1, 1, 3, 3)), timestep_pairs(50, 10), process)
        assert torch.allclose(x, torch.full_like(x, 1.7))


@pytest.mark.parametrize("sampler", [ddpm, ddim])
def test_noise_comes_from_the_given_source(sampler: Callable) -> None:
    process = DiffusionProcess(make_schedule("cosine", 50), "x0")
    shapes = []

    def silent(shape: tuple[int, ...], **options: object) -> Tensor:
        shapes.append(tuple(shape))
        return torch.zeros(shape, dtype=torch.float64)

    x = start((2, 1, 3, 3))
    one, other = (sampler(ideal(process), x, timestep_pairs(50, 10), process, eta=1.0, noise=silent) for _ in range(2))
    assert torch.equal(one, other)
    assert shapes == [(2, 1, 3, 3)] * 18  # two runs of ten steps, none in the last


@pytest.mark.parametrize("sampler", [ddpm, ddim, dpm_solver_pp, ddim_invert])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_model_and_the_result_have_the_dtype_of_the_input(sampler: Callable, dtype: torch.dtype) -> None:
    process = DiffusionProcess(make_schedule("cosine", 50), "v")
    dtypes = set()

    def model(x: Tensor, t: Tensor) -> Tensor:
        dtypes.add(x.dtype)
        assert t.shape == (1,)
        return 0.1 * x

    x = sampler(model, start((1, 1, 3, 3)).to(dtype), timestep_pairs(50, 5), process)
    assert x.dtype == dtype
    assert dtypes == {dtype}
    assert x.isfinite().all()


@pytest.mark.parametrize("sampler", [ddpm, ddim, dpm_solver_pp, ddim_invert, inpaint])
def test_the_state_is_float32_between_calls_in_bfloat16(sampler: Callable) -> None:
    """The same as a float32 run of a model that rounds what it is given and what it returns."""
    process, x = DiffusionProcess(make_schedule("cosine", 50), "v"), start((2, 1, 6, 6)).bfloat16()
    states: list[Tensor] = []

    def run(model: Callable[[Tensor, Tensor], Tensor], x: Tensor) -> Tensor:
        options: dict = {"callback": lambda progress: states.append(progress.x)}
        if sampler is not ddim_invert:
            options["generator"] = torch.Generator().manual_seed(15)
        if sampler is inpaint:
            options |= {"known": x, "mask": torch.ones_like(x).tril(), "resample": 2}
        return sampler(model, x, timestep_pairs(50, 10), process, **options)

    model = linear_model(process)
    half = run(lambda x, t: model(x, t).bfloat16(), x)
    single = run(lambda x, t: model(x.bfloat16(), t).bfloat16().float(), x.float())
    assert half.dtype == torch.bfloat16
    assert {state.dtype for state in states} == {torch.float32}
    assert torch.equal(half, single.bfloat16())
    assert all(torch.equal(one, other) for one, other in zip(states[:10], states[10:], strict=True))


@pytest.mark.parametrize("sampler", [ddpm, ddim, dpm_solver_pp, ddim_invert, inpaint])
def test_the_same_on_every_device(sampler: Callable, device: torch.device) -> None:
    """In float32 there as in float64 on the CPU, with the same noise drawn on the CPU."""
    process = DiffusionProcess(make_schedule("cosine", 50), "v")

    def run(x: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(16)

        def noise(shape: tuple[int, ...], **options: object) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(x)

        options: dict = {} if sampler is ddim_invert else {"noise": noise}
        if sampler is inpaint:
            options |= {"known": x, "mask": torch.ones_like(x).tril(), "resample": 2}
        return sampler(linear_model(process), x, timestep_pairs(50, 10), process, **options)

    x = start((2, 1, 6, 6))
    found = run(x.float().to(device))
    assert found.device.type == device.type
    assert torch.allclose(found.cpu().double(), run(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("sampler", [ddpm, ddim, dpm_solver_pp, ddim_invert, inpaint])
@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([(3, 3)], r"pair \(3, 3\); allowed: -1 <= s < t < 50"),
        ([(3, 10)], r"pair \(3, 10\); allowed"),
        ([(50, 2)], r"pair \(50, 2\); allowed"),
        ([(9, 4), (4, -2)], r"pair \(4, -2\); allowed"),
        ([(40, 30), (30, 20), (25, -1)], r"pair \(25, -1\) follows \(30, 20\); it must start at 20"),
    ],
)
def test_pairs_that_lead_nowhere_are_refused(sampler: Callable, pairs: list[tuple[int, int]], message: str) -> None:
    process, x = DiffusionProcess(make_schedule("cosine", 50), "v"), start((1, 1, 3, 3))
    options = {"known": x, "mask": torch.ones_like(x)} if sampler is inpaint else {}
    with pytest.raises(ValueError, match=message):
        sampler(ideal(process), x, pairs, process, **options)


def test_bad_arguments_say_what_is_allowed() -> None:
    process = DiffusionProcess(make_schedule("cosine", 50), "v")
    model, x = ideal(process), start((1, 1, 3, 3))
    with pytest.raises(ValueError, match="steps is 60; allowed: 1 to 50"):
        timestep_pairs(50, 60)
    with pytest.raises(ValueError, match="start is 51; allowed: 1 to 50"):
        timestep_pairs(50, 10, start=51)
    with pytest.raises(ValueError, match=r"eta is 1\.5"):
        ddim(model, x, timestep_pairs(50, 5), process, eta=1.5)
    with pytest.raises(ValueError, match="corrections is -1"):
        ddim_invert(model, x, timestep_pairs(50, 5), process, corrections=-1)
    with pytest.raises(ValueError, match="resample is 0"):
        inpaint(model, x, timestep_pairs(50, 5), process, known=x, mask=x, resample=0)
    with pytest.raises(ValueError, match="known has shape"):
        inpaint(model, x, timestep_pairs(50, 5), process, known=x[:, :, 1:], mask=x)
    for mask in (torch.ones(3, 3), torch.ones(1, 2, 3, 3), torch.ones(1, 1, 3, 4)):
        with pytest.raises(ValueError, match=r"mask has shape .*; \(1, 1, 3, 3\) or \(1, 1, 3, 3\) is needed"):
            inpaint(model, x, timestep_pairs(50, 5), process, known=x, mask=mask)
    for value in (0.3, -1.0, float("nan")):
        with pytest.raises(ValueError, match=f"values such as {value}.*; allowed: 0 and 1"):
            inpaint(model, x, timestep_pairs(50, 5), process, known=x, mask=torch.full_like(x, value))
