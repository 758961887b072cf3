"""Discriminator, hinge losses and the adaptive weight."""

from __future__ import annotations

import pytest
import torch
from devices import assert_the_same
from torch import nn

from pipeline_lib.models.adversarial import (
    adaptive_weight,
    adversarial_ramp,
    discriminator_loss,
    generator_loss,
)
from pipeline_lib.models.discriminator import PatchDiscriminator


@pytest.mark.parametrize("dimensions", [2, 3])
def test_one_logit_a_patch(dimensions: int) -> None:
    model = PatchDiscriminator(dimensions=dimensions, in_channels=2, channels=8, layers=2)
    assert model(torch.randn(1, 2, *[16] * dimensions)).shape == (1, 1, *[4] * dimensions)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_same_on_every_device(dimensions: int, device: torch.device) -> None:
    torch.manual_seed(0)
    model = PatchDiscriminator(dimensions=dimensions, in_channels=1, channels=8, layers=2)
    x = torch.randn(2, 1, *[12] * dimensions)
    assert_the_same(model, [x], device, lambda model, x: [model(x[0])])


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_other_precisions(dimensions: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = PatchDiscriminator(dimensions=dimensions, in_channels=1, channels=8, layers=2)
    x = torch.randn(2, 1, *[8] * dimensions)
    expected = model(x)
    logits = model.to(dtype)(x.to(dtype))
    assert logits.dtype == dtype
    assert torch.allclose(logits.float(), expected, atol=0.03 if dtype == torch.bfloat16 else 1e-5)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_it_learns_to_tell_smooth_from_rough(dimensions: int) -> None:
    torch.manual_seed(0)
    model = PatchDiscriminator(dimensions=dimensions, in_channels=1, channels=8, layers=2)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3)
    for _ in range(30):
        rough = torch.randn(4, 1, *[8] * dimensions)
        smooth = rough.mean(dim=tuple(range(2, dimensions + 2)), keepdim=True).expand_as(rough)
        loss = discriminator_loss(model(smooth), model(rough))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.3
    assert generator_loss(model(smooth)) < generator_loss(model(rough))


def test_hinge_losses_are_their_formulas() -> None:
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-2.0, 0.0, 3.0])
    assert float(discriminator_loss(real, fake)) == pytest.approx(0.5 * ((0 + 0.5 + 2) / 3 + (0 + 1 + 4) / 3))
    assert float(generator_loss(fake)) == pytest.approx(-1 / 3)


def test_weight_is_the_ratio_of_gradients_at_the_last_layer(device: torch.device) -> None:
    torch.manual_seed(0)
    body, last, critic = (layer.to(device) for layer in (nn.Conv2d(1, 4, 3), nn.Conv2d(4, 1, 3), nn.Conv2d(1, 1, 3)))
    x = torch.randn(2, 1, 9, 9, device=device)
    out = last(body(x).tanh())
    reconstruction, adversarial = (out - 1).square().mean(), critic(out).mean()
    weight = adaptive_weight(reconstruction, adversarial, last.weight)
    reconstruction.backward(retain_graph=True)
    first = last.weight.grad.clone()
    last.weight.grad = None
    adversarial.backward()
    assert torch.allclose(weight, first.norm() / (last.weight.grad.norm() + 1e-4))
    assert not weight.requires_grad
    assert weight.dtype == torch.float32


def test_weight_is_limited_where_the_discriminator_says_nothing() -> None:
    w = torch.ones(3, requires_grad=True)
    assert adaptive_weight((100 * w).sum(), (0 * w).sum(), w) == 1e4
    assert adaptive_weight((0 * w).sum(), w.sum(), w) == 0


def test_weight_in_half_precision_is_computed_in_float32() -> None:
    w = torch.ones(64, dtype=torch.bfloat16, requires_grad=True)
    scale = torch.linspace(0.3, 3, 64).bfloat16()
    weight = adaptive_weight((scale * w).sum(), 0.37 * w.sum(), w)
    assert weight.dtype == torch.float32
    share = float(torch.tensor(0.37).bfloat16())
    assert float(weight) == pytest.approx(float(scale.float().norm()) / (share * 8 + 1e-4), rel=1e-5)


def test_weight_of_means_over_more_voxels_than_float16_can_tell() -> None:
    w = torch.ones(1, requires_grad=True)
    decoded = (w * torch.ones(1000)).half()
    weight = adaptive_weight(2.5e-8 * decoded.float().sum(), 5e-8 * decoded.float().sum(), w)
    assert float(weight) == pytest.approx(2.5e-5 / (5e-5 + 1e-4), rel=0.02)


def test_ramp_is_late_and_linear() -> None:
    assert [adversarial_ramp(step, 100, 50) for step in (0, 100, 125, 150, 900)] == [0, 0, 0.5, 1, 1]
    with pytest.raises(ValueError, match="length of the ramp is 0"):
        adversarial_ramp(1, 1, 0)


def test_bad_arguments_say_what_is_allowed() -> None:
    with pytest.raises(ValueError, match="layers is 0; at least 1"):
        PatchDiscriminator(dimensions=2, in_channels=1, layers=0)
    with pytest.raises(ValueError, match=r"\(N, 1, H, W\)"):
        PatchDiscriminator(dimensions=2, in_channels=1)(torch.zeros(1, 2, 16, 16))
