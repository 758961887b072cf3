"""Are new images of each group like that group's real images, and are they new?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.errors import UserError
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

METHOD = "latent diffusion"


def evaluate_synthesis(
    recipe: RecipeOptions,
    diffusion: Path,
    samples: Path,
    train: list[Path],
    held_out: list[Path],
    out: Path,
) -> None:
    """FID and KID of each group's samples to that group's training images, and the memorisation test.

    Args:
        recipe: ``evaluation`` says resamples and seed.
        diffusion: folder of the trained denoiser, for who was in its training.
        samples: folder of `sample_synthesis`.
        train: packed chunk folders of the training split.
        held_out: packed chunk folders of people the model has not seen.
        out: folder for ``metrics.json``, ``metrics.tsv``, ``per_subject.tsv``, ``nearest.tsv``,
            ``nearest.png`` and ``groups.png``.

    Raises:
        UserError: there is no real image, or held-out people were in training.
    """
    network = RandomConvFeatures(dimensions=recipe.data.dimensions, channels=recipe.data.channels)
    known = read_real(train, network, recipe.data.train_groups)
    other = read_real(held_out, network, recipe.data.train_groups)
    note = caution(other.index, read_json(diffusion / "model.json"), recipe.sampling.allow_trained_people)
    images = np.load(samples / "samples.npy")
    table = pd.read_csv(samples / "samples.tsv", sep="\t", dtype=str, keep_default_na=False)
    if len(table) != len(images):
        raise UserError(f"{samples}: {len(images)} samples but {len(table)} rows in samples.tsv; sample again")

    features = extract(network, images)
    metrics: list[Metric] = []
    groups = [g for g in sorted(set(table["group"])) if (known.index["group"] == g).any()]
    for group in ["all", *groups]:
        chosen = np.ones(len(table), dtype=bool) if group == "all" else (table["group"] == group).to_numpy()
        real, reference = (
            known if group == "all" else known.where((known.index["group"] == group).to_numpy()),
            other if group == "all" else other.where((other.index["group"] == group).to_numpy()),
        )
        metrics += distances(
            features[chosen], real, reference, network.name, recipe.evaluation, method=METHOD, group=group, note=note
        )
    memory = memorisation(images, known, other, METHOD, note)
    metrics += memory.metrics
    with atomic_directory(out) as folder:
        write_metrics(folder, metrics, held_out_table(other, memory))
        pairs_table(list(table["id"]), known, memory).to_csv(folder / "nearest.tsv", sep="\t", index=False)
        save(closest_pairs(images, known, memory), folder / "nearest.png")
        save(_by_group(metrics), folder / "groups.png")


def _by_group(metrics: list[Metric]) -> Figure:
    """FID and KID of each group beside the floor of real held-out people."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    for axis, name in zip(figure.subplots(1, 2), ("FID", "KID"), strict=True):
        for shift, method in ((-0.1, METHOD), (0.1, FLOOR)):
            rows = [r for r in metrics if r.name == name and r.method == method and r.value is not None]
            groups = list(dict.fromkeys(r.group for r in metrics))
            for row in rows:
                value = float(row.value or 0)
                low, high = (value if end is None else end for end in (row.low, row.high))
                axis.errorbar(
                    groups.index(row.group) + shift,
                    value,
                    yerr=[[value - low], [high - value]],
                    marker="o" if method == METHOD else "s",
                    color="tab:blue" if method == METHOD else "grey",
                    capsize=3,
                    label=method if row is rows[0] else None,
                )
            axis.set_xticks(range(len(groups)), groups)
        axis.set_title(f"{name} to the group's training images", fontsize=9)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=7)
    return figure
