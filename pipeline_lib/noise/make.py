"""Noise by its name in the configuration."""

from __future__ import annotations

from pipeline_lib.noise.base import Noise
from pipeline_lib.noise.gaussian import GaussianNoise
from pipeline_lib.noise.simplex import SimplexNoise


def make_noise(
    kind: str, *, octaves: int = 6, decay: float = 0.8, frequency: float = 1 / 64, raw: bool = False
) -> Noise:
    """The noise called `kind`: `gaussian` (which has no options and ignores them) or `simplex`."""
    if kind == "gaussian":
        return GaussianNoise()
    if kind == "simplex":
        return SimplexNoise(octaves, decay, frequency, raw)
    raise ValueError(f"noise is {kind!r}; allowed: gaussian, simplex")
