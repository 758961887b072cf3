"""The averaged weights, against the recursion written out."""

from __future__ import annotations

import pytest
import torch

from pipeline_lib.training.ema import EMA


@pytest.mark.parametrize("limit", [0.0, 0.3, 0.9999])
def test_decay_ramps_up_to_its_limit(limit: float) -> None:
    module = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    average = EMA(module, limit)
    expected = module.weight.item()
    for step in range(1, 40):
        torch.nn.init.constant_(module.weight, float(step) ** 0.5)
        average.update(module, step)
        decay = min(limit, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step**0.5
        assert average.module.weight.item() == pytest.approx(expected, rel=1e-12)
