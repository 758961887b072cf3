"""Folding of voxels into channels, against PyTorch's own in 2D and by its definition in 3D."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from pipeline_lib.models.folding import crop, fold_voxels, pad, unfold_voxels


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_in_2d_it_is_pixel_unshuffle(factor: int) -> None:
    x = torch.randn(2, 3, 8, 12)
    folded = F.pixel_unshuffle(x, factor)
    assert torch.equal(fold_voxels(x, factor), folded)
    assert torch.equal(unfold_voxels(folded, factor), F.pixel_shuffle(folded, factor))


@pytest.mark.parametrize("factor", [2, 4])
def test_in_3d_a_channel_is_every_factor_th_voxel(factor: int) -> None:
    x = torch.randn(2, 3, 8, 12, 4)
    folded = fold_voxels(x, factor)
    assert folded.shape == (2, 3 * factor**3, 8 // factor, 12 // factor, 4 // factor)
    places = itertools.product(range(3), range(factor), range(factor), range(factor))
    for channel, (c, i, j, k) in enumerate(places):
        assert torch.equal(folded[:, channel], x[:, c, i::factor, j::factor, k::factor])


@pytest.mark.parametrize("factor", [1, 2, 4])
@pytest.mark.parametrize("spatial", [(8, 4), (4, 12, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_unfolding_is_the_exact_inverse(factor: int, spatial: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, *spatial, dtype=dtype)
    assert torch.equal(unfold_voxels(fold_voxels(x, factor), factor), x)


@pytest.mark.parametrize("spatial", [(5, 7), (200, 200), (3, 9, 4)])
@pytest.mark.parametrize("multiple", [1, 4, 16])
def test_padding_repeats_the_last_voxels_and_is_cut_again(spatial: tuple[int, ...], multiple: int) -> None:
    x = torch.randn(1, 2, *spatial)
    padded = pad(x, multiple)
    assert list(padded.shape[2:]) == [-(-n // multiple) * multiple for n in spatial]
    assert torch.equal(crop(padded, spatial), x)
    last = x[..., -1:].expand(*x.shape[:-1], padded.shape[-1] - spatial[-1])
    assert torch.equal(crop(padded, spatial[:-1])[..., spatial[-1] :], last)
