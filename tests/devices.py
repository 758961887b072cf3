"""A network on any device against itself in float64 on the CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Call = Callable[[nn.Module, Sequence[Tensor]], Sequence[Tensor]]


def assert_the_same(network: nn.Module, inputs: Sequence[Tensor], device: torch.device, call: Call) -> None:
    """Outputs of ``call(network, inputs)`` and their gradients: in float32 there, within 1 % (TF32), and in
    bfloat16 by autocast, within 5 and 20 %.

    In 3D every convolution must see 3 voxels or more along each axis: at 2, oneDNN's bfloat16 gradient of the weights
    is wrong by any factor.
    """
    expected = _results(network, inputs, torch.device("cpu"), torch.float64, call)
    single = _results(network, inputs, device, torch.float32, call)
    with torch.autocast(device.type, torch.bfloat16):
        mixed = _results(network, inputs, device, torch.float32, call)
    for found, most in ((single, (0.01, 0.01)), (mixed, (0.05, 0.2))):
        for one, other, tolerance in zip(found, expected, most, strict=True):
            assert one.device.type == device.type
            assert (one.cpu().double() - other).norm() < tolerance * other.norm()


def _results(
    network: nn.Module, inputs: Sequence[Tensor], device: torch.device, dtype: torch.dtype, call: Call
) -> tuple[Tensor, Tensor]:
    """All outputs, and the gradients of their sum of squares by all parameters that it depends on, as two vectors."""
    there = copy.deepcopy(network).to(device, dtype)
    outputs = call(there, [x.to(device, dtype) if x.is_floating_point() else x.to(device) for x in inputs])
    flat = torch.cat([output.flatten() for output in outputs])
    gradients = torch.autograd.grad(flat.square().sum(), list(there.parameters()), allow_unused=True)
    return flat.detach(), torch.cat([gradient.flatten() for gradient in gradients if gradient is not None])
