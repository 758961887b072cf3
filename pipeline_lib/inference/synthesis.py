"""New images under every combination of conditions: drawn under guidance, decoded, compared from the same noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.files import atomic_directory
from pipeline_lib.imaging.planes import abreast, ortho
from pipeline_lib.inference.animation import Recorder, filmstrip, write_gif
from pipeline_lib.inference.denoise import Denoiser, load_denoiser
from pipeline_lib.inference.latent import LatentSpace, load_latent_space
from pipeline_lib.inference.pictures import Row, Tile, mosaic, save
from pipeline_lib.inference.sampling import (
    Wanted,
    draw_samples,
    held_out_people,
    is_finished,
    kept_averages,
    wanted_samples,
    write_samples,
    write_step,
)

SHOWN = 8
MOST_ROWS = 12
COMPARED = 6
ANIMATED = 4
FRAMES = 12
LOOKED_UP = 64
"""Samples of a checkpoint at most, evenly spread over the combinations."""


def sample_synthesis(
    recipe: RecipeOptions, diffusion: Path, held_out: list[Path], out: Path, autoencoder: Path | None = None
) -> None:
    """Sample ``sampling.count`` new images of each combination of conditions, those at the same slice from the same noise.

    Args:
        recipe: ``sampling`` says how many, under which conditions, which sampler, how much guidance.
        diffusion: folder of the trained denoiser.
        held_out: packed chunks of people, after whom conditions are drawn and on whose grid samples lie; may be none.
        out: folder for what `write_samples` writes, ``grid.png`` (a row a combination), ``conditions.png``
            (combinations from the same noise and their differences), ``reverse.gif``, ``reverse.png`` and
            ``step-XXXXXXXX/samples.npy`` of each checkpoint: some of the same, in which copies are looked for.
        autoencoder: folder of the autoencoder whose latents it was trained on; None: it was trained on images.
    """
    denoiser = load_denoiser(recipe, diffusion)
    people = held_out_people(recipe, held_out)
    wanted = wanted_samples(recipe, denoiser.conditions, people)
    space = None if autoencoder is None else load_latent_space(autoencoder)
    shape = (recipe.data.channels, *recipe.data.size) if space is None else space.shape(recipe.data.size)
    images = _sampled(denoiser, shape, wanted, space)
    every = max(1, -(-len(wanted.table) // abreast(images, ANIMATED)))
    recorder = Recorder(most=FRAMES)
    draw_samples(denoiser, shape, wanted, only=slice(0, None, every), recorder=recorder)
    frames = recorder.pictures(lambda x: _decoded(x, space))
    by_cell = {cell: images[rows] for cell, rows in wanted.cells.items()}
    compared = _same_noise(wanted, by_cell)
    apart = -(-len(wanted.table) // LOOKED_UP)
    some = wanted.every(apart)
    with atomic_directory(out) as folder:
        for path in kept_averages(diffusion, recipe.sampling.checkpoints):
            same = is_finished(path, diffusion)
            drawn = images[::apart] if same else _sampled(load_denoiser(recipe, path), shape, some, space)
            write_step(folder, path.stem, drawn)
        write_samples(folder, images, wanted, recipe, diffusion / "model.safetensors", people)
        save(_grid(by_cell), folder / "grid.png")
        if compared:
            save(_compared(compared), folder / "conditions.png")
        write_gif(frames, folder / "reverse.gif")
        save(filmstrip(frames, "The reverse process"), folder / "reverse.png")


def _sampled(
    denoiser: Denoiser, shape: Sequence[int], wanted: Wanted, space: LatentSpace | None
) -> NDArray[np.float32]:
    """Images ``(N, C, *spatial)``, decoded batch by batch."""
    size = denoiser.sampling.batch_size
    parts = [
        _decoded(draw_samples(denoiser, shape, wanted, only=slice(first, first + size)), space).numpy()
        for first in range(0, len(wanted.table), size)
    ]
    images: NDArray[np.float32] = np.concatenate(parts)
    return images


def _decoded(drawn: Tensor, space: LatentSpace | None) -> Tensor:
    """Images of what the denoiser makes."""
    return drawn if space is None else space.decode(drawn)


def _grid(by_cell: Mapping[str, NDArray[np.float32]]) -> Figure:
    shown = list(by_cell.items())[:MOST_ROWS]
    rows = [Row([Tile(ortho(image)) for image in images[: abreast(images, SHOWN)]], cell) for cell, images in shown]
    return mosaic(rows, "Synthetic images, a row for each combination of conditions", tile_inches=1.2)


def _same_noise(wanted: Wanted, by_cell: Mapping[str, NDArray[np.float32]]) -> list[dict[str, NDArray[np.float32]]]:
    """Combinations that were drawn from the same noises, two or more together, about `MOST_ROWS` in all."""
    alike: dict[tuple[int, ...], dict[str, NDArray[np.float32]]] = {}
    for cell, images in by_cell.items():
        seeds = tuple(wanted.table["seed"].iloc[wanted.cells[cell]])
        alike.setdefault(seeds, {})[cell] = images
    sets = [dict(islice(cells.items(), MOST_ROWS)) for cells in alike.values() if len(cells) > 1]
    before = np.cumsum([0, *map(len, sets)])
    return [cells for cells, rows in zip(sets, before, strict=False) if rows < MOST_ROWS]


def _compared(alike: Sequence[Mapping[str, NDArray[np.float32]]]) -> Figure:
    """Combinations of conditions from the same noise, their differences from the first, and the means over all samples."""

    def row(images: NDArray[np.float32], title: str, ground: float | None = None, **look: Any) -> Row:
        mean = Tile(ortho(images.mean(axis=0), ground), **look, title=f"mean of {len(images)}")
        return Row(
            [*(Tile(ortho(image, ground), **look) for image in images[: abreast(images, COMPARED)]), mean], title
        )

    rows = []
    for cells in alike:
        first, *others = cells
        rows += [row(images, cell) for cell, images in cells.items()]
        for cell in others:
            difference = (cells[cell] - cells[first]).mean(axis=1, keepdims=True)
            limit = float(max(np.percentile(np.abs(difference), 99), 1e-3))
            title = f"{cell} - {first}\n(+-{limit:.2g})"
            rows.append(row(difference, title, 0.0, low=-limit, high=limit, colours="RdBu_r"))
    return mosaic(rows, "The same noise under each condition (columns), and what it changes", tile_inches=1.3)
