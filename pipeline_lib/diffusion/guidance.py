"""Classifier-free guidance (Ho and Salimans, 2022)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def null_condition(condition: Tensor) -> Tensor:
    """The condition of which nothing is known, of the same shape: NaN."""
    return torch.full_like(condition, math.nan)


def guided(
    model: Callable[..., Tensor], condition: Tensor | None, scale: float = 1.0, concat: Tensor | None = None
) -> Callable[[Tensor, Tensor], Tensor]:
    """`model(x, t, condition, concat)` as a function of x and t, for the samplers.

    The output is unconditional + scale * (conditional - unconditional), both from one call on a batch twice as
    long; scale 1 is the conditional model itself, 0 the unconditional one, and each then is called once.

    Args:
        condition: (N, K), NaN where a value is not known; or None for no condition, which allows no scale but 1.
        concat: (N, C', *spatial), given to the model as it is in both.
    """
    if not 0 <= scale < math.inf:
        raise ValueError(f"guidance scale is {scale}; a finite number of at least 0 is needed")
    if condition is None:
        if scale != 1:
            raise ValueError(f"guidance scale is {scale} without a condition; allowed: 1")
        return lambda x, t: model(x, t, None, concat)
    if scale in (0, 1):
        single = condition if scale == 1 else null_condition(condition)
        return lambda x, t: model(x, t, single, concat)
    both = torch.cat([condition, null_condition(condition)])
    twice = None if concat is None else torch.cat([concat, concat])

    def predict(x: Tensor, t: Tensor) -> Tensor:
        conditional, unconditional = model(torch.cat([x, x]), torch.cat([t, t]), both, twice).chunk(2)
        return unconditional + scale * (conditional - unconditional)

    return predict
