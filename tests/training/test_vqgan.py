"""The VQGAN's step: when the discriminator learns, when the generator sees it, and what it pays then."""

from __future__ import annotations

import pytest
import torch

from pipeline_lib.config.schema import AutoencoderOptions
from pipeline_lib.models.adversarial import discriminator_loss, generator_loss
from pipeline_lib.models.discriminator import PatchDiscriminator
from pipeline_lib.models.vqgan import VQGAN
from pipeline_lib.training.steps import Draw
from pipeline_lib.training.vqgan import VQGANStep

DRAW = Draw(0, 2, slice(0, 2), torch.device("cpu"))
BATCH = {"image": torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))}


def made(**options: float) -> VQGANStep:
    torch.manual_seed(0)
    module = VQGAN(dimensions=2, in_channels=1, channels=(8, 8), blocks=1, codes=8, latent_channels=3)
    torch.nn.init.normal_(module.last_layer, std=0.3)
    discriminator = PatchDiscriminator(dimensions=2, in_channels=1, channels=8, layers=2)
    chosen = AutoencoderOptions.model_validate({"adversarial_weight": 0.5, "adversarial_start": 10, **options})
    return VQGANStep(module.eval(), discriminator, "image", chosen, BATCH["image"])


@pytest.mark.parametrize(("step", "learns"), [(0, False), (4, False), (5, True), (30, True)])
def test_discriminator_learns_from_half_of_the_start_on(step: int, learns: bool) -> None:
    assert made().order(step) == (["vqgan", "discriminator"] if learns else ["vqgan"])
    assert made(adversarial_weight=0).order(step) == ["vqgan"]


@pytest.mark.parametrize(("step", "ramp"), [(0, 0), (10, 0), (12, 0.2), (20, 1), (99, 1)])
def test_generator_pays_late_and_ramped_up(step: int, ramp: float) -> None:
    each = made()
    losses = each.losses("vqgan", BATCH, DRAW, step)
    expected = losses["reconstruction"] + losses["commitment"]
    assert ("adversarial" in losses) == (ramp > 0)
    if ramp:
        decoded = each.generator(BATCH["image"])[0]
        assert torch.allclose(losses["adversarial"], generator_loss(each.discriminator(decoded)))
        expected = expected + 0.5 * ramp * losses["lambda"] * losses["adversarial"]
        assert losses["lambda"] > 0
    assert torch.allclose(losses["loss"], expected)
    losses["loss"].backward()
    assert all(parameter.grad is None for parameter in each.discriminator.parameters())
    assert all(parameter.requires_grad for parameter in each.discriminator.parameters())


def test_discriminator_is_shown_what_the_generator_has_just_made() -> None:
    each = made()
    each.losses("vqgan", BATCH, DRAW, 7)
    found = each.losses("discriminator", BATCH, DRAW, 7)["loss"]
    real, fake = (each.discriminator(x) for x in (BATCH["image"], each.generator(BATCH["image"])[0]))
    assert torch.allclose(found, discriminator_loss(real, fake))
    found.backward()
    assert all(parameter.grad is None for parameter in each.generator.parameters())


def test_a_codebook_may_come_after_a_continuous_autoencoder() -> None:
    each = made(codebook_start=10, adversarial_weight=0)
    each.generator.train()
    before = each.losses("vqgan", BATCH, DRAW, 9)
    expected = (each.generator.continuous(BATCH["image"]) - BATCH["image"]).abs().mean()
    assert torch.allclose(before["loss"], expected)
    assert before["commitment"] == 0
    assert torch.allclose(each.validate(each.generator.eval(), BATCH, DRAW)["loss"], expected)
    assert not each.generator.quantiser.initialised
    each.generator.train()
    latents = each.generator.encode(BATCH["image"])[0].movedim(1, -1).flatten(0, -2)
    after = each.losses("vqgan", BATCH, DRAW, 10)
    assert after["commitment"] > 0
    assert each.generator.quantiser.initialised
    assert torch.cdist(each.generator.quantiser.codebook, latents).min(1).values.max() < 0.5 * latents.std(), (
        "codes lie among the latents"
    )
    assert not torch.allclose(each.validate(each.generator.eval(), BATCH, DRAW)["loss"], expected)
