"""A denoiser of what a regression leaves (Mardani et al., 2025): conditioned on source and regression."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline_lib.bundles.regression import BACKGROUND, Regression
from pipeline_lib.dataset.packed import PackedDataset
from pipeline_lib.diffusion.guidance import guided
from pipeline_lib.diffusion.samplers import ddim, timestep_pairs
from pipeline_lib.files import atomic_path, sha256_file, sha256_text
from pipeline_lib.training.denoiser_step import STRIP_SEED, STRIP_STEPS, DenoiserStep
from pipeline_lib.training.steps import Batch, Draw

log = logging.getLogger("pipeline")


def regress(regression: Regression, images: PackedDataset, folder: Path, share: slice = slice(None)) -> list[Path]:
    """What the regression makes of whole images, once: it is frozen, and a step of training may see a patch of each.

    Args:
        images: of which chunks, and of which of their images.
        folder: where a file a chunk is kept; a file's name says of which weights and images it is, so that what is there
            already is of these.
        share: of the chunks, those that this process does.

    Returns:
        float32 arrays ``(N, C, *spatial)``, one a chunk, rows of other images 0.
    """
    files = [folder / f"{chunk.name}-{_key(regression, images, n)}.npy" for n, chunk in enumerate(images.folders)]
    for number in range(len(files))[share]:
        if not files[number].is_file():
            log.info("regression of %s, %d images", images.folders[number].name, len(images.rows_of(number)))
            _regress(regression, images.folders[number], images.rows_of(number), files[number])
    return files


def _key(regression: Regression, images: PackedDataset, number: int) -> str:
    chunk, rows = images.folders[number], images.rows_of(number).tolist()
    return sha256_text(f"{regression.digest} {sha256_file(chunk / 'index.tsv')} {rows}")[:16]


def _regress(regression: Regression, chunk: Path, rows: NDArray[np.int_], file: Path) -> None:
    source, mask = (np.load(chunk / f"{name}.npy", mmap_mode="r") for name in ("data", "mask"))
    channels = int(regression.info["architecture"]["out_channels"])
    with atomic_path(file) as path:
        shape = (len(source), channels, *source.shape[2:])
        maps = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        for row in rows:
            image, inside = (torch.from_numpy(np.array(array[row], dtype=np.float32))[None] for array in (source, mask))
            maps[row] = regression.predict(image, inside)[0].numpy()
        maps.flush()


def residual_scale(images: PackedDataset) -> list[float]:
    """1 / root mean square of what the regression leaves of each map, inside the mask of the images."""
    squares, voxels = torch.zeros((), dtype=torch.float64), torch.zeros(())
    for row in range(len(images)):
        sample = images[row]
        mask = sample["mask"] > 0.5
        left = torch.where(mask, sample["target"] - sample["regression"], 0.0)
        squares = squares + left.double().square().sum(dim=list(range(1, left.ndim)))
        voxels = voxels + mask.sum()
    scale: list[float] = (squares / voxels.clamp(min=1)).clamp(min=1e-12).rsqrt().tolist()
    return scale


class ResidualStep(DenoiserStep):
    """x0 is the target less the regression, each map at unit variance, 0 outside the brain.

    The regression is an array of every sample, of whole images and moved with them where they are augmented.
    """

    def __init__(self, *arguments: Any, regression: Regression, scale: list[float]) -> None:
        super().__init__(*arguments)
        self.regression = regression
        self.scale = torch.tensor(scale).reshape(1, -1, *[1] * self.recipe.data.dimensions)

    def _clean(self, batch: Batch, draw: Draw) -> Tensor:
        left = (batch["target"] - batch["regression"]) * self.scale.to(batch["target"].device)
        return torch.where(batch["mask"] > 0.5, left, 0.0)

    def _concat(self, batch: Batch) -> Tensor:
        return self.regression.beside(batch["image"], batch["regression"])

    @torch.no_grad()
    def strip(self, module: nn.Module) -> Tensor:
        """A draw of the shown targets, from the same noise each time."""
        device = next(module.parameters()).device
        shown = {key: value.to(device) for key, value in self.shown.items()}
        generator = torch.Generator(device).manual_seed(STRIP_SEED)
        noise = self.noise(shown["target"].shape, generator=generator, device=device)
        pairs = timestep_pairs(self.process.timesteps, min(STRIP_STEPS, self.process.timesteps))
        left = ddim(guided(module, None, 1.0, self._concat(shown)), noise, pairs, self.process, clip=False)
        maps = (shown["regression"] + left / self.scale.to(device)).clamp(-1, 1)
        return torch.where(shown["mask"] > 0.5, maps, BACKGROUND)

    def reference(self) -> Tensor:
        return self.shown["target"]
