"""New images of each group: latents from noise under classifier-free guidance, decoded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.files import atomic_directory
from pipeline_lib.inference.animation import Recorder, strip, write_gif
from pipeline_lib.inference.denoise import load_denoiser
from pipeline_lib.inference.generation import Wanted, draw_samples, wanted_samples
from pipeline_lib.inference.geometry import centred_affine, write_nifti
from pipeline_lib.inference.latent import load_latent_space
from pipeline_lib.inference.pictures import Row, Tile, mosaic, plane, save

SHOWN = 8
COMPARED = 6
ANIMATED = 4
FRAMES = 12


def sample_synthesis(
    recipe: RecipeOptions,
    diffusion: Path,
    autoencoder: Path,
    out: Path,
    *,
    voxel_size: float = 1.0,
) -> None:
    """Sample ``sampling.count`` new images of each group, every group from the same noise.

    Args:
        recipe: ``sampling`` says how many, which sampler, how much guidance.
        diffusion: folder of the trained latent denoiser.
        autoencoder: folder of the autoencoder whose latents it was trained on.
        out: folder for ``samples.npy`` float32 ``(N, C, *spatial)`` in [-1, 1], ``samples.tsv``,
            ``grid.png`` (a row a group), ``groups.png`` (groups from the same noise and their
            differences), ``reverse.gif``, ``reverse.png`` and, in 3D, a NIfTI file a sample in ``nifti/``.
        voxel_size: of the preprocessed scans, mm; used where ``data.voxel_size`` is not set.
    """
    denoiser, space = load_denoiser(recipe, diffusion), load_latent_space(autoencoder)
    wanted = wanted_samples(recipe, denoiser.info, per_group=True)
    shape = space.shape(recipe.data.size)
    images: NDArray[np.float32] = np.concatenate(
        [
            space.decode(draw_samples(denoiser, shape, wanted, only=slice(first, first + recipe.sampling.batch_size)))
            for first in range(0, len(wanted.table), recipe.sampling.batch_size)
        ]
    )
    every = max(1, -(-len(wanted.table) // ANIMATED))
    recorder = Recorder(most=FRAMES)
    draw_samples(denoiser, shape, wanted, only=slice(0, None, every), recorder=recorder)
    frames = recorder.pictures(space.decode)
    by_group: dict[str, NDArray[np.float32]] = {
        str(group): images[rows.index] for group, rows in wanted.table.groupby("group", sort=False)
    }
    with atomic_directory(out) as folder:
        np.save(folder / "samples.npy", images)
        wanted.table.to_csv(folder / "samples.tsv", sep="\t", index=False)
        save(_grid(by_group), folder / "grid.png")
        if len(by_group) > 1:
            save(_compared(by_group), folder / "groups.png")
        write_gif(frames, folder / "reverse.gif")
        save(strip(frames, "The reverse process, decoded"), folder / "reverse.png")
        if recipe.data.dimensions == 3:
            _write_volumes(images, wanted, recipe, recipe.data.voxel_size or voxel_size, folder / "nifti")


def _grid(by_group: Mapping[str, NDArray[np.float32]]) -> Figure:
    rows = [Row([Tile(plane(image)) for image in images[:SHOWN]], group) for group, images in by_group.items()]
    return mosaic(rows, "Synthetic images: a row a group, a column the same noise", tile_inches=1.2)


def _compared(by_group: Mapping[str, NDArray[np.float32]]) -> Figure:
    """Groups from the same noise, their differences from the first group, and the means over all samples."""
    first, *others = by_group
    count = len(by_group[first])

    def tiles(images: NDArray[np.float32], **look: Any) -> list[Tile]:
        mean = images.mean(axis=0)
        shown = [Tile(plane(image), **look) for image in images[:COMPARED]]
        return [*shown, Tile(plane(mean), **look, title=f"mean of {count}")]

    rows = [Row(tiles(images), group) for group, images in by_group.items()]
    for group in others:
        difference = (by_group[group] - by_group[first]).mean(axis=1, keepdims=True)
        limit = float(max(np.percentile(np.abs(difference), 99), 1e-3))
        look = {"low": -limit, "high": limit, "colours": "RdBu_r"}
        rows.append(Row(tiles(difference, **look), f"{group} - {first}\n(+-{limit:.2g})"))
    return mosaic(rows, "The same noise in every group (columns), and what the group changes", tile_inches=1.3)


def _write_volumes(
    images: NDArray[np.float32], wanted: Wanted, recipe: RecipeOptions, voxel_size: float, folder: Path
) -> None:
    affine = centred_affine(recipe.data.size, voxel_size)
    for image, entry in zip(images, wanted.table.to_dict("records"), strict=True):
        sidecar = {
            "Description": "Synthetic image drawn from a generative model; it shows no person.",
            "Synthetic": True,
            "Group": entry["group"],
            "Seed": entry["seed"],
            "Guidance": recipe.sampling.guidance,
            "Units": "intensity from 0 to 1",
            "SpatialReference": "voxel axes right, anterior, superior; origin in the middle of the volume",
        }
        name = f"{entry['id']}_desc-synthetic_{recipe.data.modality}.nii.gz"
        write_nifti(folder / name, (image + 1) / 2, affine, sidecar)
