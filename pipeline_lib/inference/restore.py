"""A scan as a model of healthy brains makes it: by a chain of steps, or in one step from several levels of noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline_lib.config.schema import ScoreOptions
from pipeline_lib.inference.baselines import Dark
from pipeline_lib.inference.denoise import Denoiser
from pipeline_lib.inference.score import difference
from pipeline_lib.training.steps import seed_of

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Restored:
    """Images after the model.

    Attributes:
        reconstruction: ``(N, C, *spatial)``, the mean over levels and draws.
        residual: ``(N, 1, *spatial)``, the mean of each one's difference to the image.
        segmentation: ``(N, 1, *spatial)``, logits of a lesion; None for a network that marks none.
    """

    reconstruction: Array
    residual: Array
    segmentation: Array | None


def restore(
    denoiser: Denoiser, score: ScoreOptions, images: Array, index: pd.DataFrame, *, dark: Dark = False
) -> Restored:
    """Images ``(N, C, *spatial)`` as ``score`` says.

    The noise of an image depends on its scan and slice only, so a chunk's other images do not matter.

    Args:
        index: a row an image, with ``scan``, ``slice`` and what the model is told.
        dark: whether lesions are darker than what they lie in, of all images or of each.
    """
    if score.levels:
        return restore_from_levels(denoiser, score, images, index, dark=dark)
    reconstruction = reconstruct(denoiser, images, index)
    return Restored(reconstruction, difference(images, reconstruction, score.residual, dark=dark), None)


def reconstruct(denoiser: Denoiser, images: Array, index: pd.DataFrame) -> Array:
    """Images noised by ``sampling.start`` of the timesteps and denoised again (AnoDDPM, Wyatt 2022)."""
    options = denoiser.sampling
    told = denoiser.told(index)
    undone = max(1, round(options.start * denoiser.process.timesteps))
    seeds = _seeds(denoiser, index)
    result = np.empty_like(images)
    for first in range(0, len(images), options.batch_size):
        batch = slice(first, first + options.batch_size)
        clean = torch.from_numpy(images[batch])
        streams = denoiser.streams(seeds[batch])
        noisy = denoiser.process.forward_diffusion(clean, streams(clean.shape), torch.full((len(clean),), undone - 1))
        condition = None if told is None else told[batch]
        result[batch] = denoiser.denoise(noisy, start=undone, condition=condition, streams=streams).numpy()
    return result


def restore_from_levels(
    denoiser: Denoiser, score: ScoreOptions, images: Array, index: pd.DataFrame, *, dark: Dark = False
) -> Restored:
    """Images restored in one step from every level and draw, all of a batch's in one pass (after Kascenas 2022).

    A level is the timestep whose share of signal is nearest; at a level of 1 the image stays as it is.
    """
    told = denoiser.told(index)
    times = [_timestep(denoiser, level) for level in score.levels for _ in range(score.draws)]
    kept = [level == 1 for level in score.levels for _ in range(score.draws)]
    seeds = _seeds(denoiser, index)
    dark = np.broadcast_to(dark, len(images))
    parts: list[Restored] = []
    for first in range(0, len(images), denoiser.sampling.batch_size):
        batch = slice(first, first + denoiser.sampling.batch_size)
        clean = torch.from_numpy(images[batch])
        streams = denoiser.streams(seeds[batch])
        noisy = [
            clean if untouched else denoiser.process.forward_diffusion(clean, streams(clean.shape), _full(clean, t))
            for t, untouched in zip(times, kept, strict=True)
        ]
        t = torch.cat([_full(clean, time) for time in times])
        condition = None if told is None else told[batch].repeat(len(times), 1)
        x0, logits = denoiser.restore_once(torch.cat(noisy), t, condition)
        each = x0.numpy().reshape(len(times), *clean.shape)
        residuals = [difference(images[batch], one, score.residual, dark=dark[batch]) for one in each]
        marked = None if logits is None else logits.unflatten(0, (len(times), -1)).mean(0).numpy()
        parts.append(Restored(each.mean(0), np.mean(residuals, axis=0), marked))
    if not parts:
        return Restored(images, images[:, :1], images[:, :1] if denoiser.marks else None)
    marks = [part.segmentation for part in parts if part.segmentation is not None]
    return Restored(
        np.concatenate([part.reconstruction for part in parts]),
        np.concatenate([part.residual for part in parts]),
        np.concatenate(marks) if marks else None,
    )


def _timestep(denoiser: Denoiser, level: float) -> int:
    return int((denoiser.process.schedule.exact - level).abs().argmin())


def _full(images: Tensor, t: int) -> Tensor:
    return torch.full((len(images),), t)


def _seeds(denoiser: Denoiser, index: pd.DataFrame) -> list[int]:
    seed = denoiser.sampling.seed
    return [seed_of(seed, scan, place) for scan, place in zip(index["scan"], index["slice"], strict=True)]
