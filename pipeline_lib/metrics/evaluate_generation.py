"""How near generated images come to real ones as training goes on, and whether they are copies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.files import atomic_directory, read_json
from pipeline_lib.inference.pictures import save
from pipeline_lib.inference.refusal import caution
from pipeline_lib.metrics.compare_sets import (
    FLOOR,
    closest_pairs,
    distances,
    held_out_table,
    memorisation,
    pairs_table,
    read_real,
)
from pipeline_lib.metrics.distribution import RandomConvFeatures, extract
from pipeline_lib.metrics.table import Metric, write_metrics

FINAL = "diffusion"


def evaluate_generation(
    recipe: RecipeOptions,
    diffusion: Path,
    samples: Path,
    train: list[Path],
    held_out: list[Path],
    out: Path,
) -> None:
    """FID and KID at every checkpoint with the real-against-real floor, and the memorisation test.

    Args:
        recipe: ``evaluation`` says resamples and seed.
        diffusion: folder of the trained denoiser, for who was in its training.
        samples: folder of `sample_generation`.
        train: packed chunk folders of the training split.
        held_out: packed chunk folders of people the model has not seen.
        out: folder for ``metrics.json``, ``metrics.tsv``, ``per_subject.tsv``, ``nearest.tsv``,
            ``nearest.png`` and ``checkpoints.png``.

    Raises:
        UserError: there is no real image, or held-out people were in training.
    """
    network = RandomConvFeatures(dimensions=recipe.data.dimensions, channels=recipe.data.channels)
    known = read_real(train, network, recipe.data.train_groups)
    other = read_real(held_out, network, recipe.data.train_groups)
    note = caution(other.index, read_json(diffusion / "model.json"), recipe.sampling.allow_trained_people)

    metrics: list[Metric] = []
    steps = sorted(samples.glob("step-*/samples.npy"))
    for path in [*steps, samples / "samples.npy"]:
        step = path.parent.name.removeprefix("step-").lstrip("0")
        method = FINAL if path.parent == samples else f"{FINAL}, step {step}"
        features = extract(network, np.load(path))
        metrics += distances(features, known, other, network.name, recipe.evaluation, method=method, note=note)
    metrics = list(dict.fromkeys(metrics))
    final = np.load(samples / "samples.npy")
    memory = memorisation(final, known, other, FINAL, note)
    metrics += memory.metrics
    with atomic_directory(out) as folder:
        write_metrics(folder, metrics, held_out_table(other, memory))
        pairs_table([f"sample {n + 1}" for n in range(len(final))], known, memory).to_csv(
            folder / "nearest.tsv", sep="\t", index=False
        )
        save(closest_pairs(final, known, memory), folder / "nearest.png")
        if steps:
            save(_over_steps(metrics), folder / "checkpoints.png")


def _over_steps(metrics: Sequence[Metric]) -> Figure:
    """FID and KID against the training step, with the floor as a line and its interval as a band."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    for axis, name in zip(figure.subplots(1, 2), ("FID", "KID"), strict=True):
        rows = [row for row in metrics if row.name == name and row.value is not None]
        stepped = {int(row.method.split("step ")[1]): row for row in rows if "step " in row.method}
        if stepped:
            values = np.array([row.value for row in stepped.values()], dtype=float)
            spread = np.array([(row.low or row.value, row.high or row.value) for row in stepped.values()], dtype=float)
            bars = np.abs(spread.T - values)
            axis.errorbar(list(stepped), values, yerr=bars, marker="o", capsize=3, label="samples to training")
        for row in rows:
            if row.method == FLOOR and row.value is not None:
                axis.axhline(row.value, color="grey", linestyle="--", label=f"{row.n_images} held-out real images")
                if row.low is not None and row.high is not None:
                    axis.axhspan(row.low, row.high, color="grey", alpha=0.15)
        axis.set(xlabel="training step", title=name)
        axis.legend(fontsize=7)
    number = max((row.n_images for row in metrics if row.name == "FID"), default=0)
    figure.suptitle(f"Random-convolution features, N = {number} samples a checkpoint", fontsize=9)
    return figure
