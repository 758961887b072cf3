"""The regression loss of a denoiser."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

_LOSSES = {"l2": F.mse_loss, "l1": F.l1_loss, "huber": F.smooth_l1_loss}


def diffusion_loss(output: Tensor, target: Tensor, kind: str = "l2", weight: Tensor | None = None) -> Tensor:
    """Mean over the batch of each sample's mean loss times its weight; a float32 scalar.

    Args:
        output, target: (N, C, *spatial).
        kind: `l2`, `l1`, or `huber` (quadratic within 1 of the target, linear beyond).
        weight: (N,), e.g. `DiffusionProcess.loss_weight`.
    """
    if kind not in _LOSSES:
        raise ValueError(f"loss is {kind!r}; allowed: {', '.join(_LOSSES)}")
    if output.shape != target.shape:
        raise ValueError(f"output has shape {tuple(output.shape)}; the target's {tuple(target.shape)} is needed")
    wide = (output, target) if output.dtype.itemsize > 4 else (output.float(), target.float())
    each = _LOSSES[kind](*wide, reduction="none").flatten(1).mean(1)
    if weight is not None:
        if weight.shape != each.shape:
            raise ValueError(f"weight has shape {tuple(weight.shape)}; one a sample is needed, ({len(each)},)")
        each = each * weight
    return each.mean()
