"""Tiles: what comes out is what the whole volume gives, in bounded memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pipeline_lib.models.regressor import Regressor
from pipeline_lib.models.tiles import OVERLAP, TILE, tiled


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("size", [(16, 16), (17, 40), (33, 70), (9, 12, 30), (31, 16, 17)])
def test_weights_of_overlapping_tiles_sum_to_one(size: tuple[int, ...]) -> None:
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(tiled(lambda tile: tile, x, tile=16, overlap=8), x, atol=1e-6, rtol=0)
    torch.testing.assert_close(tiled(lambda tile: tile, x, tile=16, overlap=0), x)


def test_a_neighbourhood_of_three_eighths_of_the_overlap_is_enough_for_equality() -> None:
    torch.manual_seed(0)
    network = nn.Conv3d(2, 3, 5, padding=2)
    x = torch.randn(1, 2, 40, 33, 21)
    torch.testing.assert_close(tiled(network, x, tile=16, overlap=8), network(x), atol=1e-5, rtol=0)


def test_no_more_than_a_tile_is_computed_at_once() -> None:
    seen: list[Tensor] = []
    tiled(lambda tile: seen.append(tile) or tile, torch.zeros(1, 1, 50, 20, 33), tile=16, overlap=4)  # type: ignore[func-returns-value]
    assert len(seen) > 8
    assert all(max(tile.shape[2:]) <= 16 for tile in seen)


def test_tiles_that_do_not_fit_the_grid_of_the_network_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 8"):
        tiled(lambda tile: tile, torch.zeros(1, 1, 50, 50), multiple=8, tile=36, overlap=8)
    with pytest.raises(ValueError, match="at most half of tile"):
        tiled(lambda tile: tile, torch.zeros(1, 1, 50, 50), tile=16, overlap=12)


def test_a_regression_in_tiles_equals_the_whole_within_a_thousandth() -> None:
    """With the tiles that are used, of an image larger than them; maps are in [-1, 1], a thousandth of the range is .002."""
    torch.manual_seed(0)
    network = Regressor(dimensions=2, in_channels=2, out_channels=3, channels=[16, 32], blocks=1, fold=2).eval()
    for parameter in network.unet.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    x = torch.rand(1, 2, TILE + 70, 64) * 2 - 1
    with torch.no_grad():
        whole, parts = network(x), tiled(network, x, multiple=network.multiple())
    added = whole - network.intercept.reshape(1, -1, 1, 1)
    assert added.std() > 0.01, "the network says something"
    assert (parts - whole).abs().max() < 0.002
    assert OVERLAP % network.multiple() == 0
