"""VQGAN: shapes, the quantised way through, and that it learns."""

from __future__ import annotations

import copy

import pytest
import torch
from devices import assert_the_same
from torch import nn

from pipeline_lib.models.vqgan import VQGAN


def vqgan(dimensions: int, **options: object) -> VQGAN:
    torch.manual_seed(0)
    sizes = {"in_channels": 1, "channels": (8, 16), "blocks": 1, "codes": 16, "latent_channels": 3, **options}
    return VQGAN(dimensions=dimensions, **sizes)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("n", [1, 2])
def test_shapes_and_factor(dimensions: int, n: int) -> None:
    model = vqgan(dimensions, channels=(16, 32, 32)).eval()
    x = torch.randn(n, 1, *[12, 8, 4][:dimensions])
    z, spread = model.encode(x)
    assert model.factor == 4
    assert z.shape == spread.shape == (n, 3, *[3, 2, 1][:dimensions])
    assert not spread.any()
    reconstruction, quantised = model(x)
    assert reconstruction.shape == x.shape
    assert quantised.indices.shape == (n, *[3, 2, 1][:dimensions])
    assert torch.equal(model.decode(z), reconstruction)
    assert torch.allclose(model.decode(quantised.z), reconstruction, atol=1e-5)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("training", [True, False])
def test_other_precisions_keep_their_dtype_and_the_codebook_float32(
    dimensions: int, dtype: torch.dtype, training: bool
) -> None:
    reference = vqgan(dimensions).train(training)
    for parameter in reference.parameters():  # what starts at 0 would hide what comes before it
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    model = copy.deepcopy(reference).to(dtype)
    x = torch.randn(2, 1, *[8] * dimensions, generator=torch.Generator().manual_seed(2)).to(dtype)
    torch.manual_seed(5)
    reconstruction, quantised = model(x)
    assert reconstruction.dtype == quantised.z.dtype == dtype
    assert all(b.dtype == torch.float32 for b in model.buffers() if b.is_floating_point())
    torch.manual_seed(5)
    expected, wanted = reference(x.float())
    same = (quantised.indices == wanted.indices).float().mean()
    assert same > 0.95  # a vector about halfway between two codes may change
    assert (reconstruction - expected).abs().mean() < 0.1 * expected.abs().mean()
    (reconstruction.float().square().mean() + quantised.loss).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("dimensions", [2, 3])
def test_it_learns_to_reconstruct_with_gradients_through_the_codes(dimensions: int) -> None:
    model = vqgan(dimensions)
    optimiser = torch.optim.AdamW(model.parameters(), 5e-3)
    x = torch.rand(4, 1, *[2] * dimensions, generator=torch.Generator().manual_seed(1))
    for axis in range(2, dimensions + 2):
        x = x.repeat_interleave(4, axis)
    for _ in range(80):
        reconstruction, quantised = model(x)
        loss = (reconstruction - x).square().mean() + quantised.loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.encoder.parameters())
    assert (reconstruction - x).square().mean() < 0.5 * x.var()


@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_same_on_every_device(dimensions: int, device: torch.device) -> None:
    model = vqgan(dimensions).eval()
    for parameter in model.parameters():  # what starts at 0 would hide what comes before it
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    codes = model.quantiser.codebook[torch.randint(16, (2, *[4] * dimensions))].movedim(-1, 1)
    inputs = [torch.randn(2, 1, *[8] * dimensions), codes]
    assert_the_same(model, inputs, device, lambda model, x: [model.encode(x[0])[0], model.decode(x[1])])


def test_the_codebook_is_part_of_the_state() -> None:
    model, x = vqgan(2), torch.randn(2, 1, 8, 8)
    model(x)
    other = vqgan(2)
    other.load_state_dict(model.state_dict())
    assert torch.equal(model.eval()(x)[0], other.eval()(x)[0])


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("fold", [1, 2, 4])
def test_any_size_comes_back(dimensions: int, fold: int) -> None:
    model, size = vqgan(dimensions, fold=fold).eval(), [13, 8, 5][:dimensions]
    x = torch.randn(2, 1, *size)
    z, _ = model.encode(x)
    assert model.factor == 2 * fold
    assert list(z.shape[2:]) == model.latent_size(size) == [-(-n // model.factor) for n in size]
    assert model.decode(z, size).shape == x.shape
    assert torch.equal(model.decode(z, size), model(x)[0])


def test_bad_arguments_say_what_is_allowed() -> None:
    with pytest.raises(ValueError, match="fold is 8; allowed: 1, 2, 4"):
        vqgan(2, fold=8)
    with pytest.raises(ValueError, match="latent has shape"):
        vqgan(2).decode(torch.zeros(1, 1, 4, 4))
    with pytest.raises(ValueError, match="latent_channels is 0; at least 1"):
        vqgan(2, latent_channels=0)
