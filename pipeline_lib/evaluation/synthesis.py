"""Are new images of each group like that group's real people, and are they new?"""

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

METHOD = "diffusion"


def evaluate_synthesis(
    recipe: RecipeOptions,
    diffusion: Path,
    samples: Path,
    train: list[Path],
    held_out: list[Path],
    out: Path,
    counterfactuals: Path | None = None,
) -> None:
    """Distances of each group's samples to that group's held-out people, suspected copies, also of kept checkpoints, and what
    the conditions mean.

    Args:
        recipe: ``evaluation`` says the feature network, resamples and seed.
        diffusion: folder of the trained denoiser, for who was in its training.
        samples: folder of `sample_synthesis`.
        train: packed chunk folders of the training split; none where the recipe is frozen.
        held_out: packed chunk folders of people the model has not seen.
        out: folder for ``metrics.json``, ``metrics.tsv``, ``per_subject.tsv``, ``nearest.tsv``, ``nearest.npz``,
            ``remarks.json`` and, with a segmenter, ``ventricles.tsv``.
        counterfactuals: folder of `make_counterfactuals`.

    Raises:
        UserError: there is no real image, or held-out people were in training.
    """
    options = recipe.evaluation
    network, known, other, note = real_sets(recipe, diffusion, train, held_out)
    images = np.load(samples / "samples.npy", mmap_mode="r")
    table = read_samples(samples)

    features = extract(network, images)
    result = Metric("", None, role="result", method=METHOD, split="held-out")
    metrics: list[Metric] = []
    real = (known or other).index["group"]
    groups = [g for g in sorted(set(table["group"])) if g != "all" and (real == g).any()]
    for group in ["all", *groups]:
        chosen = np.ones(len(table), dtype=bool) if group == "all" else (table["group"] == group).to_numpy()
        yardstick = Yardstick(known, other, int(chosen.sum()), network, options.seed, group=group, note=note)
        metrics += [*yardstick.measure(features[chosen], result), *yardstick.real()]
    memory = Memory(known, other, options, note) if known else None
    near = memory.look_up(images) if memory else None
    metrics += [*memory.measure(near, result), *memory.real()] if memory and near else no_memory(result)
    for step, earlier in along_training(samples):
        about = replace(result, role="checkpoint", step=step)
        metrics += memory.measure(memory.look_up(earlier), about) if memory else []
    about = replace(result, note=note)
    found, tables, remarks = measure_meaning(
        recipe, known, other, images, features, table, held_out, about, counterfactuals
    )
    metrics += found
    with atomic_directory(out) as folder:
        for name, rows in tables.items():
            rows.to_csv(folder / name, sep="\t", index=False)
        write_json(folder / REMARKS, remarks)
        write_metrics(folder, metrics, held_out_table(memory, other))
        if memory and near:
            write_copies(folder, list(table["id"]), images, near, memory)
