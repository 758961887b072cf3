"""The reverse process as pictures: several samples from noise to image, step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipeline_lib.diffusion.samplers import Progress
from pipeline_lib.files import atomic_path
from pipeline_lib.imaging.planes import ortho
from pipeline_lib.inference.pictures import Row, Tile, mosaic

COLUMNS = 6
FRAME_MS = 120
LAST_FRAME_MS = 1500
SMALLEST_SIDE = 96


Frames = Sequence[tuple[int, NDArray[np.float32], NDArray[np.float32]]]


@dataclass
class Recorder:
    """A sampler's callback that keeps the noisy sample and the clean one expected, at up to ``most`` steps."""

    most: int = 40
    frames: list[tuple[int, Tensor, Tensor]] = field(default_factory=list)

    def __call__(self, progress: Progress) -> None:
        """Keep this step if it is one of those spread evenly over the run; the last one always."""
        stride = max(1, -(-progress.total // self.most))
        if progress.index % stride == 0 or progress.index == progress.total - 1:
            self.frames.append((progress.s, progress.x.cpu(), progress.x0.cpu()))

    def pictures(self, decode: Callable[[Tensor], Tensor]) -> Frames:
        """What timestep each frame is at (-1: clean), sample and expected clean sample, ``(N, C, *spatial)``."""
        return [(s, decode(x).numpy(), decode(x0).numpy()) for s, x, x0 in self.frames]


def write_gif(frames: Frames, path: Path) -> None:
    """An animation: above the noisy samples, below the clean samples expected at that step."""
    drawn = [_frame(x, x0) for _, x, x0 in frames]
    scale = max(1, -(-SMALLEST_SIDE * len(frames[0][1]) // drawn[0].width))
    drawn = [image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST) for image in drawn]
    durations = [FRAME_MS] * (len(drawn) - 1) + [LAST_FRAME_MS]
    with atomic_path(path) as temporary:
        drawn[0].save(
            temporary, format="GIF", save_all=True, append_images=drawn[1:], duration=durations, loop=0, optimize=True
        )


def filmstrip(frames: Frames, title: str) -> Figure:
    """A still of the animation: a row a sample, columns from noise to image."""
    chosen = np.unique(np.linspace(0, len(frames) - 1, COLUMNS).round().astype(int))
    rows = []
    for sample in range(min(4, len(frames[0][1]))):
        tiles = [Tile(ortho(frames[n][1][sample]), title=_at(frames[n][0]) if sample == 0 else "") for n in chosen]
        rows.append(Row(tiles))
    return mosaic(rows, title)


def _at(timestep: int) -> str:
    return "clean" if timestep < 0 else f"t = {timestep}"


def _frame(x: NDArray[np.float32], x0: NDArray[np.float32]) -> Image.Image:
    lines = [np.concatenate([ortho(image) for image in images], axis=1) for images in (x, x0)]
    picture = np.clip((np.concatenate(lines, axis=0) + 1) / 2, 0, 1) * 255
    return Image.fromarray(picture.round().astype(np.uint8))
