"""Is predicted noise white? A test with a stated significance level, by FFT, in any dimension."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor


@dataclass(frozen=True)
class Whiteness:
    """The outcome of `whiteness`.

    Attributes:
        mean, variance: over all values; 0 and 1 for white noise.
        autocorrelation: (*spatial), circular, averaged over fields; lag 0 is first, with 1.
        largest: |autocorrelation| at the most deviant `lag` other than 0.
        limit: |autocorrelation| beyond which white noise is called not white, at a lag that is not its own opposite.
        p_mean, p_variance, p_autocorrelation: two-sided p-values of the three tests; the last is corrected for
            the number of lags.
        significance: probability that truly white Gaussian noise is called not white.
        white: whether none of the three p-values is below significance / 3.
    """

    mean: float
    variance: float
    autocorrelation: Tensor
    largest: float
    limit: float
    lag: tuple[int, ...]
    p_mean: float
    p_variance: float
    p_autocorrelation: float
    significance: float
    white: bool


def whiteness(noise: Tensor, significance: float = 0.01) -> Whiteness:
    """Test (N, C, *spatial) fields against independent standard normal values.

    Over M values of white noise the mean is normal with variance 1/M, the variance with 2/M around 1, and the
    autocorrelation at each lag (Wiener-Khinchin: the inverse transform of the power spectrum) with 1/M. As lags k
    and -k are the same, half of the lags enter the Sidak correction of the largest; a lag that is its own opposite
    has variance 2/M. Fields of no power, or not finite, have no autocorrelation and are never white.
    """
    if noise.ndim < 3 or not noise.numel() or noise.is_complex():
        raise ValueError(
            f"noise is {noise.dtype} of shape {tuple(noise.shape)}; real values (N, C, *spatial) are needed"
        )
    if not 0 < significance < 1:
        raise ValueError(f"significance is {significance}; it must lie between 0 and 1")
    values = noise.detach().double()
    axes = tuple(range(2, values.ndim))
    count = values.numel()
    mean, variance = float(values.mean()), float(values.var(correction=0))
    power = torch.fft.fftn(values, dim=axes).abs().square().mean(dim=(0, 1))
    autocorrelation = torch.fft.ifftn(power).real
    autocorrelation = autocorrelation / autocorrelation.flatten()[0]
    if autocorrelation.numel() < 2:
        raise ValueError(f"noise has shape {tuple(noise.shape)}; at least two voxels are needed")
    own = _own_opposites(autocorrelation.shape).to(values.device)
    z = (autocorrelation.abs() * torch.where(own, 0.5, 1.0).sqrt() * math.sqrt(count)).flatten()[1:]
    z = z.nan_to_num(nan=math.inf)
    position = torch.unravel_index(z.argmax() + 1, autocorrelation.shape)
    largest = float(autocorrelation[position].abs())
    lags = (len(z) + int(own.sum()) - 1) // 2
    single = _two_sided(float(z.max()))
    p_mean = _two_sided(mean * math.sqrt(count))
    p_variance = _two_sided((variance - 1) * math.sqrt(count / 2))
    p_autocorrelation = -math.expm1(lags * math.log1p(-single)) if single < 1 else 1.0
    return Whiteness(
        mean=mean,
        variance=variance,
        autocorrelation=autocorrelation,
        largest=largest,
        limit=NormalDist().inv_cdf((1 + (1 - significance / 3) ** (1 / lags)) / 2) / math.sqrt(count),
        lag=tuple(int(i) for i in position),
        p_mean=p_mean,
        p_variance=p_variance,
        p_autocorrelation=p_autocorrelation,
        significance=significance,
        white=min(p_mean, p_variance, p_autocorrelation) >= significance / 3,
    )


def _own_opposites(shape: torch.Size) -> Tensor:
    """Which lags are their own opposites on the torus: 0 or half the length along every axis."""
    own = torch.ones(shape, dtype=torch.bool)
    for axis, n in enumerate(shape):
        lag = torch.arange(n).reshape([-1 if i == axis else 1 for i in range(len(shape))])
        own &= 2 * lag % n == 0
    return own


def _two_sided(z: float) -> float:
    return math.erfc(abs(z) / math.sqrt(2))
