"""KL autoencoder."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from devices import assert_the_same
from torch import nn

from pipeline_lib.models.autoencoder import KLAutoencoder, kl_divergence, sample_latent
from pipeline_lib.models.folding import fold_voxels, unfold_voxels


def autoencoder(dimensions: int, **options: object) -> KLAutoencoder:
    torch.manual_seed(0)
    sizes = {"in_channels": 2, "channels": (8, 8, 16), "latent_channels": 3, "blocks": 1, **options}
    return KLAutoencoder(dimensions=dimensions, **sizes)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("n", [1, 2])
def test_shapes_and_factor(dimensions: int, n: int) -> None:
    model = autoencoder(dimensions)
    x = torch.randn(n, 2, *[12, 8, 4][:dimensions])
    mean, std = model.encode(x)
    assert model.factor == 4
    assert mean.shape == std.shape == (n, 3, *[3, 2, 1][:dimensions])
    assert (std > 0).all()
    assert model.decode(mean).shape == x.shape
    assert model.last_layer.shape[:2] == (2, 8)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_forward_decodes_a_draw_from_the_latent(dimensions: int) -> None:
    model = autoencoder(dimensions)
    x = torch.randn(2, 2, *[8] * dimensions)
    reconstruction, mean, std = model(x, torch.Generator().manual_seed(1))
    again = model.decode(sample_latent(mean, std, torch.Generator().manual_seed(1)))
    assert torch.equal(reconstruction, again)


def test_drawn_latents_have_the_given_mean_and_spread() -> None:
    mean, std = torch.full((20_000, 1), 2.0), torch.full((20_000, 1), 0.5)
    z = sample_latent(mean, std, torch.Generator().manual_seed(0))
    assert float(z.mean()) == pytest.approx(2, abs=0.02)
    assert float(z.std()) == pytest.approx(0.5, abs=0.01)


def test_divergence_is_that_of_torch_distributions() -> None:
    mean, std = torch.randn(2, 3, 4, 4), torch.rand(2, 3, 4, 4) + 0.1
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, std), torch.distributions.Normal(0.0, 1.0)
    ).mean()
    assert torch.allclose(kl_divergence(mean, std), expected)
    assert kl_divergence(mean.bfloat16(), std.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("dimensions", [2, 3])
def test_it_learns_to_reconstruct(dimensions: int) -> None:
    model = autoencoder(dimensions, in_channels=1, channels=(8, 16))
    optimiser = torch.optim.AdamW(model.parameters(), 5e-3)
    x = torch.rand(4, 1, *[2] * dimensions).repeat_interleave(4, -1).repeat_interleave(4, -2)
    if dimensions == 3:
        x = x.repeat_interleave(4, -3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        reconstruction, mean, std = model(x, generator)
        loss = (reconstruction - x).square().mean() + 1e-6 * kl_divergence(mean, std)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.5 * x.var()


@pytest.mark.parametrize(("log_variance", "limited"), [(-100, -30), (-29, -29), (19, 19), (100, 20)])
def test_the_spread_of_a_latent_is_limited(log_variance: int, limited: int) -> None:
    model = autoencoder(2)
    nn.init.zeros_(model.log_variance.weight)
    nn.init.constant_(model.log_variance.bias, log_variance)
    std = model.encode(torch.randn(1, 2, 8, 8))[1]
    assert torch.allclose(std, torch.full_like(std, math.exp(limited / 2)))


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_other_precisions(dimensions: int, dtype: torch.dtype) -> None:
    x = torch.randn(1, 2, *[8] * dimensions)
    reference = autoencoder(dimensions)
    for parameter in reference.parameters():  # what starts at 0 would hide what comes before it
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    model = copy.deepcopy(reference).to(dtype)
    mean, std = reference.encode(x)
    pairs = [
        *zip(model.encode(x.to(dtype)), (mean, std), strict=True),
        (model.decode(mean.to(dtype)), reference.decode(mean)),
    ]
    for found, expected in pairs:
        assert found.dtype == dtype
        assert torch.allclose(found.float(), expected, atol=0.05 if dtype == torch.bfloat16 else 1e-5)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_same_on_every_device(dimensions: int, device: torch.device) -> None:
    model = autoencoder(dimensions)
    for parameter in model.parameters():  # what starts at 0 would hide what comes before it
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    inputs = [torch.randn(2, channels, *[size] * dimensions) for channels, size in ((2, 12), (3, 3))]
    assert_the_same(model, inputs, device, lambda model, x: [*model.encode(x[0]), model.decode(x[1])])


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("fold", [1, 2, 4])
def test_any_size_comes_back(dimensions: int, fold: int) -> None:
    """Padded by repeating the last voxels within the network, and cut again: no voxel of the image is lost or moved."""
    model, size = autoencoder(dimensions, fold=fold), [13, 8, 5][:dimensions]
    x = torch.randn(2, 2, *size)
    mean, _ = model.encode(x)
    assert model.factor == 4 * fold
    assert list(mean.shape[2:]) == model.latent_size(size) == [math.ceil(n / model.factor) for n in size]
    assert model.decode(mean, size).shape == model(x)[0].shape == x.shape
    whole = model.decode(mean)
    assert list(whole.shape[2:]) == [n * model.factor for n in mean.shape[2:]]
    assert torch.equal(model.decode(mean, size), whole[(..., *(slice(n) for n in size))])
    padded = F.pad(x, [w for n in reversed(size) for w in (0, -n % model.factor)], mode="replicate")
    assert torch.equal(mean, model.encode(padded)[0])


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_folded_autoencoder_is_the_plain_one_on_folded_voxels(dimensions: int) -> None:
    folded, plain = autoencoder(dimensions, fold=2), autoencoder(dimensions, in_channels=2 * 2**dimensions)
    x = torch.randn(2, 2, *[16] * dimensions)
    mean, _ = plain.encode(fold_voxels(x, 2))
    assert torch.equal(folded.encode(x)[0], mean)
    assert torch.equal(folded.decode(mean), unfold_voxels(plain.decode(mean), 2))
    assert folded.last_layer.shape == plain.last_layer.shape


def test_other_channels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"latent has shape \(1, 2, 4, 4\); \(N, 3, H, W\)"):
        autoencoder(2).decode(torch.zeros(1, 2, 4, 4))


@pytest.mark.parametrize("name", ["in_channels", "latent_channels", "blocks"])
def test_sizes_of_nothing_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0; at least 1 is needed"):
        autoencoder(2, **{name: 0})
