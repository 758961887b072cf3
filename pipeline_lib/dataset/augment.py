"""Seeded augmentation: a pure function of (seed, draw, index), so that a resumed run sees the same images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pipeline_lib.config.schema import AugmentOptions

BACKGROUND = {"image": -1.0, "target": -1.0, "regression": -1.0, "mask": 0.0, "label": 0.0}
"""Arrays that are moved, and what comes in from outside."""
MASKS = ("mask", "label")
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Augmentation:
    """Flips, rotations, scales and shifts of every array of a sample alike, and a change of intensity.

    The four that move are one map, applied with one linear interpolation; masks keep what is at least half
    inside. Intensity changes the image only, and only where there is no target: a pair of quantitative maps
    would no longer belong together.

    Attributes:
        seed: with ``draw`` and ``index`` it fixes what happens to a sample.
        flip: left and right are exchanged in half of the samples.
        rotate: largest rotation, degrees; of volumes, about each axis. What is drawn is uniform between this
            and its opposite, as for the others.
        scale: largest relative change of size.
        shift: largest shift, as a fraction of each side.
        gamma: largest change of log2 of the exponent applied to the image in [0, 1].
    """

    seed: int = 0
    flip: bool = False
    rotate: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    gamma: float = 0.0

    def __call__(
        self, sample: dict[str, Tensor], *, position: int, index: int, left_right: int | None
    ) -> dict[str, Tensor]:
        """Return the augmented sample.

        Args:
            sample: arrays ``(C, *spatial)`` by name; others pass through.
            position: in the training stream, or how often this sample was drawn.
            index: which sample it is.
            left_right: spatial axis that runs from left to right; None: no flips.
        """
        random = np.random.default_rng((self.seed, position, index))
        spatial = tuple(sample["image"].shape[1:])
        flip, matrix, shift, exponent = self._drawn(random, spatial)
        changed = dict(sample)
        if flip and left_right is not None:
            changed |= {name: sample[name].flip(left_right + 1) for name in BACKGROUND if name in sample}
        if self.rotate or self.scale or self.shift:
            changed |= _moved({name: changed[name] for name in BACKGROUND if name in sample}, matrix, shift)
        if self.gamma and "target" not in sample:
            changed["image"] = ((changed["image"] + 1) / 2).clamp(0, 1).pow(exponent) * 2 - 1
        return changed

    def _drawn(
        self, random: np.random.Generator, spatial: tuple[int, ...]
    ) -> tuple[bool, Matrix, NDArray[np.float64], float]:
        """Flip, map of voxels from the new image to the old about its middle, shift in voxels, exponent.

        Everything is drawn, used or not, so that switching one part off leaves the others as they were.
        """
        flip = bool(random.random() < 0.5) and self.flip
        angles = np.radians(random.uniform(-self.rotate, self.rotate, size=1 if len(spatial) == 2 else 3))
        scale = 1 + random.uniform(-self.scale, self.scale)
        reach = self.shift * np.array(spatial)
        shift = random.uniform(-reach, reach)
        exponent = 2 ** random.uniform(-self.gamma, self.gamma)
        return flip, rotation(angles) / scale, shift, exponent


def augmentation(options: AugmentOptions, seed: int) -> Augmentation | None:
    """What the options ask for; None where every part is off."""
    chosen = {name: value for name, value in options.model_dump().items() if value}
    return Augmentation(seed, **chosen) if chosen else None


def rotation(angles: NDArray[np.float64]) -> Matrix:
    """Rotation in the plane by one angle, or in space by three about the axes, one after the other; radians."""
    planes = [(0, 1)] if len(angles) == 1 else [(1, 2), (0, 2), (0, 1)]
    turn = np.eye(2 if len(angles) == 1 else 3)
    for angle, (first, second) in zip(angles, planes, strict=True):
        one = np.eye(len(turn))
        one[first, first] = one[second, second] = math.cos(angle)
        one[first, second], one[second, first] = -math.sin(angle), math.sin(angle)
        turn = one @ turn
    return turn


def _moved(arrays: dict[str, Tensor], matrix: Matrix, shift: NDArray[np.float64]) -> dict[str, Tensor]:
    """Arrays ``(C, *spatial)`` of one size whose voxel x, about the middle, takes the value at ``matrix (x - shift)``."""
    names = list(arrays)
    spatial = tuple(arrays[names[0]].shape[1:])
    grid = _places(spatial, matrix, matrix @ shift)
    backgrounds = [BACKGROUND[name] for name in names for _ in arrays[name]]
    background = torch.tensor(backgrounds).reshape(-1, *[1] * len(spatial))
    stacked = torch.cat(list(arrays.values())).sub_(background)
    moved = functional.grid_sample(stacked[None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)[0]
    parts = moved.add_(background).split([len(array) for array in arrays.values()])
    return {name: (part >= 0.5).float() if name in MASKS else part for name, part in zip(names, parts, strict=True)}


def _places(spatial: tuple[int, ...], matrix: Matrix, offset: NDArray[np.float64]) -> Tensor:
    """Where each voxel's value comes from, ``(1, *spatial, axes)``: torch counts axes from -1 to 1, the last one first."""
    axes = len(spatial)
    places = np.empty((1, *spatial, axes), np.float32)
    for axis, length in enumerate(spatial):
        along: NDArray[Any] = np.full([1] * axes, -offset[axis])
        for other, size in enumerate(spatial):
            shape = [size if n == other else 1 for n in range(axes)]
            along = along + (matrix[axis, other] * (np.arange(size) - (size - 1) / 2)).reshape(shape)
        places[0, ..., axes - 1 - axis] = along * (2 / length)
    return torch.from_numpy(places)
