"""Losses of the denoiser."""

from __future__ import annotations

import pytest
import torch

from pipeline_lib.diffusion.losses import diffusion_loss


@pytest.mark.parametrize(
    ("kind", "expected"), [("l2", (0.25 + 9) / 2), ("l1", (0.5 + 3) / 2), ("huber", (0.125 + 2.5) / 2)]
)
@pytest.mark.parametrize("dimensions", [2, 3])
def test_each_kind_is_its_formula(kind: str, expected: float, dimensions: int) -> None:
    target = torch.zeros(2, 1, *[3] * dimensions)
    output = target + torch.tensor([0.5, 3.0]).reshape(2, *[1] * (dimensions + 1))
    assert float(diffusion_loss(output, target, kind)) == pytest.approx(expected)


def test_weights_are_those_of_samples(device: torch.device) -> None:
    target = torch.zeros(2, 1, 4, 4, device=device)
    output = target + torch.tensor([1.0, 2.0], device=device).reshape(2, 1, 1, 1)
    assert float(diffusion_loss(output, target, "l2", torch.tensor([3.0, 0.5], device=device))) == pytest.approx(
        (3 + 2) / 2
    )


def test_half_precision_is_summed_in_float32() -> None:
    output = torch.full((1, 1, 64, 64), 0.1, dtype=torch.bfloat16)
    loss = diffusion_loss(output, torch.zeros_like(output))
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(output[0, 0, 0, 0]) ** 2, rel=1e-5)


def test_bad_arguments_say_what_is_allowed() -> None:
    x = torch.zeros(2, 1, 4, 4)
    with pytest.raises(ValueError, match="'l3'; allowed: l2, l1, huber"):
        diffusion_loss(x, x, "l3")
    with pytest.raises(ValueError, match=r"\(1, 1, 4, 4\)"):
        diffusion_loss(x[:1], x)
    with pytest.raises(ValueError, match=r"weight has shape \(3,\)"):
        diffusion_loss(x, x, "l2", torch.ones(3))
