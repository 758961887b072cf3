"""The regressor starts as a linear map, and is local."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline_lib.bundles.bundle import load_bundle, save_bundle
from pipeline_lib.models.layers import VoxelNorm
from pipeline_lib.models.regressor import Regressor
from pipeline_lib.models.unet import UNet

WEIGHTS, INTERCEPT = [[0.5, -1.0], [2.0, 0.25], [0.0, 1.0]], [0.1, -0.2, 0.3]
CENTRE, SPREAD = [0.2, -0.4], [0.5, 2.0]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def regressor(dimensions: int = 2) -> Regressor:
    torch.manual_seed(0)
    shape = {"dimensions": dimensions, "in_channels": 2, "out_channels": 3}
    return Regressor(**shape, channels=[4, 8], blocks=1, fold=1).start_from(WEIGHTS, INTERCEPT, CENTRE, SPREAD)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_new_one_is_the_linear_map(dimensions: int) -> None:
    x = torch.randn(2, 2, *[9] * dimensions)
    expected = torch.tensor(WEIGHTS) @ x.flatten(2) + torch.tensor(INTERCEPT)[:, None]
    torch.testing.assert_close(regressor(dimensions)(x).flatten(2), expected)


def test_the_network_sees_a_standardised_source() -> None:
    x = torch.randn(4, 2, 30, 30) * torch.tensor(SPREAD).reshape(2, 1, 1) + torch.tensor(CENTRE).reshape(2, 1, 1)
    seen = regressor().standardised(x)
    torch.testing.assert_close(seen.mean((0, 2, 3)), torch.zeros(2), atol=0.05, rtol=0)
    torch.testing.assert_close(seen.std((0, 2, 3)), torch.ones(2), atol=0.05, rtol=0)
    assert regressor().standardised(x - 1e6).min() == -5


def test_the_linear_map_travels_and_is_not_trained(tmp_path: Path) -> None:
    network = regressor()
    assert not {"weights", "intercept", "centre", "spread"} & {name for name, _ in network.named_parameters()}
    architecture = {
        "dimensions": 2, "in_channels": 2, "out_channels": 3, "channels": [4, 8], "blocks": 1, "fold": 1, "dropout": 0.0,
    }  # fmt: skip
    save_bundle(tmp_path, network, kind="regressor", architecture=architecture, info={})
    x = torch.randn(1, 2, 12, 12)
    torch.testing.assert_close(load_bundle(tmp_path).module(x), network(x))


def test_a_voxel_depends_on_its_neighbourhood_only() -> None:
    network = regressor().eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    x = torch.randn(1, 2, 96, 16)
    far = x.clone()
    far[:, :, 60:] += 1
    changed = (network(far) - network(x)).abs().amax((0, 1, 3))
    assert changed[:16].max() == 0
    assert changed[60:].min() > 0


def test_a_voxel_is_normalised_by_itself() -> None:
    x = torch.randn(2, 6, 3, 4, 5) * 3 + 1
    normed = VoxelNorm(6)(x)
    torch.testing.assert_close(normed.mean(1), torch.zeros(2, 3, 4, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close(normed.var(1, correction=0), torch.ones(2, 3, 4, 5), atol=1e-3, rtol=0)


def test_local_networks_refuse_attention_and_groups() -> None:
    shape = {"dimensions": 2, "in_channels": 1, "out_channels": 1, "channels": [4, 8], "blocks": 1}
    for more in ({"attention": [False, True]}, {"attention": [False, False], "groups": 2}):
        with pytest.raises(ValueError, match="no attention and no groups"):
            UNet(**shape, **more, local=True)  # type: ignore[arg-type]
