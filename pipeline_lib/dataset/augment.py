"""Seeded augmentation: a pure function of (seed, draw, index), so that a resumed run sees the same images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BACKGROUND = {"image": -1.0, "target": -1.0, "mask": 0.0, "lesion": 0.0}


@dataclass(frozen=True)
class Augmentation:
    """Left-right flips, small shifts and changes of intensity.

    Geometry changes every array of a sample alike. Intensity changes the image only, and only where
    there is no target: a pair of quantitative maps would no longer belong together.

    Attributes:
        seed: with ``draw`` and ``index`` it fixes what happens to a sample.
        shift: largest shift, as a fraction of each side.
        gamma: largest change of log2 of the exponent applied to the image in [0, 1].
        scale: largest relative change of the image in [0, 1].
    """

    seed: int = 0
    shift: float = 0.04
    gamma: float = 0.2
    scale: float = 0.1

    def __call__(
        self, sample: dict[str, Tensor], *, draw: int, index: int, left_right: int | None
    ) -> dict[str, Tensor]:
        """Return the augmented sample.

        Args:
            sample: arrays ``(C, *spatial)`` by name; others pass through.
            draw: how often this sample was drawn, or the position in the training stream.
            index: which sample it is.
            left_right: spatial axis that runs from left to right; None: no flips.
        """
        rng = np.random.default_rng((self.seed, draw, index))
        flip = rng.random() < 0.5
        spatial = sample["image"].shape[1:]
        shifts = [int(rng.integers(-reach, reach + 1)) for reach in (round(self.shift * n) for n in spatial)]
        gamma = 2 ** rng.uniform(-self.gamma, self.gamma)
        scale = 1 + rng.uniform(-self.scale, self.scale)

        changed = dict(sample)
        for name, background in BACKGROUND.items():
            if name in sample:
                array = sample[name]
                if flip and left_right is not None:
                    array = array.flip(left_right + 1)
                changed[name] = _shifted(array, shifts, background)
        if "target" not in sample:
            unit = (changed["image"] + 1) / 2
            changed["image"] = (unit.clamp(0, 1) ** gamma * scale).clamp(0, 1) * 2 - 1
        return changed


def _shifted(array: Tensor, shifts: list[int], background: float) -> Tensor:
    """``array`` (C, *spatial) moved by whole voxels; what comes in is background."""
    moved = torch.full_like(array, background)
    source, goal = [slice(None)], [slice(None)]
    for shift, size in zip(shifts, array.shape[1:], strict=True):
        source.append(slice(max(0, -shift), size - max(0, shift)))
        goal.append(slice(max(0, shift), size - max(0, -shift)))
    moved[tuple(goal)] = array[tuple(source)]
    return moved
