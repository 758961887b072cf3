"""The forward process, what a network predicts of it, and one step back.

    x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) eps                              Ho et al. (2020), eq. 4
    v   = sqrt(abar_t) eps - sqrt(1 - abar_t) x0                              Salimans and Ho (2022), app. D

Coefficients come from float64 and are applied in float32 (float64 for float64 samples); a result has the sample's
own dtype.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from pipeline_lib.diffusion.schedule import Schedule, make_schedule
from pipeline_lib.noise.gaussian import GaussianNoise

Prediction = Literal["eps", "v", "x0"]
LossWeight = Literal["none", "v", "min_snr"]


class DiffusionProcess:
    """A schedule together with what the network predicts: `eps`, `v` or `x0`.

    Samples are (N, C, *spatial); t is (N,), int64 or int32 in [0, T), an own timestep for each sample. Its range is
    checked on the CPU only: on an accelerator reading t would stall the queue, and looking a coefficient up asserts there.
    """

    def __init__(self, schedule: Schedule, prediction: str = "eps") -> None:
        if prediction not in get_args(Prediction):
            raise ValueError(f"prediction is {prediction!r}; allowed: {', '.join(get_args(Prediction))}")
        if prediction == "eps" and schedule.exact[-1] == 0:
            raise ValueError("prediction 'eps' with zero terminal SNR: the last timestep has no signal; allowed: v, x0")
        self.schedule = schedule
        self.prediction = prediction
        self._abar = schedule.exact.tolist()
        self._tables: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    @property
    def timesteps(self) -> int:
        """T, the length of the schedule."""
        return len(self._abar)

    def abar(self, t: int) -> float:
        """Share of signal after timestep t; t = -1 is the clean sample, with 1."""
        if not -1 <= t < self.timesteps:
            raise ValueError(f"t is {t}; allowed: -1 (clean) to {self.timesteps - 1}")
        return 1.0 if t == -1 else float(self._abar[t])

    def forward_diffusion(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t from a clean sample and noise of unit variance."""
        self._check(t, len(x0))
        _same_shape("noise", noise, x0)
        signal, sigma = self._coefficients(x0, t)
        return (signal * x0 + sigma * noise).to(x0.dtype)

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the network should predict at x_t."""
        self._check(t, len(x0))
        _same_shape("noise", noise, x0)
        if self.prediction == "eps":
            return noise
        if self.prediction == "x0":
            return x0
        signal, sigma = self._coefficients(x0, t)
        return (signal * noise - sigma * x0).to(x0.dtype)

    def to_x0(self, xt: Tensor, output: Tensor, t: Tensor) -> Tensor:
        """The clean sample that the network's output stands for."""
        self._check(t, len(xt))
        _same_shape("output", output, xt)
        if self.prediction == "x0":
            return output
        signal, sigma = self._coefficients(xt, t)
        x0 = (xt - sigma * output) / signal if self.prediction == "eps" else signal * xt - sigma * output
        return x0.to(xt.dtype)

    def to_eps(self, xt: Tensor, output: Tensor, t: Tensor) -> Tensor:
        """The noise that the network's output stands for."""
        self._check(t, len(xt))
        _same_shape("output", output, xt)
        if self.prediction == "eps":
            return output
        signal, sigma = self._coefficients(xt, t)
        eps = (xt - signal * output) / sigma if self.prediction == "x0" else sigma * xt + signal * output
        return eps.to(xt.dtype)

    def reconstruct(self, xt: Tensor, noise_pred: Tensor, t: Tensor) -> Tensor:
        """x0 in one shot from the network's output `noise_pred` (for v and x0 networks: that output as it is)."""
        return self.to_x0(xt, noise_pred, t)

    def reverse_timestep(
        self,
        xt: Tensor,
        noise_pred: Tensor,
        t: Tensor,
        noise: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """x_{t-1} drawn from the posterior q(x_{t-1} | x_t, x0) (Ho et al., 2020, eq. 6 and 7).

        `noise_pred` is the network's output, whatever it predicts. At t = 0 the posterior has no width and
        `noise` has no effect.
        """
        x0 = self.to_x0(xt, noise_pred, t)
        if noise is None:
            noise = GaussianNoise()(xt.shape, generator=generator, device=xt.device, dtype=xt.dtype)
        _same_shape("noise", noise, xt)
        exact_abar = self.schedule.exact.to(t.device)
        abar = exact_abar.index_select(0, t)
        before = torch.where(t > 0, exact_abar[(t - 1).clamp(min=0)], 1.0)
        weights = torch.stack(posterior(abar, before))
        exact = torch.promote_types(xt.dtype, torch.float32)
        w0, wt, std = weights.to(xt.device, exact).reshape(3, -1, *[1] * (xt.ndim - 1))
        return (w0 * x0 + wt * xt + std * noise).to(xt.dtype)

    def loss_weight(self, t: Tensor, kind: str = "none", cap: float = 20.0) -> Tensor:
        """Weight of each sample's loss on what is predicted, (N,) float32.

        - `none`: 1;
        - `v`: as if v were predicted (Salimans and Ho, 2022, sec. 4), SNR + 1 = 1 / (1 - abar) on the x0 error;
        - `min_snr`: SNR on the x0 error, as if eps were predicted (Hang et al., 2023).

        The weight of the x0 error is at most `cap`, and is expressed for the quantity that is predicted: the eps error
        is the x0 error times SNR, the v error times SNR + 1.
        """
        check_loss_weight(kind, self.prediction, self.schedule.zero_terminal_snr)
        self._check(t, t.numel())
        if kind == "none":
            return torch.ones(len(t), device=t.device)
        if not cap > 0:
            raise ValueError(f"the cap of the loss weight is {cap}; it must be above 0")
        abar = self.schedule.exact
        snr = abar / (1 - abar)
        weight = (snr if kind == "min_snr" else snr + 1).clamp(max=cap)
        if self.prediction == "eps":
            weight = weight / snr
        elif self.prediction == "v":
            weight = weight / (snr + 1)
        return weight.float().to(t.device).index_select(0, t)

    def _check(self, t: Tensor, samples: int) -> None:
        if t.ndim != 1 or len(t) != samples:
            raise ValueError(f"t has shape {tuple(t.shape)}; one timestep a sample is needed, ({samples},)")
        if t.dtype not in (torch.int64, torch.int32):
            raise ValueError(f"t has dtype {t.dtype}; timesteps are integers, int64 or int32")
        if t.device.type == "cpu" and len(t) and not (int(t.min()) >= 0 and int(t.max()) < self.timesteps):
            raise ValueError(f"t is {t.tolist()}; allowed: 0 to {self.timesteps - 1}")

    def _coefficients(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(abar_t) and sqrt(1 - abar_t), (N, 1, ...) to multiply `x` with."""
        key = x.device, torch.promote_types(x.dtype, torch.float32)
        if key not in self._tables:
            exact = self.schedule.exact
            self._tables[key] = exact.sqrt().to(*key), (1 - exact).sqrt().to(*key)
        shape = (-1, *[1] * (x.ndim - 1))
        index = t.to(x.device)
        signal, sigma = (table.index_select(0, index).reshape(shape) for table in self._tables[key])
        return signal, sigma


def make_process(
    schedule: str, timesteps: int, prediction: str, *, zero_terminal_snr: bool = False, shift: float = 0.0
) -> DiffusionProcess:
    """A process from plain values, which a trained model keeps beside its weights; see `make_schedule`."""
    made = make_schedule(schedule, timesteps, zero_terminal_snr=zero_terminal_snr, shift=shift)
    return DiffusionProcess(made, prediction)


def check_loss_weight(kind: str, prediction: str, zero_terminal_snr: bool) -> None:
    """Raise ValueError where a loss weight means nothing for what is predicted."""
    if kind not in get_args(LossWeight):
        raise ValueError(f"loss_weight is {kind!r}; allowed: {', '.join(get_args(LossWeight))}")
    if kind == "v" and prediction == "eps":
        raise ValueError(
            "loss_weight v with prediction eps is unbounded where no signal is left; allowed: none, min_snr"
        )
    if kind == "min_snr" and zero_terminal_snr:
        raise ValueError("loss_weight min_snr with zero_terminal_snr is 0 where sampling starts; allowed: none, v")


def posterior(abar_t: Tensor, abar_s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """q(x_s | x_t, x0), s < t: the weights of x0 and x_t in its mean, and its standard deviation."""
    kept = abar_t / abar_s
    w0 = abar_s.sqrt() * (1 - kept) / (1 - abar_t)
    wt = kept.sqrt() * (1 - abar_s) / (1 - abar_t)
    return w0, wt, ((1 - abar_s) / (1 - abar_t) * (1 - kept)).sqrt()


def log_snr(abar: float) -> float:
    """Half the log signal-to-noise ratio, lambda = log(sqrt(abar) / sqrt(1 - abar)); infinite at 0 and 1."""
    if abar in (0.0, 1.0):
        return math.inf if abar else -math.inf
    return 0.5 * (math.log(abar) - math.log1p(-abar))


def _same_shape(name: str, value: Tensor, x: Tensor) -> None:
    if value.shape != x.shape:
        raise ValueError(f"{name} has shape {tuple(value.shape)}; the sample's {tuple(x.shape)} is needed")
