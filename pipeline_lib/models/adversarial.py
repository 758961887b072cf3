"""Losses between generator and discriminator, and the weight that balances them."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

SCALE = 1024.0
"""Of losses whose gradients may pass float16, where what is below 6e-8, a mean's over 16 million voxels, is 0."""


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of logits on real and reconstructed images (Lim and Ye, 2017), a float32 scalar."""
    return 0.5 * (F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean())


def generator_loss(fake: Tensor) -> Tensor:
    """What the generator pays for logits on its reconstructions, a float32 scalar."""
    return -fake.float().mean()


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last_layer: Tensor) -> Tensor:
    """Esser et al. (2021), eq. 7: |d reconstruction / d last| / (|d adversarial / d last| + 1e-4), in [0, 1e4].

    The losses' graphs are kept. Computed in float32, detached, from the gradients of the batch of all
    processes, so that it does not depend on how many there are.
    """
    gradients = torch.stack(
        [
            torch.autograd.grad(SCALE * loss, last_layer, retain_graph=True)[0].float() / SCALE
            for loss in (reconstruction, adversarial)
        ]
    )
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(gradients)
        gradients /= dist.get_world_size()
    ours, theirs = gradients.flatten(1).norm(dim=1)
    return (ours / (theirs + 1e-4)).clamp(0, 1e4).detach()


def adversarial_ramp(step: int, start: int, length: int) -> float:
    """Weight of the adversarial loss at `step`: 0 up to `start`, then linear to 1 after `length` more steps.

    The discriminator itself trains from before `start`, so that the generator meets one that has learned.
    """
    if length < 1:
        raise ValueError(f"length of the ramp is {length}; at least 1 step is needed")
    return min(1.0, max(0.0, (step - start) / length))
