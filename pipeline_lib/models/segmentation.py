"""A U-Net as a segmenter: it is told no noise, and its channels are logits of structures that may contain each other."""

from __future__ import annotations

import torch
from torch import Tensor, nn

ROLE = "segmenter"
"""Of its bundle."""
STRUCTURES = ("brain", "lateral ventricles")
"""What its channels are; the brain holds the ventricles."""


def logits(module: nn.Module, images: Tensor) -> Tensor:
    """(N, structures, H, W) of images (N, 1, H, W) in [-1, 1]."""
    found: Tensor = module(images, no_noise(images))
    return found


def no_noise(images: Tensor) -> Tensor:
    """The timestep (N,) that it is told."""
    return torch.zeros(len(images), dtype=torch.long, device=images.device)
