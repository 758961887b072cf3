"""Layers against PyTorch's own reference modules."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pipeline_lib.models.layers import (
    Attention,
    Downsample,
    ResidualBlock,
    Upsample,
    check_input,
    conv,
    group_norm,
    timestep_embedding,
)


def filled(module: nn.Module, seed: int = 0) -> nn.Module:
    """`module` with random parameters, those included that start at 0."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return module


@pytest.mark.parametrize("spatial", [(5, 4), (3, 2, 4)])
@pytest.mark.parametrize("head_channels", [4, 16, 64])
def test_self_attention_equals_torch_multihead_attention(spatial: tuple[int, ...], head_channels: int) -> None:
    attention = filled(Attention(16, head_channels)).double()
    reference = nn.MultiheadAttention(16, max(1, 16 // head_channels), batch_first=True).double()
    with torch.no_grad():
        reference.in_proj_weight.copy_(torch.cat([attention.query.weight, attention.key_value.weight]))
        reference.in_proj_bias.copy_(torch.cat([attention.query.bias, attention.key_value.bias]))
        reference.out_proj.weight.copy_(attention.out.weight)
        reference.out_proj.bias.copy_(attention.out.bias)
    x = torch.randn(2, 16, *spatial, dtype=torch.float64)
    tokens = attention.norm(x).flatten(2).transpose(1, 2)
    expected = reference(tokens, tokens, tokens, need_weights=False)[0].transpose(1, 2).reshape(x.shape)
    assert torch.allclose(attention(x) - x, expected, atol=1e-12)


@pytest.mark.parametrize("spatial", [(5, 4), (3, 2, 4)])
def test_cross_attention_equals_the_textbook_formula(spatial: tuple[int, ...]) -> None:
    attention = filled(Attention(8, 4, context=6)).double()
    x, context = torch.randn(2, 8, *spatial).double(), torch.randn(2, 3, 6).double()
    q = attention.query(attention.norm(x).flatten(2).transpose(1, 2))
    k, v = attention.key_value(context).chunk(2, -1)
    heads = [
        torch.softmax(q[..., part] @ k[..., part].transpose(1, 2) / 2, -1) @ v[..., part]
        for part in (slice(0, 4), slice(4, 8))
    ]
    expected = attention.out(torch.cat(heads, -1)).transpose(1, 2).reshape(x.shape)
    assert torch.allclose(attention(x, context), x + expected, atol=1e-12)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_residual_block_is_its_formula_and_starts_as_its_skip(dimensions: int) -> None:
    block = ResidualBlock(dimensions, 8, 12, embedding=5).double()
    x, embedding = torch.randn(2, 8, *[4] * dimensions).double(), torch.randn(2, 5).double()
    assert torch.equal(block(x, embedding), block.skip(x))
    filled(block)
    h = block.conv1(F.silu(block.norm1(x)))
    h = h + block.embed(F.silu(embedding)).reshape(2, 12, *[1] * dimensions)
    assert torch.allclose(block(x, embedding), block.skip(x) + block.conv2(F.silu(block.norm2(h))), atol=1e-12)


def test_dropout_falls_before_the_second_convolution() -> None:
    block = filled(ResidualBlock(2, 8, 12, dropout=0.3)).double()
    x = torch.randn(2, 8, 4, 4).double()
    torch.manual_seed(0)
    found = block(x)
    torch.manual_seed(0)
    h = F.dropout(F.silu(block.norm2(block.conv1(F.silu(block.norm1(x))))), 0.3)
    assert torch.allclose(found, block.skip(x) + block.conv2(h), atol=1e-12)


@pytest.mark.parametrize(
    ("channels", "groups"), [(4, 1), (16, 4), (24, 6), (32, 8), (48, 12), (64, 16), (256, 32), (7, 1)]
)
def test_groups_divide_channels_with_four_or_more_each(channels: int, groups: int) -> None:
    assert group_norm(channels).num_groups == groups


def test_timestep_embedding_is_the_sinusoid() -> None:
    t = torch.tensor([0, 3, 700])
    embedding = timestep_embedding(t, 6).double()
    for i, frequency in enumerate([1.0, 10_000 ** (-1 / 3), 10_000 ** (-2 / 3)]):
        assert torch.allclose(embedding[:, i], (t * frequency).double().cos(), atol=1e-4)
        assert torch.allclose(embedding[:, i + 3], (t * frequency).double().sin(), atol=1e-4)
    assert timestep_embedding(t, 5).shape == (3, 5)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_sizes_are_halved_rounding_up_and_doubled(dimensions: int) -> None:
    x = torch.randn(1, 4, *[5, 8, 6][:dimensions])
    down = Downsample(dimensions, 4)(x)
    assert down.shape == (1, 4, *[3, 4, 3][:dimensions])
    assert Upsample(dimensions, 4, 6)(down).shape == (1, 6, *[6, 8, 6][:dimensions])
    assert Upsample(dimensions, 4, 6)(down, x.shape[2:]).shape == (1, 6, *x.shape[2:])
    assert Downsample(dimensions, 4, centred=False)(x[:, :, :4]).shape[2] == 2


@pytest.mark.parametrize("spatial", [(5, 4), (3, 2, 4)])
def test_upsampling_equals_interpolation_and_convolution(spatial: tuple[int, ...]) -> None:
    upsample = filled(Upsample(len(spatial), 4, 6)).double()
    x = torch.randn(2, 4, *spatial, dtype=torch.float64, requires_grad=True)
    expected = upsample.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
    found = upsample(x)
    assert torch.allclose(found, expected, atol=1e-12)
    at = [x, upsample.conv.weight, upsample.conv.bias]
    towards = torch.randn_like(expected)
    gradients = zip(torch.autograd.grad(found, at, towards), torch.autograd.grad(expected, at, towards), strict=True)
    assert all(torch.allclose(one, other, atol=1e-11) for one, other in gradients)
    odd = [2 * n - 1 for n in spatial]
    assert torch.equal(upsample(x, odd), found[(..., *[slice(n) for n in odd])])


def test_bad_arguments_say_what_is_allowed() -> None:
    with pytest.raises(ValueError, match="10 channels are not divisible by 4 groups"):
        group_norm(10, 4)
    with pytest.raises(ValueError, match="48 channels are not divisible by head_channels 32"):
        Attention(48, 32)
    with pytest.raises(ValueError, match="dimensions is 1; allowed: 2, 3"):
        conv(1, 2, 2, 3)
    with pytest.raises(ValueError, match=r"\(1, 2, 8\); \(N, 2, H, W\)"):
        check_input("image", torch.zeros(1, 2, 8), 2, 2)
    with pytest.raises(ValueError, match="at least one voxel"):
        check_input("image", torch.zeros(1, 2, 8, 0), 2, 2)
