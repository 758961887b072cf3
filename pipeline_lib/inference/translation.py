"""The target modality from the source: a latent drawn under the source's latent, decoded.

Beside each prediction lie what it must beat and what it cannot pass: the interpolated source fitted
linearly to the target on training people (floor), and the target autoencoder's own reconstruction of
the measured target (ceiling).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.dataset.prepared import refuse_prepared_otherwise
from pipeline_lib.errors import UserError
from pipeline_lib.files import atomic_directory, read_json, write_json
from pipeline_lib.inference.chunks import open_array, read_index
from pipeline_lib.inference.denoise import load_denoiser
from pipeline_lib.inference.geometry import affine_of, write_nifti
from pipeline_lib.inference.latent import LatentSpace, load_latent_space
from pipeline_lib.inference.refusal import keep_unseen
from pipeline_lib.training.steps import seed_of

BACKGROUND = -1.0


def fit_floor(recipe: RecipeOptions, train: list[Path], out: Path) -> None:
    """Least-squares fit of each target channel to all source channels, inside the brain of training people.

    Args:
        recipe: ``data.train_groups`` limits who takes part.
        train: packed chunk folders of the training split.
        out: folder for ``coefficients.json``: ``weights`` (target channels x source channels), ``intercept``.

    Raises:
        UserError: no brain voxel with source and target was found.
    """
    size = recipe.data.channels + 1
    gram, product = np.zeros((size, size)), np.zeros((size, recipe.data.target_channels))
    people: set[str] = set()
    for chunk in train:
        index = read_index(chunk)
        if recipe.data.train_groups:
            index = index[index["group"].isin(recipe.data.train_groups)]
        people |= set(index["participant"])
        for row in index["row"]:
            inside = np.asarray(open_array(chunk, "mask")[row])[0] > 0
            source = np.asarray(open_array(chunk, "data")[row], dtype=np.float64)[:, inside]
            target = np.asarray(open_array(chunk, "target")[row], dtype=np.float64)[:, inside]
            design = np.concatenate([np.ones((1, source.shape[1])), source])
            gram += design @ design.T
            product += design @ target.T
    voxels = int(gram[0, 0])
    if voxels == 0:
        raise UserError(f"no brain voxel with {recipe.data.modality} and {recipe.data.target} in training: add people")
    # Channels may be collinear (repeated directions): the pseudo-inverse takes the smallest solution.
    solution = np.linalg.pinv(gram, hermitian=True) @ product
    with atomic_directory(out) as folder:
        write_json(
            folder / "coefficients.json",
            {
                "intercept": solution[0].tolist(),
                "weights": solution[1:].T.tolist(),
                "voxels": voxels,
                "people": len(people),
                "source": recipe.data.modality,
                "target": recipe.data.target,
            },
        )


def apply_floor(
    coefficients: Mapping[str, Any], source: NDArray[np.floating], mask: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """The fitted map ``(N, C_target, *spatial)`` of sources ``(N, C, *spatial)``, background outside ``mask``."""
    weights, intercept = np.array(coefficients["weights"]), np.array(coefficients["intercept"])
    fitted = np.einsum("tc,nc...->nt...", weights, source)
    fitted = fitted + intercept.reshape(1, -1, *[1] * (source.ndim - 2))
    return np.where(mask, np.clip(fitted, -1, 1), BACKGROUND).astype(np.float32)


def infer_translation(
    recipe: RecipeOptions,
    diffusion: Path,
    autoencoders: Mapping[str, Path],
    floor: Path,
    dataset: Path,
    latents: Path,
    out: Path,
) -> None:
    """Predict the target of every image of a chunk that the model was not trained on.

    Args:
        recipe: ``sampling`` says which sampler, how many steps, and of how many draws the prediction is the mean.
        diffusion: folder of the trained latent denoiser.
        autoencoders: folders of the autoencoders by role, ``source`` and ``target``.
        floor: folder of `fit_floor`.
        dataset: packed chunk folder.
        latents: the chunk's latents.
        out: folder for ``prediction.npy`` (the mean of the draws), ``ceiling.npy``, ``floor.npy`` float32
            ``(N, C, *spatial)`` in [-1, 1], ``spread.npy`` (standard deviation of the draws), ``index.tsv``, ``refused.tsv`` and, in 3D, a NIfTI file a prediction in ``nifti/``.
    """
    denoiser = load_denoiser(recipe, diffusion)
    refuse_prepared_otherwise(diffusion, denoiser.info, dataset)
    spaces = {role: load_latent_space(path) for role, path in autoencoders.items()}
    seen = _trained_on(denoiser.info, spaces)
    kept, refused = keep_unseen(read_index(dataset), seen, recipe.sampling.allow_trained_people)
    rows = kept["row"].to_numpy(dtype=int)
    target = spaces["target"]
    shape = (len(rows), recipe.data.target_channels, *recipe.data.size)
    prediction, spread, ceiling = (np.empty(shape, np.float32) for _ in range(3))
    options = denoiser.sampling
    for first in range(0, len(rows), options.batch_size):
        batch = slice(first, first + options.batch_size)
        concat = _latent(latents, "mean", rows[batch]) * spaces["source"].scale
        part = kept.iloc[batch]
        draws = np.zeros((options.count, *prediction[batch].shape), np.float32)
        for number in range(len(draws)):
            streams = denoiser.streams(
                [seed_of(options.seed, number, *image) for image in zip(part["scan"], part["slice"], strict=True)]
            )
            noise = streams((len(concat), *target.shape(recipe.data.size)))
            draws[number] = target.decode(denoiser.denoise(noise, concat=concat, streams=streams)).numpy()
        prediction[batch], spread[batch] = draws.mean(axis=0), draws.std(axis=0)
        measured = _latent(latents, "target_mean", rows[batch]) * target.scale
        ceiling[batch] = target.decode(measured).numpy()
    source = np.asarray(open_array(dataset, "data")[rows], dtype=np.float32)
    mask = np.asarray(open_array(dataset, "mask")[rows]) > 0
    fitted = apply_floor(read_json(floor / "coefficients.json"), source, mask)
    with atomic_directory(out) as folder:
        for name, array in (("prediction", prediction), ("spread", spread), ("ceiling", ceiling), ("floor", fitted)):
            np.save(folder / f"{name}.npy", array)
        kept.to_csv(folder / "index.tsv", sep="\t", index=False)
        refused.to_csv(folder / "refused.tsv", sep="\t", index=False)
        if recipe.data.dimensions == 3:
            _write_volumes(prediction, kept, recipe, folder / "nifti")


def _latent(latents: Path, name: str, rows: NDArray[np.int_]) -> torch.Tensor:
    return torch.from_numpy(np.asarray(open_array(latents, name)[rows], dtype=np.float32))


def _trained_on(info: Mapping[str, Any], spaces: Mapping[str, LatentSpace]) -> dict[str, list[str]]:
    """Everybody the denoiser or one of the autoencoders was trained on."""
    models = [info, *(space.info for space in spaces.values())]
    return {key: sorted({entry for model in models for entry in model[key]}) for key in ("people", "scans")}


def _write_volumes(prediction: NDArray[np.float32], index: pd.DataFrame, recipe: RecipeOptions, folder: Path) -> None:
    for image, entry in zip(prediction, index.to_dict("records"), strict=True):
        affine = affine_of(str(entry["affine"]))
        if affine is None:
            raise UserError(f"{entry['scan']}: no affine in the dataset's index.tsv; pack the chunk again")
        stem = str(entry["scan"]).removesuffix(f"_{recipe.data.modality}")
        sidecar = {
            "Description": f"{recipe.data.target} predicted from {recipe.data.modality} by a generative model.",
            "Predicted": True,
            "Sources": [entry["scan"]],
            "Units": "from 0 to 1",
        }
        name = f"{stem}_desc-predicted_{recipe.data.target}.nii.gz"
        write_nifti(folder / name, (image + 1) / 2, affine, sidecar, str(entry.get("space", "")))
