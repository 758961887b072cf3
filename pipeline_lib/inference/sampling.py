"""Which new images are drawn, under which conditions and from which noise; how they are drawn and written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.dataset.conditions import Conditions, drawn_like, label, people_like
from pipeline_lib.errors import UserError
from pipeline_lib.files import atomic_path, sha256_file
from pipeline_lib.imaging.planes import ortho
from pipeline_lib.inference.animation import Recorder
from pipeline_lib.inference.chunks import read_indices
from pipeline_lib.inference.denoise import Denoiser
from pipeline_lib.inference.geometry import affine_like, centred_affine, voxel_size, write_nifti
from pipeline_lib.tasks import TASKS
from pipeline_lib.training.steps import seed_of

SYNTHETIC = "Synthetic image drawn from a generative model; it shows no person."


@dataclass(frozen=True)
class Wanted:
    """Samples to be drawn.

    Attributes:
        table: a row a sample: ``id``, ``cell`` (the combination it belongs to, in words), ``group`` (``all`` where the model
            knows none), ``seed`` and a column for each condition.
        names: of the conditions.
        condition: (N, K), or None for a model without conditions.
    """

    table: pd.DataFrame
    names: tuple[str, ...]
    condition: Tensor | None

    def every(self, step: int) -> Wanted:
        """Each ``step``-th of them."""
        return Wanted(
            self.table.iloc[::step].reset_index(drop=True),
            self.names,
            None if self.condition is None else self.condition[::step],
        )

    def part(self, rows: Sequence[int]) -> tuple[list[int], Tensor | None]:
        """Seeds and conditions of some rows."""
        seeds = [int(seed) for seed in self.table["seed"].iloc[list(rows)]]
        return seeds, None if self.condition is None else self.condition[list(rows)]

    @property
    def cells(self) -> dict[str, NDArray[np.intp]]:
        """Rows of each combination, in the order in which they are asked for."""
        places: Mapping[Any, Any] = self.table.groupby("cell", sort=False).indices
        return {str(cell): places[cell] for cell in self.table["cell"].unique()}


def held_out_people(recipe: RecipeOptions, chunks: Sequence[Path]) -> pd.DataFrame:
    """The index of the held-out images of the recipe's groups; no row where there is none."""
    index = read_indices(chunks) if chunks else pd.DataFrame()
    only = recipe.data.train_groups
    return index[index["group"].isin(only)].reset_index(drop=True) if only and len(index) else index


def wanted_samples(recipe: RecipeOptions, conditions: Conditions, people: pd.DataFrame) -> Wanted:
    """``sampling.count`` samples of each combination of conditions that ``sampling.conditions`` and ``others`` ask for.

    Samples of the same number have the same seed in every combination, so that these can be compared from the same noise; but
    for slices asked for by their positions, which have a noise each, since one repeated at every level would leave few.

    Args:
        conditions: what the model is told.
        people: index of the held-out images, after which the values are drawn that are not asked for.

    Raises:
        UserError: a value is none that the model knows, or there is nobody to draw values after.
    """
    options = recipe.sampling
    every = (options.others or TASKS[recipe.task].others) == "every"
    varied: dict[str, Sequence[str | float]] = dict(options.conditions)
    if every:
        varied = {each.name: each.categories for each in conditions.categories} | varied
    drawn = Conditions([each for each in conditions if each.name not in varied])
    if drawn and people.empty:
        raise UserError(
            f"no held-out image to draw {' and '.join(drawn.names)} after: put people in validation or test, or list values "
            "in sampling.conditions"
        )
    rows = []
    for cell in conditions.grid(varied):
        others: list[dict[str, str | float]] = [{}] * options.count
        if drawn:
            others = drawn_like(people_like(people, conditions, cell), drawn, options.count, options.seed)
        level = [cell["slice"]] if "slice" in cell else []
        for number, other in enumerate(others):
            values = cell | other
            named = {
                each.name: values[each.name]
                for each in conditions
                if each.name in cell or (each.kind == "category" and each.name in values)
            }
            name = label(named)
            rows.append(
                {
                    "id": f"syn-{re.sub(r'[^A-Za-z0-9.-]+', '-', name)}-{number + 1:04d}",
                    "cell": name,
                    "group": values.get("group", "") if "group" in conditions.names else "all",
                    "seed": seed_of(options.seed, "sample", number, *level),
                    **{each: values.get(each, "") for each in conditions.names if each != "group"},
                }
            )
    table = pd.DataFrame(rows)
    return Wanted(table, conditions.names, conditions.encode(table) if conditions else None)


def draw_samples(
    denoiser: Denoiser,
    shape: Sequence[int],
    wanted: Wanted,
    *,
    only: slice = slice(None),
    recorder: Recorder | None = None,
) -> Tensor:
    """Samples ``(N, *shape)`` from pure noise, in batches; a recorded run is one batch.

    Args:
        shape: ``(C, *spatial)`` of what the denoiser works on, images or latents.
        only: which of the samples wanted.
        recorder: is told of every step.
    """
    rows = range(len(wanted.table))[only]
    size = len(rows) if recorder is not None else denoiser.sampling.batch_size
    parts = []
    for first in range(0, len(rows), size):
        seeds, condition = wanted.part(rows[first : first + size])
        streams = denoiser.streams(seeds)
        noise = streams((len(seeds), *shape))
        parts.append(denoiser.denoise(noise, condition=condition, streams=streams, callback=recorder))
    return torch.cat(parts)


def kept_averages(diffusion: Path, number: int) -> list[Path]:
    """Up to ``number`` of the averaged weights that a training kept, evenly spread, first and last among them."""
    paths = sorted((diffusion / "checkpoints").glob("step-*.safetensors"))
    places = np.linspace(0, len(paths) - 1, min(number, len(paths))).round().astype(int)
    return [paths[place] for place in sorted(set(places.tolist()))]


def is_finished(checkpoint: Path, diffusion: Path) -> bool:
    """Whether a kept average is the finished model, as the last one mostly is: it makes the same samples."""
    return sha256_file(checkpoint) == sha256_file(diffusion / "model.safetensors")


def write_step(folder: Path, step: str, images: NDArray[np.float32]) -> None:
    """``step-XXXXXXXX/samples.npy``: what a checkpoint of the training makes of the same noise."""
    (folder / step).mkdir()
    np.save(folder / step / "samples.npy", images)


def write_samples(
    folder: Path,
    images: NDArray[np.float32],
    wanted: Wanted,
    recipe: RecipeOptions,
    weights: Path,
    people: pd.DataFrame,
) -> None:
    """``samples.npy``, ``samples.tsv`` and every sample as a file of its own, which says that it is synthetic.

    ``png/`` has all samples, of volumes three slices through the middle. ``nifti/`` has volumes, on the grid of the held-out people where
    they share one and about an origin in their middle otherwise, and slices whose position the model was told and whose
    grid the held-out people share.

    Args:
        images: ``(N, C, *spatial)`` in [-1, 1].
        weights: the ``model.safetensors`` they were drawn with, named by its hash.
        people: index of the held-out images.
    """
    np.save(folder / "samples.npy", images)
    wanted.table.to_csv(folder / "samples.tsv", sep="\t", index=False)
    options, model = recipe.sampling, sha256_file(weights)
    for image, entry in zip(images, wanted.table.to_dict("records"), strict=True):
        told = {name: entry[name] for name in wanted.names if entry[name] != ""}
        sidecar: dict[str, Any] = {
            "Description": SYNTHETIC,
            "Synthetic": True,
            "Model": {"sha256": model},
            "Conditions": told,
            "Seed": entry["seed"],
            "Guidance": options.guidance,
            "Sampler": options.sampler,
            "Steps": options.steps,
        }
        write_png(folder / "png" / f"{entry['id']}.png", image, sidecar)
        found = affine_like(
            people, float(told["slice"]) if "slice" in told else None, dimensions=recipe.data.dimensions
        )
        if found is None and recipe.data.dimensions == 3:
            known = len(people) > 0 and bool(people["affine"].iloc[0])
            millimetres = recipe.data.voxel_size or (voxel_size(people) if known else 1.0)
            found = centred_affine(recipe.data.size, millimetres), ""
        if found is None or recipe.data.modality == "image":
            continue
        affine, space = found
        sidecar["Units"] = "intensity from 0 to 1"
        sidecar["SpatialReference"] = space or "that of the held-out people"
        if recipe.data.dimensions == 3 and not space:
            sidecar["SpatialReference"] = "voxel axes right, anterior, superior; origin in the middle of the volume"
        contrast = told.get("modality", recipe.data.modality)
        path = folder / "nifti" / f"{entry['id']}_desc-synthetic_{contrast}.nii.gz"
        write_nifti(path, (image + 1) / 2, affine, sidecar, space=space)


def write_png(path: Path, image: NDArray[np.float32], about: Mapping[str, Any]) -> None:
    """A sample ``(C, *spatial)`` as an 8-bit picture, with what is known of it in its text fields."""
    path.parent.mkdir(exist_ok=True)
    text = PngInfo()
    for key, value in about.items():
        text.add_text(key, str(value))
    pixels = (np.clip((ortho(image) + 1) / 2, 0, 1) * 255).round().astype(np.uint8)
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG", pnginfo=text)
