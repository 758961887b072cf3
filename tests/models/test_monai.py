"""MONAI's networks with the same weights give the same outputs, both ways, in 2D and 3D."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from pipeline_lib.models.autoencoder import KLAutoencoder
from pipeline_lib.models.monai import (
    load_monai_autoencoder,
    load_monai_unet,
    monai_autoencoder_state,
    monai_unet_state,
)
from pipeline_lib.models.unet import UNet

pytest.importorskip("einops", reason="MONAI's attention needs einops")
nets = pytest.importorskip("monai.networks.nets")


def randomised(module: Any) -> Any:
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.15)
    return module.eval()


def unets(dimensions: int, blocks: int = 1) -> tuple[UNet, Any]:
    ours = UNet(
        dimensions=dimensions, in_channels=2, out_channels=1, channels=(8, 16, 16), blocks=blocks,
        attention=(False, True, True), head_channels=8, groups=4,
    )  # fmt: skip
    theirs = nets.DiffusionModelUNet(
        spatial_dims=dimensions, in_channels=2, out_channels=1, channels=(8, 16, 16), num_res_blocks=blocks,
        attention_levels=(False, True, True), num_head_channels=8, norm_num_groups=4,
    )  # fmt: skip
    return ours.eval(), randomised(theirs)


def autoencoders(dimensions: int) -> tuple[KLAutoencoder, Any]:
    ours = KLAutoencoder(
        dimensions=dimensions, in_channels=1, channels=(8, 16, 16), latent_channels=3, blocks=2, groups=4
    )
    theirs = nets.AutoencoderKL(
        spatial_dims=dimensions, in_channels=1, out_channels=1, channels=(8, 16, 16), latent_channels=3,
        num_res_blocks=(2, 2, 2), attention_levels=(False, False, False), norm_num_groups=4,
        with_encoder_nonlocal_attn=False, with_decoder_nonlocal_attn=False,
    )  # fmt: skip
    return ours.eval(), randomised(theirs)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("blocks", [1, 2])
def test_unet(dimensions: int, blocks: int) -> None:
    ours, theirs = unets(dimensions, blocks)
    x, t = torch.randn(2, 2, *[8] * dimensions), torch.tensor([3, 700])
    load_monai_unet(ours, theirs.state_dict())
    assert torch.allclose(ours(x, t), theirs(x, t), atol=1e-5, rtol=1e-5)
    back = unets(dimensions, blocks)[1]
    randomised(ours)
    back.load_state_dict(monai_unet_state(ours))
    assert torch.allclose(ours(x, t), back(x, t), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_autoencoder(dimensions: int) -> None:
    ours, theirs = autoencoders(dimensions)
    x = torch.randn(2, 1, *[8] * dimensions)
    load_monai_autoencoder(ours, theirs.state_dict())
    for one, other in zip(ours.encode(x), theirs.encode(x), strict=True):
        assert torch.allclose(one, other, atol=1e-5, rtol=1e-5)
    z = ours.encode(x)[0]
    assert torch.allclose(ours.decode(z), theirs.decode(z), atol=1e-5, rtol=1e-5)
    randomised(ours)
    theirs.load_state_dict(monai_autoencoder_state(ours))
    assert torch.allclose(ours.decode(z), theirs.decode(z), atol=1e-5, rtol=1e-5)


def test_another_structure_is_refused_naming_the_weight() -> None:
    ours, theirs = unets(2)
    state = theirs.state_dict()
    with pytest.raises(ValueError, match=r"has no 'conv_in.conv.weight'"):
        load_monai_unet(ours, {k: v for k, v in state.items() if k != "conv_in.conv.weight"})
    with pytest.raises(ValueError, match="has 'extra', for which there is no place"):
        load_monai_unet(ours, {**state, "extra": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"'conv_in.conv.weight' has shape \(1,\)"):
        load_monai_unet(ours, {**state, "conv_in.conv.weight": torch.zeros(1)})
