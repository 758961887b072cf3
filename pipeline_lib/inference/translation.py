"""The target modality from the source: draws of a diffusion, and their mean.

Two ways are there. Latents: a latent drawn under the source's latent, decoded (Rombach et al., 2022; Esser et al., 2021).
Residual: what a regression leaves, drawn under the source and the regression (Mardani et al., 2025), and added to it.

Beside each prediction lie what it must beat, the interpolated source fitted linearly to the target on training people
(floor), the regression where there is one, and of latents what cannot be passed, the target autoencoder's own
reconstruction of the measured target (ceiling).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline_lib.bundle_plan import read_plan
from pipeline_lib.bundles.regression import BACKGROUND, Regression
from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.dataset.prepared import refuse_prepared_otherwise
from pipeline_lib.errors import UserError
from pipeline_lib.files import atomic_directory, read_json, write_json
from pipeline_lib.inference.chunks import open_array, read_index
from pipeline_lib.inference.denoise import Denoiser, device, load_denoiser
from pipeline_lib.inference.geometry import affine_of, write_nifti
from pipeline_lib.inference.latent import LatentSpace, load_latent_space
from pipeline_lib.inference.refusal import keep_unseen
from pipeline_lib.training.steps import seed_of


def fit_floor(recipe: RecipeOptions, train: list[Path], out: Path) -> None:
    """Least-squares fit of each target channel to all source channels, inside the brain of training people.

    Args:
        recipe: ``data.train_groups`` limits who takes part.
        train: packed chunk folders of the training split.
        out: folder for ``coefficients.json``: ``weights`` (target channels x source channels), ``intercept``,
            mean squared ``error``; ``centre`` and ``spread``, mean and standard deviation of the source channels.

    Raises:
        UserError: no brain voxel with source and target was found.
    """
    size = recipe.data.channels + 1
    gram, product = np.zeros((size, size)), np.zeros((size, recipe.data.target_channels))
    squares = np.zeros(recipe.data.target_channels)
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
            squares += (target**2).sum(1)
    voxels = int(gram[0, 0])
    if voxels == 0:
        raise UserError(f"no brain voxel with {recipe.data.modality} and {recipe.data.target} in training: add people")
    # Channels may be collinear (repeated directions): the pseudo-inverse takes the smallest solution.
    solution = np.linalg.pinv(gram, hermitian=True) @ product
    centre = gram[0, 1:] / voxels
    spread = np.sqrt((np.diag(gram)[1:] / voxels - centre**2).clip(min=1e-8))
    error = (squares - 2 * (solution * product).sum(0) + (solution * (gram @ solution)).sum(0)) / voxels
    with atomic_directory(out) as folder:
        write_json(
            folder / "coefficients.json",
            {
                "error": error.clip(min=0).tolist(),
                "centre": centre.tolist(),
                "spread": spread.tolist(),
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


@dataclass(frozen=True)
class _Batch:
    """How the targets of some images are drawn.

    Attributes:
        concat: (N, C', *spatial), what the network sees beside the noise.
        shape: (C, *spatial) of what is drawn of each.
        images: from what was drawn to maps (N, C, *size) in [-1, 1].
    """

    concat: Tensor
    shape: tuple[int, ...]
    images: Callable[[Tensor], Tensor]


def infer_translation(
    recipe: RecipeOptions,
    diffusion: Path,
    autoencoders: Mapping[str, Path],
    regression: Path | None,
    floor: Path,
    dataset: Path,
    latents: Path | None,
    out: Path,
) -> None:
    """Predict the target of every image of a chunk that no model was trained on, also where it was not measured.

    Writes float32 arrays ``(N, C, *spatial)`` in [-1, 1]: ``prediction.npy``, the mean of the draws, ``draw.npy``, the first
    of them, ``spread.npy``, their standard deviation, ``floor.npy``, ``regression.npy`` and ``ceiling.npy`` where there are
    such; ``index.tsv``, ``refused.tsv`` and, in 3D, NIfTI files in ``nifti/``, from 0 to 1: the prediction, its uncertainty
    (the spread) and, where the target was measured, its error.

    Args:
        recipe: ``sampling`` says which sampler, how many steps, and of how many draws the prediction is the mean; of none,
            it is the regression, and there are neither draws nor a spread.
        diffusion: folder of the trained denoiser, of latents or of a residual; of the regression where nothing is drawn.
        autoencoders: folders of the autoencoders by role, ``source`` and ``target``; none for a residual.
        regression: folder of the trained regression; it may be None for latents.
        floor: folder of `fit_floor`.
        dataset: packed chunk folder.
        latents: the chunk's latents, where there are autoencoders.
        out: folder to write, complete or not at all.
    """
    denoiser = None if recipe.draws_nothing else load_denoiser(recipe, diffusion)
    info: Mapping[str, Any] = read_plan(diffusion)
    refuse_prepared_otherwise(diffusion, info, dataset)
    spaces = {role: load_latent_space(path) for role, path in autoencoders.items()}
    regressed = Regression(regression, device()) if regression else None
    infos = [info, *(space.info for space in spaces.values()), *([regressed.info] if regressed else [])]
    kept, refused = keep_unseen(read_index(dataset), _trained_on(infos), recipe.sampling.allow_trained_people)
    rows = kept["row"].to_numpy(dtype=int)
    source, mask, target = (np.asarray(open_array(dataset, name)[rows]) for name in ("data", "mask", "target"))
    mask = mask > 0
    beside = {"floor": apply_floor(read_json(floor / "coefficients.json"), source, mask)}
    if regressed:
        beside["regression"] = regressed.predict(torch.from_numpy(source), torch.from_numpy(mask)).numpy()
    if latents is not None:
        measured = _latent(latents, "target_mean", rows) * spaces["target"].scale
        beside["ceiling"] = spaces["target"].decode(measured).numpy() if len(rows) else np.zeros_like(beside["floor"])

    if denoiser is None:
        predicted = {"prediction": beside.pop("regression")}
    else:
        names = ("prediction", "draw", "spread")
        predicted = {name: np.zeros_like(beside["floor"]) for name in names}
        options = denoiser.sampling
        for start in range(0, len(rows), options.batch_size):
            part = slice(start, start + options.batch_size)
            if latents is not None:
                batch = _of_latents(spaces, latents, rows[part], recipe.data.size)
            else:
                assert regressed is not None
                batch = _of_residual(denoiser, regressed, source[part], mask[part], beside["regression"][part])
            named = list(zip(kept.iloc[part]["scan"], kept.iloc[part]["slice"], strict=True))
            draws = np.stack([_draw(denoiser, batch, named, number) for number in range(options.count)])
            spread = draws.std(axis=0, ddof=1) if options.count > 1 else 0
            for name, values in zip(names, (draws.mean(axis=0), draws[0], spread), strict=True):
                predicted[name][part] = values
    with atomic_directory(out) as folder:
        for name, array in {**predicted, **beside}.items():
            np.save(folder / f"{name}.npy", array)
        kept.to_csv(folder / "index.tsv", sep="\t", index=False)
        refused.to_csv(folder / "refused.tsv", sep="\t", index=False)
        if recipe.data.dimensions == 3:
            _write_volumes(predicted, target, kept, recipe, folder / "nifti")


def _draw(denoiser: Denoiser, batch: _Batch, named: Sequence[tuple[object, ...]], number: int) -> NDArray[np.float32]:
    """One draw of each image; its noise follows from the image and the number of the draw."""
    streams = denoiser.streams([seed_of(denoiser.sampling.seed, number, *image) for image in named])
    noise = streams((len(batch.concat), *batch.shape))
    drawn: NDArray[np.float32] = batch.images(denoiser.denoise(noise, concat=batch.concat, streams=streams)).numpy()
    return drawn


def _of_latents(spaces: Mapping[str, LatentSpace], latents: Path, rows: NDArray[np.int_], size: list[int]) -> _Batch:
    concat = _latent(latents, "mean", rows) * spaces["source"].scale
    return _Batch(concat, spaces["target"].shape(size), spaces["target"].decode)


def _of_residual(
    denoiser: Denoiser,
    regressed: Regression,
    source: NDArray[np.float32],
    mask: NDArray[np.bool_],
    regression: NDArray[np.float32],
) -> _Batch:
    mean, inside = torch.from_numpy(regression), torch.from_numpy(mask)
    scale = torch.tensor(denoiser.info["residual_scale"]).reshape(1, -1, *[1] * (mean.ndim - 2))

    def images(residual: Tensor) -> Tensor:
        return torch.where(inside, (mean + residual / scale).clamp(-1, 1), BACKGROUND)

    return _Batch(regressed.beside(torch.from_numpy(source), mean), tuple(mean.shape[1:]), images)


def _latent(latents: Path, name: str, rows: NDArray[np.int_]) -> Tensor:
    return torch.from_numpy(np.asarray(open_array(latents, name)[rows], dtype=np.float32))


def _trained_on(models: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Everybody that one of the models was trained on, by their ``model.json``."""
    return {key: sorted({entry for model in models for entry in model[key]}) for key in ("people", "scans")}


def _write_volumes(
    predicted: Mapping[str, NDArray[np.float32]],
    target: NDArray[np.float32],
    index: pd.DataFrame,
    recipe: RecipeOptions,
    folder: Path,
) -> None:
    model = "a regression" if recipe.draws_nothing else "a generative model"
    about = f"of {recipe.data.target} predicted from {recipe.data.modality} by {model}"
    prediction, count = predicted["prediction"], recipe.sampling.count
    mean = f"Maps {about}." if recipe.draws_nothing else f"Mean of {count} draws {about}."
    volumes = {
        "predicted": ((prediction + 1) / 2, mean, "from 0 to 1"),
        "error": ((prediction - target) / 2, f"Error {about}: predicted less measured.", "from -1 to 1"),
    }
    if count > 1:
        said = f"Standard deviation of {count} draws {about}."
        volumes["uncertainty"] = (predicted["spread"] / 2, said, "of the range from 0 to 1")
    for place, entry in enumerate(index.to_dict("records")):
        affine = affine_of(str(entry["affine"]))
        if affine is None:
            raise UserError(f"{entry['scan']}: no affine in the dataset's index.tsv; pack the chunk again")
        stem = str(entry["scan"]).removesuffix(f"_{recipe.data.modality}")
        for name, (values, description, units) in volumes.items():
            if name == "error" and not np.isfinite(values[place]).all():
                continue  # the target of this scan was not measured
            sidecar = {"Description": description, "Predicted": True, "Sources": [entry["scan"]], "Units": units}
            file = folder / f"{stem}_desc-{name}_{recipe.data.target}.nii.gz"
            write_nifti(file, values[place], affine, sidecar, str(entry.get("space", "")))
