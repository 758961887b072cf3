"""Images from noise, at several checkpoints of the training, and an animation of how they arise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.errors import UserError
from pipeline_lib.files import atomic_directory
from pipeline_lib.inference.animation import Recorder, strip, write_gif
from pipeline_lib.inference.denoise import Denoiser, load_denoiser
from pipeline_lib.inference.pictures import Row, Tile, mosaic, plane, save
from pipeline_lib.training.steps import seed_of

SHOWN = 32
GRID_COLUMNS = 8
ANIMATED = 8


@dataclass(frozen=True)
class Wanted:
    """Samples to be drawn: their names, groups, seeds and, where the model is conditioned, classes."""

    table: pd.DataFrame
    classes: Tensor | None

    def part(self, rows: Sequence[int]) -> tuple[list[int], Tensor | None]:
        """Seeds and classes of some rows."""
        seeds = [int(seed) for seed in self.table["seed"].iloc[list(rows)]]
        return seeds, None if self.classes is None else self.classes[list(rows)]


def sample_generation(recipe: RecipeOptions, diffusion: Path, out: Path) -> None:
    """Sample the finished model and some of its checkpoints from the same noise.

    Args:
        recipe: ``sampling`` says how many images, which sampler, how many checkpoints.
        diffusion: folder of the trained denoiser, with ``checkpoints/step-*.safetensors``.
        out: folder for ``samples.npy`` float32 ``(N, C, *spatial)``, ``samples.tsv``, ``grid.png``,
            ``reverse.gif``, ``reverse.png`` and ``step-XXXXXXXX/samples.npy`` of each checkpoint.
    """
    final = load_denoiser(recipe, diffusion)
    wanted = wanted_samples(recipe, final.info, per_group=False)
    shape = (recipe.data.channels, *recipe.data.size)
    with atomic_directory(out) as folder:
        for path in spread(sorted((diffusion / "checkpoints").glob("step-*.safetensors")), recipe.sampling.checkpoints):
            images = draw_samples(load_denoiser(recipe, path), shape, wanted).numpy()
            (folder / path.stem).mkdir()
            np.save(folder / path.stem / "samples.npy", images)
        images = draw_samples(final, shape, wanted).numpy()
        np.save(folder / "samples.npy", images)
        wanted.table.to_csv(folder / "samples.tsv", sep="\t", index=False)
        tiles = [Tile(plane(image)) for image in images[:SHOWN]]
        rows = [Row(tiles[n : n + GRID_COLUMNS]) for n in range(0, len(tiles), GRID_COLUMNS)]
        save(mosaic(rows, f"Generated images ({len(tiles)} of {len(images)})", tile_inches=1.1), folder / "grid.png")

        recorder = Recorder()
        draw_samples(final, shape, wanted, only=slice(0, ANIMATED), recorder=recorder)
        frames = recorder.pictures(lambda x: x)
        write_gif(frames, folder / "reverse.gif")
        save(strip(frames, "The reverse process"), folder / "reverse.png")


def wanted_samples(recipe: RecipeOptions, info: Mapping[str, Any], *, per_group: bool) -> Wanted:
    """Which samples to draw: ``sampling.count`` in all, or for each group the model knows.

    Samples of the same number in different groups share their seed, so that groups can be compared
    from the same noise.

    Raises:
        UserError: the model should be conditioned on groups but knows none.
    """
    options = recipe.sampling
    conditioned = recipe.denoiser.condition == "group"
    groups = list(info["groups"]) if conditioned else ["all"]
    if not groups:
        raise UserError("the model knows no group: give the sheet a group column or set denoiser.condition to none")
    if per_group:
        chosen = [(group, number) for group in range(len(groups)) for number in range(options.count)]
    else:
        chosen = [(number % len(groups), number) for number in range(options.count)]
    table = pd.DataFrame(
        [
            {
                "id": f"syn-{groups[group]}-{number + 1:04d}",
                "group": groups[group],
                "seed": seed_of(options.seed, "sample", number),
            }
            for group, number in chosen
        ]
    )
    classes = torch.tensor([group for group, _ in chosen]) if conditioned else None
    return Wanted(table, classes)


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
    options = denoiser.sampling
    rows = range(len(wanted.table))[only]
    size = len(rows) if recorder is not None else options.batch_size
    parts = []
    for first in range(0, len(rows), size):
        seeds, classes = wanted.part(rows[first : first + size])
        streams = denoiser.streams(seeds)
        noise = streams((len(seeds), *shape))
        guidance = 1.0 if classes is None else options.guidance
        parts.append(denoiser.denoise(noise, condition=classes, guidance=guidance, streams=streams, callback=recorder))
    return torch.cat(parts)


def spread(paths: Sequence[Path], number: int) -> list[Path]:
    """Up to ``number`` of the paths, evenly spread, first and last among them."""
    places = np.linspace(0, len(paths) - 1, min(number, len(paths))).round().astype(int)
    return [paths[place] for place in sorted(set(places.tolist()))]
