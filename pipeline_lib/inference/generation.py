"""Images from noise, at several checkpoints of the training, and an animation of how they arise."""

from __future__ import annotations

from pathlib import Path

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.files import atomic_directory
from pipeline_lib.imaging.planes import abreast, ortho
from pipeline_lib.inference.animation import Recorder, filmstrip, write_gif
from pipeline_lib.inference.denoise import load_denoiser
from pipeline_lib.inference.pictures import Row, Tile, mosaic, save
from pipeline_lib.inference.sampling import (
    draw_samples,
    held_out_people,
    is_finished,
    kept_averages,
    wanted_samples,
    write_samples,
    write_step,
)

SHOWN = 32
GRID_COLUMNS = 8
ANIMATED = 8


def sample_generation(recipe: RecipeOptions, diffusion: Path, held_out: list[Path], out: Path) -> None:
    """Sample the finished model and some of its checkpoints from the same noise, under the same conditions.

    Args:
        recipe: ``sampling`` says how many images, under which conditions, which sampler, how many checkpoints.
        diffusion: folder of the trained denoiser, with ``checkpoints/step-*.safetensors``.
        held_out: packed chunks of people, after whom conditions are drawn and on whose grid samples lie; may be none.
        out: folder for what `write_samples` writes, ``grid.png``, ``reverse.gif``, ``reverse.png`` and
            ``step-XXXXXXXX/samples.npy`` of each checkpoint.
    """
    final = load_denoiser(recipe, diffusion)
    people = held_out_people(recipe, held_out)
    wanted = wanted_samples(recipe, final.conditions, people)
    shape = (recipe.data.channels, *recipe.data.size)
    with atomic_directory(out) as folder:
        images = draw_samples(final, shape, wanted).numpy()
        for path in kept_averages(diffusion, recipe.sampling.checkpoints):
            same = is_finished(path, diffusion)
            drawn = images if same else draw_samples(load_denoiser(recipe, path), shape, wanted).numpy()
            write_step(folder, path.stem, drawn)
        write_samples(folder, images, wanted, recipe, diffusion / "model.safetensors", people)
        columns = abreast(images, GRID_COLUMNS)
        tiles = [Tile(ortho(image)) for image in images[:SHOWN]]
        rows = [Row(tiles[n : n + columns]) for n in range(0, len(tiles), columns)]
        if len(wanted.cells) > 1:
            rows = [
                Row([Tile(ortho(images[place])) for place in places[:columns]], cell)
                for cell, places in list(wanted.cells.items())[:SHOWN]
            ]
        shown = sum(len(row.tiles) for row in rows)
        save(mosaic(rows, f"Generated images ({shown} of {len(images)})", tile_inches=1.1), folder / "grid.png")

        recorder = Recorder()
        draw_samples(final, shape, wanted, only=slice(0, abreast(images, ANIMATED)), recorder=recorder)
        frames = recorder.pictures(lambda x: x)
        write_gif(frames, folder / "reverse.gif")
        save(filmstrip(frames, "The reverse process"), folder / "reverse.png")
