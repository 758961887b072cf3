"""Noise schedules: how much signal is left at each timestep.

Everything is computed in float64. `alphas_cumprod[t]` (abar) is the share of the variance that is signal after
timestep t, t = 0 .. T-1; abar before the first timestep is 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

ScheduleName = Literal["linear", "scaled_linear", "cosine", "sigmoid"]
_LARGEST_BETA = 0.999
REFERENCE_VOXELS = 128 * 128
"""Images of up to so many voxels need no shift."""


@dataclass(frozen=True)
class Schedule:
    """A noise schedule of T timesteps.

    Attributes:
        name: which one.
        zero_terminal_snr: whether the last timestep is pure noise.
        exact: abar in float64, (T,), on the CPU: what coefficients are computed from.
    """

    name: str
    zero_terminal_snr: bool
    exact: Tensor

    @property
    def timesteps(self) -> int:
        """T."""
        return len(self.exact)

    @property
    def alphas_cumprod(self) -> Tensor:
        """abar, (T,) float32."""
        return self.exact.float()

    @property
    def betas(self) -> Tensor:
        """beta_t = 1 - abar_t / abar_{t-1}, (T,) float32."""
        before = torch.cat([self.exact.new_ones(1), self.exact[:-1]])
        return (1 - self.exact / before).float()


def make_schedule(name: str, timesteps: int, *, zero_terminal_snr: bool = False, shift: float = 0.0) -> Schedule:
    """The schedule called `name`, which is one of:

    - `linear`: beta from 1e-4 to 0.02 at T = 1000 (Ho et al., 2020);
    - `scaled_linear`: the square root of beta linear, 0.00085 to 0.012 (Rombach et al., 2022);
    - `cosine`: abar(u) = cos^2((u + .008) / 1.008 * pi/2) / abar(0) (Nichol and Dhariwal, 2021);
    - `sigmoid`: abar falls as a sigmoid from 3 to -3 (Jabri et al., 2023).

    The first two are defined by beta at T = 1000; for another T beta is scaled by 1000 / T, which keeps abar as
    a function of t / T. beta is at most 0.999 and abar is what follows from that. `shift` is added to the log SNR,
    log(abar / (1 - abar)), at every timestep (Hoogeboom et al., 2023, eq. 3); below 0 it means more noise. With
    `zero_terminal_snr` sqrt(abar) is then shifted and scaled so that the first stays and the last is 0 (Lin et al.,
    2024, alg. 1).
    """
    if not math.isfinite(shift):
        raise ValueError(f"shift is {shift}; a finite number is needed")
    if name not in get_args(ScheduleName):
        raise ValueError(f"schedule is {name!r}; allowed: {', '.join(get_args(ScheduleName))}")
    if timesteps < 1 or (zero_terminal_snr and timesteps < 2):
        raise ValueError(f"timesteps is {timesteps}; at least {2 if zero_terminal_snr else 1} needed")
    if name in ("linear", "scaled_linear"):
        if name == "linear":
            beta = torch.linspace(1e-4, 0.02, timesteps, dtype=torch.float64)
        else:
            beta = torch.linspace(0.00085**0.5, 0.012**0.5, timesteps, dtype=torch.float64).square()
        beta = beta * (1000 / timesteps)
    else:
        u = torch.linspace(0, 1, timesteps + 1, dtype=torch.float64)
        if name == "cosine":
            signal = torch.cos((u + 0.008) / 1.008 * (math.pi / 2)).square()
        else:
            signal = torch.sigmoid(3 - 6 * u) - torch.sigmoid(torch.tensor(-3.0, dtype=torch.float64))
        beta = 1 - signal[1:] / signal[:-1]
    abar = torch.cumprod(1 - beta.clamp(max=_LARGEST_BETA), dim=0)
    if shift:
        abar = abar / (abar + (1 - abar) * math.exp(-shift))
    if zero_terminal_snr:
        root = abar.sqrt()
        abar = ((root - root[-1]) * root[0] / (root[0] - root[-1])).square()
    return Schedule(name, zero_terminal_snr, abar)


def log_snr_shift(spatial: Sequence[int]) -> float:
    """The shift of the log SNR that suits images of so many voxels along each axis.

    Neighbours in an image are alike, so the more of them there are the more noise it takes to hide what they show
    together (Hoogeboom et al., 2023, sec. 3.1). Were they all the same, the log SNR would have to fall by the logarithm of
    their number; brains at 2 mm take about two thirds of that (docs/networks.md). No shift is made up to the number of
    voxels of a slice of 128 x 128.
    """
    return min(0.0, -2 / 3 * math.log(math.prod(spatial) / REFERENCE_VOXELS))
