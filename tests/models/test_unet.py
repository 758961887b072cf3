"""The U-Net: conditions, sizes, precision, checkpointing, and that it learns."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from devices import assert_the_same
from torch import Tensor, nn

from pipeline_lib.diffusion.guidance import null_condition
from pipeline_lib.models.folding import fold_voxels, unfold_voxels
from pipeline_lib.models.layers import ResidualBlock
from pipeline_lib.models.unet import UNet

SMALL: dict[str, Any] = {
    "in_channels": 1,
    "out_channels": 1,
    "channels": (8, 16),
    "blocks": 1,
    "attention": (False, True),
}


def unet(dimensions: int = 2, seed: int = 0, **options: Any) -> UNet:
    """A small network with random parameters, those included that start at 0."""
    torch.manual_seed(seed)
    network = UNet(**{"dimensions": dimensions, **SMALL, **options})
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return network.eval()


def image(dimensions: int, *, n: int = 2, channels: int = 1, size: int = 8) -> torch.Tensor:
    return torch.randn(n, channels, *[size] * dimensions, generator=torch.Generator().manual_seed(n))


def classes(*values: float | None) -> torch.Tensor:
    """One condition of (N, 1); None is not known."""
    return torch.tensor([[float("nan") if value is None else float(value)] for value in values])


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("channels", [(16, 32, 32), (16, 32, 64)])
def test_a_new_network_predicts_zero_in_the_shape_of_its_input(dimensions: int, channels: tuple[int, ...]) -> None:
    network = UNet(
        dimensions=dimensions, in_channels=2, out_channels=3, channels=channels, blocks=1, attention=(0, 0, 1)
    )
    output = network(image(dimensions, channels=2), torch.tensor([0, 9]))
    assert torch.equal(output, torch.zeros(2, 3, *[8] * dimensions))


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("size", [4, 5, 7, 9])
def test_any_size_including_odd_ones(dimensions: int, size: int) -> None:
    network = unet(dimensions, channels=(8, 8, 16), attention=(False, False, True))
    x = image(dimensions, size=size)
    assert network(x, torch.tensor([1, 2])).shape == x.shape


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("factor", [2, 4])
def test_a_folded_network_is_the_plain_one_on_folded_voxels(dimensions: int, factor: int) -> None:
    """`concat` too: what is seen beside the input is folded with it."""
    blocks, t, condition = factor**dimensions, torch.tensor([1, 90]), classes(1, None)
    folded = unet(dimensions, fold=factor, in_channels=3, conditions=(2,))
    plain = unet(dimensions, in_channels=3 * blocks, out_channels=blocks, conditions=(2,))
    x, extra = image(dimensions, size=16), image(dimensions, size=16, channels=2)
    expected = plain(fold_voxels(x, factor), t, condition, fold_voxels(extra, factor))
    assert torch.equal(folded(x, t, condition, extra), unfold_voxels(expected, factor))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_sizes_that_do_not_fold_are_padded_and_cut_again(dimensions: int) -> None:
    network, t, size = unet(dimensions, fold=4, channels=(8, 8, 16, 16), attention=(0, 0, 0, 1)), torch.tensor([7]), 10
    x = image(dimensions, n=1, size=size)
    assert network(x, t).shape == x.shape
    padded = F.pad(x, (0, 2) * dimensions, mode="replicate")
    assert torch.equal(network(x, t), network(padded, t)[(..., *[slice(size)] * dimensions)])


@pytest.mark.parametrize("dimensions", [2, 3])
def test_samples_do_not_see_each_other(dimensions: int) -> None:
    network = unet(dimensions, conditions=(2,)).double()
    x, t, c = image(dimensions, n=3).double(), torch.tensor([1, 50, 9]), classes(0, 1, None)
    together = network(x, t, c)
    alone = [network(x[i : i + 1], t[i : i + 1], c[i : i + 1]) for i in range(3)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-12)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_input_time_class_and_concat_all_matter(dimensions: int) -> None:
    network = unet(dimensions, conditions=(2,), in_channels=3)
    x, extra = image(dimensions), image(dimensions, channels=2)
    t, c = torch.tensor([3, 3]), classes(0, 0)
    base = network(x, t, c, extra)
    assert not torch.allclose(base, network(x + 1, t, c, extra))
    assert not torch.allclose(base, network(x, t + 40, c, extra))
    assert not torch.allclose(base, network(x, t, c + 1, extra))
    assert not torch.allclose(base, network(x, t, c, extra + 1))
    assert torch.equal(base, unet(dimensions, conditions=(2,), in_channels=3)(x, t, c, extra))


def test_the_condition_acts_through_cross_attention_on_each_voxel() -> None:
    """With the way through the time embedding shut, classes still differ, and not by a constant."""
    network = unet(conditions=(2,))
    nn.init.zeros_(network.pool.weight)
    x, t = image(2), torch.tensor([3, 3])
    difference = network(x, t, classes(0, 0)) - network(x, t, classes(1, 1))
    assert difference.std() > 1e-4


def test_attention_to_the_condition_differs_from_voxel_to_voxel() -> None:
    """A condition of a single token would add the same to all."""
    network = unet(conditions=(2,))
    added: list[Tensor] = []
    cross = [module.cross for module in network.modules() if getattr(module, "cross", None) is not None]
    for attention in cross:
        attention.register_forward_hook(lambda _, inputs, output: added.append(output - inputs[0]))
    network(image(2), torch.tensor([3, 3]), classes(0, 1))
    assert len(added) == 4  # going down one, at the bottom one, going up two
    for difference in added:
        assert difference.flatten(2).std(dim=2).mean() > 1e-3 * difference.abs().mean()


def test_null_is_the_same_however_it_is_given_and_is_learned() -> None:
    """Of categories, of numbers and of both, each condition for itself."""
    x, t = image(2), torch.tensor([3, 7])
    for conditions in ((2,), (0,), (2, 0, 3)):
        network = unet(conditions=conditions)
        known = torch.ones(2, len(conditions))
        assert torch.equal(network(x, t), network(x, t, null_condition(known)))
        mixed = network(x, t, torch.stack([null_condition(known[0]), known[1]]))
        assert torch.allclose(mixed[0], network(x, t)[0], atol=1e-6)
        assert not torch.allclose(mixed[1], network(x, t)[1], atol=1e-4)
        mixed.square().sum().backward()
        for parameter in network.parameters():
            assert parameter.grad is not None
            assert parameter.grad.isfinite().all()
        assert (network.null.grad.abs().sum(dim=1) > 0).all()


def test_each_condition_matters_beside_the_others_and_may_be_open_alone() -> None:
    """Changing or hiding one of three conditions changes the output, whatever the others are."""
    network, x, t = unet(conditions=(2, 0, 3)), image(2), torch.tensor([3, 7])
    known = torch.tensor([[1.0, -0.4, 2.0], [0.0, 1.2, 0.0]])
    base = network(x, t, known)
    for n, other in enumerate((torch.tensor([0.0, 1.0]), torch.tensor([0.9, -0.3]), torch.tensor([1.0, 1.0]))):
        for value in (other, torch.full((2,), float("nan"))):
            changed = known.clone()
            changed[:, n] = value
            assert not torch.allclose(network(x, t, changed), base, atol=1e-4)
            assert not torch.allclose(network(x, t, changed), network(x, t), atol=1e-4)


def test_a_number_acts_smoothly() -> None:
    """A thousandth of a standard deviation changes the output about a thousandth as much as a whole one."""
    network, x, t = unet(conditions=(0,)).double(), image(2).double(), torch.tensor([3, 7])

    def change(step: float) -> float:
        at = torch.full((2, 1), 0.3, dtype=torch.float64)
        return float((network(x, t, at + step) - network(x, t, at)).norm().detach())

    assert 1e-4 < change(1e-3) / change(1.0) < 1e-2


def test_the_bottleneck_is_what_the_way_up_starts_from() -> None:
    """Of the last level's channels, halved once a level, told of time and condition."""
    network, x, t, c = unet(conditions=(2,)), image(2), torch.tensor([3, 7]), classes(0, 1)
    entered: list[Tensor] = []
    network.up[0][0].register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0][:, :16]))
    network(x, t, c)
    bottom = network.bottleneck(x, t, c)
    assert bottom.shape == (2, 16, 4, 4)
    assert torch.equal(bottom, entered[0])
    assert not torch.allclose(bottom, network.bottleneck(x, t))
    assert not torch.allclose(bottom, network.bottleneck(x, t + 30, c))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_every_parameter_has_a_gradient_and_checkpointing_changes_none(dimensions: int) -> None:
    gradients = []
    for checkpointing in (False, True):
        network = unet(dimensions, conditions=(2,), checkpointing=checkpointing).double().train()
        x = image(dimensions).double()
        network(x, torch.tensor([3, 30]), classes(0, None).double()).square().sum().backward()
        gradients.append({name: p.grad for name, p in network.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient is not None, name
        assert gradient.abs().sum() > 0 or name.endswith("key_value.bias"), name
        assert torch.allclose(gradient, gradients[1][name], rtol=1e-9, atol=1e-12), name


def test_checkpointing_runs_every_block_again_in_the_backward_pass() -> None:
    for checkpointing, times in ((False, 1), (True, 2)):
        network, calls = unet(checkpointing=checkpointing).train(), Counter[nn.Module]()
        blocks = [module for module in network.modules() if isinstance(module, ResidualBlock)]
        for block in blocks:
            block.register_forward_pre_hook(lambda block, _, calls=calls: calls.update([block]))
        output = network(image(2), torch.tensor([3, 30]))
        assert calls == dict.fromkeys(blocks, 1)
        output.sum().backward()
        assert calls == dict.fromkeys(blocks, times)


def test_dropout_acts_in_every_block_in_training_only() -> None:
    network, plain = unet(dropout=0.3), unet()
    x, t = image(2), torch.tensor([3, 30])
    assert {module.p for module in network.modules() if isinstance(module, nn.Dropout)} == {0.3}
    assert torch.equal(network(x, t), plain(x, t))
    network.train()
    assert not torch.allclose(network(x, t), network(x, t))
    assert torch.equal(plain.train()(x, t), plain(x, t))


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.bfloat16, 0.05)])
def test_other_precisions_agree_with_float32(dimensions: int, dtype: torch.dtype, tolerance: float) -> None:
    network, x, t, c = unet(dimensions, conditions=(2,)), image(dimensions), torch.tensor([3, 90]), classes(0, 1)
    expected = network(x, t, c)
    output = unet(dimensions, conditions=(2,)).to(dtype)(x.to(dtype), t, c)
    assert output.dtype == dtype
    assert (output - expected).abs().max() <= tolerance * expected.abs().max()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = network(x, t, c)
    assert (mixed - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("conditions", [(2,), (0, 3)])
def test_the_same_on_every_device(dimensions: int, conditions: tuple[int, ...], device: torch.device) -> None:
    condition = torch.tensor([[0.3, 2.0], [float("nan"), 0.0]]) if len(conditions) == 2 else classes(None, 1)
    inputs = [image(dimensions), torch.tensor([3, 90]), condition]
    assert_the_same(unet(dimensions, conditions=conditions), inputs, device, lambda network, x: [network(*x)])


@pytest.mark.parametrize("dimensions", [2, 3])
def test_detail_adds_nothing_until_it_is_trained(dimensions: int) -> None:
    torch.manual_seed(0)
    fine, x, t = (
        UNet(dimensions=dimensions, **SMALL, fold=2, detail=4),
        image(dimensions, size=7),
        torch.tensor([3, 30]),
    )
    nn.init.normal_(fine.last.weight)
    plain = UNet(dimensions=dimensions, **SMALL, fold=2)
    plain.load_state_dict({key: value for key, value in fine.state_dict().items() if not key.startswith("detail.")})
    assert torch.equal(fine(x, t), plain(x, t))
    nn.init.normal_(fine.detail.last.weight)
    assert not torch.allclose(fine(x, t), plain(x, t))


def test_detail_sees_single_voxels_and_how_noisy_they_are() -> None:
    network, x = unet(fold=4, detail=8), image(2, n=1, size=16)
    for parameter in network.last.parameters():
        nn.init.zeros_(parameter)  # what the blocks say is left out
    nn.init.zeros_(network.detail.guide.weight)
    moved = x.clone()
    moved[0, 0, 6, 6] += 1
    t = torch.tensor([3])
    changed = (network(moved, t) - network(x, t))[0, 0].abs() > 1e-6
    assert changed[6, 6]
    assert changed.sum() == 49, "three convolutions of 3 x 3"
    assert not torch.allclose(network(x, t), network(x, t + 50))


def test_what_a_folded_network_leaves_out_is_learned_with_detail() -> None:
    """To copy fine patterns that a network of blocks with few features cannot hold."""
    left = {}
    for detail in (0, 8):
        torch.manual_seed(0)
        network = UNet(dimensions=2, **SMALL, fold=4, detail=detail)
        optimiser = torch.optim.AdamW(network.parameters(), 5e-3)
        for _ in range(80):
            x = torch.randn(8, 1, 16, 16)
            loss = (network(x, torch.zeros(8, dtype=torch.long)) - x).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        left[detail] = loss.item()
    assert left[8] < 0.3 * left[0]


def test_it_learns_a_denoiser() -> None:
    """A constant image of 0.5 in noise of known size: the loss falls far below that of predicting nothing."""
    torch.manual_seed(0)
    network = UNet(dimensions=2, **SMALL)
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3)
    for _ in range(60):
        noise = torch.randn(8, 1, 8, 8)
        loss = (network(0.5 + noise, torch.zeros(8, dtype=torch.long)) - noise).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.1


def test_bad_arguments_say_what_is_allowed() -> None:
    x, t = image(2), torch.tensor([1, 2])
    with pytest.raises(ValueError, match="attention has 3 entries for 2 levels"):
        unet(attention=(False, False, True))
    with pytest.raises(ValueError, match="8 channels are not divisible by 3 groups"):
        unet(groups=3)
    with pytest.raises(ValueError, match="fold is 3; allowed: 1, 2, 4"):
        unet(fold=3)
    with pytest.raises(ValueError, match="dropout is 1"):
        unet(dropout=1.0)
    for name in ("blocks", "in_channels", "out_channels", "head_channels"):
        with pytest.raises(ValueError, match=f"{name} is 0; at least 1 is needed"):
            unet(**{name: 0})
    with pytest.raises(ValueError, match=r"conditions\[1\] is -1; at least 0 is needed"):
        unet(conditions=(2, -1))
    with pytest.raises(ValueError, match=r"\(2, 1, 8, 8, 8\); \(N, 1, H, W\)"):
        unet()(image(3), t)
    with pytest.raises(ValueError, match=r"t has shape \(3,\)"):
        unet()(x, torch.zeros(3))
    with pytest.raises(ValueError, match="without conditions"):
        unet()(x, t, classes(0, 1))
    for wrong in (2.0, -1.0, 0.5):
        with pytest.raises(ValueError, match=rf"\[0.0, {wrong}\]; allowed: whole numbers from 0 to 1, NaN"):
            unet(conditions=(2,))(x, t, classes(0, wrong))
    with pytest.raises(ValueError, match=r"\(2, 3\) floating-point"):
        unet(conditions=(0, 0, 0))(x, t, classes(0, 1))
    with pytest.raises(ValueError, match=r"int64 \(2, 1\); \(2, 1\) floating-point"):
        unet(conditions=(2,))(x, t, torch.tensor([[0], [1]]))
    with pytest.raises(ValueError, match="concat has shape"):
        unet(in_channels=2)(x, t, None, x[:, :, 1:])


def test_a_first_level_too_narrow_for_the_timestep_is_refused() -> None:
    with pytest.raises(ValueError, match=r"channels are \(1, 4\); the first"):
        UNet(dimensions=2, in_channels=1, out_channels=1, channels=(1, 4), blocks=1, attention=(False, False))
