"""How near generated images come to real ones as training goes on, and whether they are copies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.evaluation.meaning import measure_meaning
from pipeline_lib.evaluation.metric import REMARKS, Metric, write_metrics
from pipeline_lib.evaluation.sets import (
    Memory,
    Yardstick,
    along_training,
    held_out_table,
    no_memory,
    read_samples,
    real_sets,
    write_copies,
)
from pipeline_lib.files import atomic_directory, write_json
from pipeline_lib.metrics.distribution import extract

FINAL = "diffusion"


def evaluate_generation(
    recipe: RecipeOptions,
    diffusion: Path,
    samples: Path,
    train: list[Path],
    held_out: list[Path],
    out: Path,
) -> None:
    """Distances to held-out people and suspected copies, of the finished model and of every kept checkpoint.

    What the conditions mean is measured of the finished model.

    Args:
        recipe: ``evaluation`` says the feature network, resamples and seed.
        diffusion: folder of the trained denoiser, for who was in its training.
        samples: folder of `sample_generation`.
        train: packed chunk folders of the training split; none where the recipe is frozen.
        held_out: packed chunk folders of people the model has not seen.
        out: folder for ``metrics.json``, ``metrics.tsv``, ``per_subject.tsv``, ``nearest.tsv``, ``nearest.npz``,
            ``remarks.json`` and, with a segmenter, ``ventricles.tsv``.

    Raises:
        UserError: there is no real image, or held-out people were in training.
    """
    options = recipe.evaluation
    network, known, other, note = real_sets(recipe, diffusion, train, held_out)

    final = np.load(samples / "samples.npy", mmap_mode="r")
    yardstick = Yardstick(known, other, len(final), network, options.seed, group="all", note=note)
    memory = Memory(known, other, options, note) if known else None
    result = Metric("", None, role="result", method=FINAL, split="held-out")
    near = memory.look_up(final) if memory else None
    features = extract(network, final)
    metrics = [*yardstick.measure(features, result), *yardstick.real()]
    metrics += [*memory.measure(near, result), *memory.real()] if memory and near else no_memory(result)
    for step, images in along_training(samples):
        about = replace(result, role="checkpoint", step=step)
        metrics += yardstick.measure(extract(network, images), about)
        metrics += memory.measure(memory.look_up(images), about) if memory else []
    about = replace(result, note=note)
    table = read_samples(samples)
    found, tables, remarks = measure_meaning(recipe, known, other, final, features, table, held_out, about)
    metrics += found
    with atomic_directory(out) as folder:
        for name, rows in tables.items():
            rows.to_csv(folder / name, sep="\t", index=False)
        write_json(folder / REMARKS, remarks)
        write_metrics(folder, metrics, held_out_table(memory, other))
        if memory and near:
            write_copies(folder, [f"sample {n + 1}" for n in range(len(final))], final, near, memory)
