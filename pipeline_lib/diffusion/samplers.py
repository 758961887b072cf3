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
    _check_pairs(pairs, process)
    dtype, x = x.dtype, _wide(x)
    for index, (t, s) in enumerate(pairs):
        abar_t, abar_s = process.abar(t), process.abar(s)
        # 1. The clean sample and the noise that the model sees in x_t.
        x0, eps = _predict(model, x, t, process, clip, dtype)
        # 2. Deviation of the noise that is added anew, eq. 16.
        sigma = eta * math.sqrt((1 - abar_s) / (1 - abar_t)) * math.sqrt(1 - abar_t / abar_s)
        # 3. The predicted clean sample and the direction towards x_t, the first two terms of eq. 12.
        x = math.sqrt(abar_s) * x0 + math.sqrt(max(0.0, 1 - abar_s - sigma**2)) * eps
        # 4. New noise, its last term.
        if sigma > 0:
            x = x + sigma * _draw(noise, x, generator)
        _tell(callback, index, pairs, x, x0)
    return x.to(dtype)


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
    _check_pairs(pairs, process)
    dtype, x = x.dtype, _wide(x)
    for index, (t, s) in enumerate(pairs):
        # 1. The clean sample that the model sees in x_t.
        x0, _ = _predict(model, x, t, process, clip, dtype)
        # 2. Mean and deviation of q(x_s | x_t, x0), eq. 6 and 7 with beta_t = 1 - abar_t / abar_s.
        w0, wt, std = _posterior(process.abar(t), process.abar(s))
        # 3. A draw from it, alg. 2, line 4.
        x = w0 * x0 + wt * x
        if std > 0:
            x = x + std * _draw(noise, x, generator)
        _tell(callback, index, pairs, x, x0)
    return x.to(dtype)


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
    _check_pairs(pairs, process)
    dtype, x = x.dtype, _wide(x)
    previous: tuple[Tensor, float] | None = None
    for index, (t, s) in enumerate(pairs):
        abar_t, abar_s = process.abar(t), process.abar(s)
        # 1. The clean sample that the model sees in x_t, and the step h = lambda_s - lambda_t in half the log SNR.
        x0, _ = _predict(model, x, t, process, clip, dtype)
        h = log_snr(abar_s) - log_snr(abar_t)
        # 2. Extrapolated from the step before, alg. 2: D = (1 + 1 / 2r) x0 - 1 / 2r x0_before, r = h_before / h.
        expected = x0
        if previous is not None and s >= 0:
            before, h_before = previous
            expected = x0 + (h / (2 * h_before)) * (x0 - before)
        # 3. The exact solution for an x0 that stays D: sigma_s / sigma_t x - alpha_s (exp(-h) - 1) D.
        sigma_ratio = math.sqrt((1 - abar_s) / (1 - abar_t))
        decay = math.sqrt(abar_t / abar_s) * sigma_ratio  # exp(-h), also where h is infinite
        x = sigma_ratio * x + math.sqrt(abar_s) * (1 - decay) * expected
        previous = x0, h
        _tell(callback, index, pairs, x, x0)
    return x.to(dtype)


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
    dtype, x = x.dtype, _wide(x)
    for index, (t, s) in enumerate(reversed(pairs)):
        abar_t, abar_s = process.abar(t), process.abar(s)
        point, at = x, max(s, 0)
        for _ in range(corrections + 1):
            # 1. What the model sees: at first in x_s itself, then in the x_t found so far.
            time = torch.full((len(x),), at, device=x.device)
            output = _wide(model(point.to(dtype), time))
            # 2. The part that it predicts better is kept; the other is what then makes up x_s.
            if abar_s < 0.5:
                x0 = process.to_x0(point, output, time)
                eps = (x - math.sqrt(abar_s) * x0) / math.sqrt(1 - abar_s)
            else:
                eps = process.to_eps(point, output, time)
                x0 = (x - math.sqrt(1 - abar_s) * eps) / math.sqrt(abar_s)
            # 3. Both together at t, eq. 12 with sigma = 0 read backwards.
            point, at = math.sqrt(abar_t) * x0 + math.sqrt(1 - abar_t) * eps, t
        x = point
        if callback is not None:
            callback(Progress(index, len(pairs), t, s, x, x0))
    return x.to(dtype)


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
    dtype, x, reference = x.dtype, _wide(x), _wide(known.to(x.device))
    for index, (t, s) in enumerate(pairs):
        abar_t, abar_s = process.abar(t), process.abar(s)
        for repeat in range(resample if s >= 0 else 1):
            # 1. From the second time on, back up from s to t, line 10.
            if repeat:
                draw = _draw(noise, x, generator)
                x = math.sqrt(abar_t / abar_s) * x + math.sqrt(1 - abar_t / abar_s) * draw
            # 2. The new part by an ancestral step, line 7.
            x0, _ = _predict(model, x, t, process, clip, dtype)
            w0, wt, std = _posterior(abar_t, abar_s)
            x = w0 * x0 + wt * x
            if std > 0:
                x = x + std * _draw(noise, x, generator)
            # 3. The known part at the noise level of s, line 5.
            level = math.sqrt(abar_s) * reference
            if s >= 0:
                level = level + math.sqrt(1 - abar_s) * _draw(noise, x, generator)
            # 4. Each in its place, line 8.
            x = torch.where(kept, level, x)
        _tell(callback, index, pairs, x, x0)
    return x.to(dtype)


def _predict(
    model: Model, x: Tensor, t: int, process: DiffusionProcess, clip: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The clean sample and the noise that the model, called in `dtype`, sees in `x` at t."""
    time = torch.full((len(x),), t, device=x.device)
    output = _wide(model(x.to(dtype), time))
    x0 = process.to_x0(x, output, time)
    if not clip:
        return x0, process.to_eps(x, output, time)
    x0 = x0.clamp(-1, 1)
    return x0, (x - math.sqrt(process.abar(t)) * x0) / math.sqrt(1 - process.abar(t))


def _posterior(abar_t: float, abar_s: float) -> tuple[float, float, float]:
    """`process.posterior` in plain numbers."""
    w0, wt, std = posterior(*torch.tensor([abar_t, abar_s], dtype=torch.float64))
    return float(w0), float(wt), float(std)


def _tell(callback: Callback | None, index: int, pairs: Pairs, x: Tensor, x0: Tensor) -> None:
    if callback is not None:
        callback(Progress(index, len(pairs), *pairs[index], x, x0))


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
