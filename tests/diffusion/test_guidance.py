"""Classifier-free guidance."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipeline_lib.diffusion.guidance import guided


class Recorder:
    """A model whose output tells its condition: the sum of its values, 0 where one is hidden; calls are counted."""

    def __init__(self) -> None:
        self.calls = 0
        self.samples = 0

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor | None, concat: Tensor | None) -> Tensor:
        self.calls += 1
        self.samples += len(x)
        if condition is None:
            return x
        value = torch.where(condition.isnan().any(1), 0, condition.nan_to_num().sum(1))
        out = torch.zeros_like(x) + value.reshape(-1, 1, 1, 1) + t.reshape(-1, 1, 1, 1)
        return out if concat is None else out + concat


X, T = torch.zeros(2, 1, 3, 3), torch.tensor([100, 200])


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("condition", [torch.tensor([[10.0], [11.0]]), torch.tensor([[4.0, 6.0], [5.0, 6.0]])])
def test_output_lies_on_the_line_from_unconditional_to_conditional(
    scale: float, condition: Tensor, device: torch.device
) -> None:
    model, concat = Recorder(), torch.tensor([0.25, 0.5], device=device).reshape(2, 1, 1, 1).expand(2, 1, 3, 3)
    output = guided(model, condition.to(device), scale, concat)(X.to(device), T.to(device))
    assert output[:, 0, 0, 0].tolist() == [100.25 + 10 * scale, 200.5 + 11 * scale]
    assert model.calls == 1
    assert model.samples == (2 if scale in (0, 1) else 4)  # no second half where its weight is 0


def test_without_a_condition_the_model_is_called_as_it_is() -> None:
    assert torch.equal(guided(Recorder(), None)(X, T), X)
    with pytest.raises(ValueError, match=r"2\.0 without a condition; allowed: 1"):
        guided(Recorder(), None, 2.0)


@pytest.mark.parametrize("scale", [-1.0, float("nan"), float("inf")])
def test_negative_or_infinite_scale_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match=f"{scale}; a finite number of at least 0"):
        guided(Recorder(), torch.tensor([[0.0], [1.0]]), scale)
