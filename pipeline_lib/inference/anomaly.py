"""Anomaly maps: a scan is noised part of the way, denoised by a model of healthy brains, and compared.

What the model has not learned to make comes back as healthy tissue; the squared difference between
scan and reconstruction is the map (AnoDDPM, Wyatt 2022).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.dataset.prepared import refuse_prepared_otherwise
from pipeline_lib.files import atomic_directory
from pipeline_lib.inference.chunks import open_array, read_index
from pipeline_lib.inference.denoise import Denoiser, load_denoiser
from pipeline_lib.inference.maps import write_maps
from pipeline_lib.inference.refusal import keep_unseen
from pipeline_lib.training.steps import seed_of


def infer_anomaly(recipe: RecipeOptions, diffusion: Path, dataset: Path, out: Path) -> None:
    """Reconstruct every image of a chunk that the model was not trained on, and map the differences.

    Args:
        recipe: ``sampling.start`` is the fraction of the timesteps by which an image is noised.
        diffusion: folder of the trained denoiser.
        dataset: packed chunk folder.
        out: folder for ``maps.npy`` float32 ``(N, 1, *spatial)``, ``reconstruction.npy`` float32
            ``(N, C, *spatial)``, ``index.tsv`` (with ``row``, the image's place in the chunk),
            ``refused.tsv`` (rows of people trained on) and ``nifti/``, each scan's map as one volume, smoothed and
            masked, in the space of the preprocessed scan.
    """
    denoiser = load_denoiser(recipe, diffusion)
    refuse_prepared_otherwise(diffusion, denoiser.info, dataset)
    kept, refused = keep_unseen(read_index(dataset), denoiser.info, recipe.sampling.allow_trained_people)
    rows = kept["row"].to_numpy(dtype=int)
    images = np.asarray(open_array(dataset, "data")[rows], dtype=np.float32)
    mask = np.asarray(open_array(dataset, "mask")[rows]) > 0
    reconstruction = reconstruct(denoiser, images, kept)
    maps = ((images - reconstruction) ** 2).mean(axis=1, keepdims=True)
    with atomic_directory(out) as folder:
        for name, array in (("maps", maps), ("reconstruction", reconstruction)):
            np.save(folder / f"{name}.npy", array.astype(np.float32))
        write_maps(folder / "nifti", maps[:, 0], mask[:, 0], kept, recipe.evaluation.smoothing_mm)
        kept.to_csv(folder / "index.tsv", sep="\t", index=False)
        refused.to_csv(folder / "refused.tsv", sep="\t", index=False)


def reconstruct(denoiser: Denoiser, images: NDArray[np.float32], index: pd.DataFrame) -> NDArray[np.float32]:
    """Images ``(N, C, *spatial)`` noised by ``start`` of the timesteps and denoised again.

    The noise of an image depends on its scan and slice only, so a chunk's other images do not matter.
    """
    options = denoiser.sampling
    told = denoiser.told(index)
    undone = max(1, round(options.start * denoiser.process.timesteps))
    seeds = [seed_of(options.seed, scan, place) for scan, place in zip(index["scan"], index["slice"], strict=True)]
    result = np.empty_like(images)
    for first in range(0, len(images), options.batch_size):
        batch = slice(first, first + options.batch_size)
        clean = torch.from_numpy(images[batch])
        streams = denoiser.streams(seeds[batch])
        noisy = denoiser.process.forward_diffusion(clean, streams(clean.shape), torch.full((len(clean),), undone - 1))
        condition = None if told is None else told[batch]
        result[batch] = denoiser.denoise(noisy, start=undone, condition=condition, streams=streams).numpy()
    return result
