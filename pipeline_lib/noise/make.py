"""Noise by its name in the configuration."""

from __future__ import annotations

import importlib

from pipeline_lib.noise.base import Noise

CLASSES = {"gaussian": "GaussianNoise", "coarse": "CoarseNoise", "simplex": "SimplexNoise"}


def make_noise(
    kind: str,
    *,
    spacing: int = 8,
    octaves: int = 6,
    decay: float = 0.8,
    frequency: float = 1 / 64,
    raw: bool = False,
) -> Noise:
    """The noise called `kind`: `gaussian`, `coarse` (of `spacing`) or `simplex` (of the other options).

    Only the module of that name is imported: what is trained with one noise does not depend on the others.
    """
    if kind not in CLASSES:
        raise ValueError(f"noise is {kind!r}; allowed: {', '.join(CLASSES)}")
    made = getattr(importlib.import_module(f"pipeline_lib.noise.{kind}"), CLASSES[kind])
    options = {"gaussian": (), "coarse": (spacing,), "simplex": (octaves, decay, frequency, raw)}
    noise: Noise = made(*options[kind])
    return noise
