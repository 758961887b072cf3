"""Samplers: from noise, or from a partly noised sample, to a clean one.

Each is one function over a callable `model(x, t) -> output` (t: (N,) int64) and a list of pairs (t, s): evaluate at
t, go to s < t; s = -1 is the clean sample, abar_{-1} = 1. All take and return (N, C, *spatial). The state is kept
in at least float32 whatever the dtype of `x`, in which the model is called.

`ddim`, `ddpm` and `dpm_solver_pp` have one signature and can be exchanged: `eta` means something to DDIM only, and
`noise` and `generator` nothing to a deterministic sampler. `clip` limits x0 to [-1, 1]: for images, never latents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from pipeline_lib.diffusion.process import DiffusionProcess, log_snr, posterior
from pipeline_lib.noise.base import Noise
from pipeline_lib.noise.gaussian import GaussianNoise

Model = Callable[[Tensor, Tensor], Tensor]
Pairs = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Progress:
    """What a callback is told after each pair: `x` is the sample at s, `x0` the clean sample expected at t."""

    index: int
    total: int
    t: int
    s: int
    x: Tensor
    x0: Tensor


Callback = Callable[[Progress], None]


def timestep_pairs(timesteps: int, steps: int, start: int | None = None) -> list[tuple[int, int]]:
    """Pairs (t, s) of a strided run with trailing spacing, t = round(i start / steps) - 1; the last s is -1.

    Args:
        timesteps: T of the schedule.
        steps: number of model evaluations, 1 to `start`.
        start: number of timesteps to undo; None: all T, from pure noise. A sample that was noised at timestep t
            is cleaned with start = t + 1.
    """
    start = timesteps if start is None else start
    if not 1 <= start <= timesteps:
        raise ValueError(f"start is {start}; allowed: 1 to {timesteps}, the schedule's timesteps")
    if not 1 <= steps <= start:
        raise ValueError(f"steps is {steps}; allowed: 1 to {start}, the timesteps to undo")
    ts = [round(start * (steps - i) / steps) - 1 for i in range(steps)]
    return list(zip(ts, [*ts[1:], -1], strict=True))


def ddim(
    model: Model,
    x: Tensor,
    pairs: Pairs,
    process: DiffusionProcess,
    *,
    eta: float = 0.0,
    clip: bool = False,
    noise: Noise | None = None,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """DDIM (Song et al., 2021, eq. 12 and 16); eta 0 is deterministic, eta 1 has DDPM's noise.

    With `clip` the noise direction is derived anew from the clipped x0. `noise` replaces Gaussian noise where
    eta > 0.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta is {eta}; allowed: 0 to 1")

    def step(x: Tensor, x0: Tensor, eps: Tensor, t: int, s: int) -> Tensor:
        at, as_ = process.abar(t), process.abar(s)
        sigma = eta * math.sqrt((1 - as_) / (1 - at) * (1 - at / as_))
        mean = math.sqrt(as_) * x0 + math.sqrt(max(0.0, 1 - as_ - sigma**2)) * eps
        return mean + sigma * _draw(noise, x, generator) if sigma > 0 else mean

    return _run(model, x, pairs, process, step, clip, callback)


def ddpm(
    model: Model,
    x: Tensor,
    pairs: Pairs,
    process: DiffusionProcess,
    *,
    eta: float = 0.0,
    clip: bool = False,
    noise: Noise | None = None,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Ancestral sampling (Ho et al., 2020, alg. 2) with the posterior q(x_s | x_t, x0) of the pair itself, so that
    it is right for strided pairs too (Nichol and Dhariwal, 2021, sec. 4). No noise is added in the last step."""

    def step(x: Tensor, x0: Tensor, eps: Tensor, t: int, s: int) -> Tensor:
        abar_t, abar_s = torch.tensor([process.abar(t), process.abar(s)], dtype=torch.float64)
        w0, wt, std = (float(weight) for weight in posterior(abar_t, abar_s))
        mean = w0 * x0 + wt * x
        return mean + std * _draw(noise, x, generator) if std > 0 else mean

    return _run(model, x, pairs, process, step, clip, callback)


def dpm_solver_pp(
    model: Model,
    x: Tensor,
    pairs: Pairs,
    process: DiffusionProcess,
    *,
    eta: float = 0.0,
    clip: bool = False,
    noise: Noise | None = None,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """DPM-Solver++(2M) (Lu et al., 2022, alg. 2): second order in the log SNR, deterministic.

    The first step, having no history, and the last, to a noise-free sample, are of first order.
    """
    previous: tuple[Tensor, float] | None = None

    def step(x: Tensor, x0: Tensor, eps: Tensor, t: int, s: int) -> Tensor:
        nonlocal previous
        at, as_ = process.abar(t), process.abar(s)
        sigma_ratio = math.sqrt((1 - as_) / (1 - at))
        decay = math.sqrt(at / as_) * sigma_ratio  # exp(-h), h = lambda_s - lambda_t
        h = log_snr(as_) - log_snr(at)
        expected = x0
        if previous is not None and s >= 0:
            before, h_before = previous
            expected = x0 + (h / (2 * h_before)) * (x0 - before)
        previous = x0, h
        return sigma_ratio * x + math.sqrt(as_) * (1 - decay) * expected

    return _run(model, x, pairs, process, step, clip, callback)


def ddim_invert(
    model: Model,
    x: Tensor,
    pairs: Pairs,
    process: DiffusionProcess,
    *,
    corrections: int = 0,
    callback: Callback | None = None,
) -> Tensor:
    """The noise from which deterministic `ddim` over the same pairs makes `x`.

    The pairs are walked from last to first, from s up to t, with the noise predicted at x_s as if it were that at
    x_t (Song et al., 2021, sec. 4.3). Each of `corrections` then predicts it again at the x_t so found, which is
    what `ddim` will see; the fixed point is the exact inverse (Pan et al., 2023). Where noise prevails it is x0 that
    is predicted again: at abar_t = 0 the sample itself is the noise, and any x_t would agree with its own.
    """
    if corrections < 0:
        raise ValueError(f"corrections is {corrections}; at least 0 is needed")
    _check_pairs(pairs, process)
    dtype, state = x.dtype, _wide(x)
    for index, (t, s) in enumerate(reversed(pairs)):
        at, as_ = process.abar(t), process.abar(s)
        point, at_step = state, max(s, 0)
        for _ in range(corrections + 1):
            time = torch.full((len(x),), at_step, device=x.device)
            output = _wide(model(point.to(dtype), time))
            if as_ < 0.5:
                x0 = process.to_x0(point, output, time)
                eps = (state - math.sqrt(as_) * x0) / math.sqrt(1 - as_)
            else:
                eps = process.to_eps(point, output, time)
                x0 = (state - math.sqrt(1 - as_) * eps) / math.sqrt(as_)
            point, at_step = math.sqrt(at) * x0 + math.sqrt(1 - at) * eps, t
        state = point
        if callback is not None:
            callback(Progress(index, len(pairs), t, s, state, x0))
    return state.to(dtype)


def inpaint(
    model: Model,
    x: Tensor,
    pairs: Pairs,
    process: DiffusionProcess,
    *,
    known: Tensor,
    mask: Tensor,
    resample: int = 1,
    clip: bool = False,
    noise: Noise | None = None,
    generator: torch.Generator | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """RePaint (Lugmayr et al., 2022, alg. 1): samples where `mask` is 0, `known` where it is 1.

    After each ancestral step the known part is put in at the noise level of s. With `resample` above 1 the pair is
    repeated, x_s being noised up to t in between, so that the new part comes to agree with the known one.

    Args:
        known: (N, C, *spatial), the clean sample, used where the mask is 1.
        mask: (N, 1 or C, *spatial), 0 or 1.
    """
    _check_pairs(pairs, process)
    if resample < 1:
        raise ValueError(f"resample is {resample}; at least 1 is needed")
    if known.shape != x.shape:
        raise ValueError(f"known has shape {tuple(known.shape)}; the sample's {tuple(x.shape)} is needed")
    if mask.shape not in (x.shape, x[:, :1].shape):
        raise ValueError(f"mask has shape {tuple(mask.shape)}; {tuple(x[:, :1].shape)} or {tuple(x.shape)} is needed")
    strange = mask[(mask != 0) & (mask != 1)]
    if len(strange):
        raise ValueError(f"mask has values such as {float(strange[0])}; allowed: 0 and 1")
    kept = mask.to(x.device, torch.bool)
    dtype, state, reference = x.dtype, _wide(x), _wide(known.to(x.device))
    for index, (t, s) in enumerate(pairs):
        at, as_ = process.abar(t), process.abar(s)
        x0 = state

        def remember(progress: Progress) -> None:
            nonlocal x0
            x0 = progress.x0

        for repeat in range(resample if s >= 0 else 1):
            if repeat:
                draw = _draw(noise, state, generator)
                state = math.sqrt(at / as_) * state + math.sqrt(1 - at / as_) * draw
            stepped = ddpm(
                lambda point, time: model(point.to(dtype), time),
                state,
                [(t, s)],
                process,
                clip=clip,
                noise=noise,
                generator=generator,
                callback=remember,
            )
            level = math.sqrt(as_) * reference
            if s >= 0:
                level = level + math.sqrt(1 - as_) * _draw(noise, state, generator)
            state = torch.where(kept, level, stepped)
        if callback is not None:
            callback(Progress(index, len(pairs), t, s, state, x0))
    return state.to(dtype)


def _run(
    model: Model,
    x: Tensor,
    pairs: Pairs,
    process: DiffusionProcess,
    step: Callable[[Tensor, Tensor, Tensor, int, int], Tensor],
    clip: bool,
    callback: Callback | None,
) -> Tensor:
    """Walk the pairs: predict x0 and eps at t, let `step(x, x0, eps, t, s)` make x_s."""
    _check_pairs(pairs, process)
    dtype, state = x.dtype, _wide(x)
    for index, (t, s) in enumerate(pairs):
        time = torch.full((len(x),), t, device=x.device)
        output = _wide(model(state.to(dtype), time))
        x0 = process.to_x0(state, output, time)
        eps = process.to_eps(state, output, time)
        if clip:
            x0 = x0.clamp(-1, 1)
            eps = (state - math.sqrt(process.abar(t)) * x0) / math.sqrt(1 - process.abar(t))
        state = step(state, x0, eps, t, s)
        if callback is not None:
            callback(Progress(index, len(pairs), t, s, state, x0))
    return state.to(dtype)


def _check_pairs(pairs: Pairs, process: DiffusionProcess) -> None:
    for t, s in pairs:
        if not -1 <= s < t < process.timesteps:
            raise ValueError(f"pair ({t}, {s}); allowed: -1 <= s < t < {process.timesteps}")
    for (t, s), (following, end) in pairwise(pairs):
        if following != s:
            raise ValueError(f"pair ({following}, {end}) follows ({t}, {s}); it must start at {s}")


def _draw(noise: Noise | None, x: Tensor, generator: torch.Generator | None) -> Tensor:
    return (noise or GaussianNoise())(x.shape, generator=generator, device=x.device, dtype=x.dtype)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
