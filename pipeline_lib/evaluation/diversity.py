"""How unlike each other samples are, beside held-out people: a model that repeats itself makes samples too alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline_lib.config.schema import EvaluationOptions
from pipeline_lib.evaluation.metric import Metric
from pipeline_lib.evaluation.sets import HELD_OUT, Real
from pipeline_lib.metrics.bootstrap import Interval, bootstrap_mean
from pipeline_lib.metrics.image import WINDOW, multiscale_similarity

NAME = "MS-SSIM between pairs"
PAIRS = 200
Places = NDArray[np.intp]


def measure_diversity(
    images: NDArray[np.floating], samples: pd.DataFrame, other: Real, options: EvaluationOptions, result: Metric
) -> list[Metric]:
    """Mean MS-SSIM over random pairs of samples, and of images of two held-out people, at like slices.

    Pairs are of one group and, of slices, of neighbouring positions; interval over pairs.
    """
    result = replace(result, name=NAME, direction="neither")
    if min(images.shape[2:]) < WINDOW:
        return [
            result.measured(Interval(float("nan"), None, None), f"images have fewer than {WINDOW} voxels along an axis")
        ]
    at = " at neighbouring slices" if images.ndim == 4 else ""
    drawn = _pairs(_like(samples), samples["id"].to_numpy(dtype=str), samples.get("seed"), options.seed)
    real = _pairs(_like(other.index), other.people, None, options.seed)
    metrics = []
    for about, source, pairs in (
        (result, images, drawn),
        (replace(result, role="reference", method=HELD_OUT, people=len(set(other.people))), other.images, real),
    ):
        if not len(pairs):
            continue
        found = multiscale_similarity(source[pairs[:, 0]], source[pairs[:, 1]])
        interval = bootstrap_mean(found, resamples=options.bootstrap, seed=options.seed)
        note = f"{len(pairs)} pairs of one group{at}; higher is more alike"
        metrics.append(replace(about, images=len(np.unique(pairs))).measured(interval, note))
    return metrics


def _like(table: pd.DataFrame) -> pd.DataFrame:
    """Group and slice of each image, as far as known."""
    slices = (
        pd.to_numeric(table["slice"], errors="coerce") if "slice" in table else pd.Series(np.nan, index=table.index)
    )
    return pd.DataFrame({"group": table["group"].astype(str), "slice": slices.fillna(0.0)}).reset_index(drop=True)


def _pairs(like: pd.DataFrame, owners: NDArray[np.str_], seeds: pd.Series | None, seed: int) -> Places:
    """Random pairs ``(P, 2)``: images next to each other along the slices, of two owners, not from one noise."""
    rng = np.random.default_rng(seed)
    order = like.assign(chance=rng.random(len(like))).sort_values(["group", "slice", "chance"], kind="stable")
    places = order.index.to_numpy()
    first, second = places[:-1], places[1:]
    groups = like["group"].to_numpy(dtype=str)
    good = (groups[first] == groups[second]) & (owners[first] != owners[second])
    if seeds is not None:
        noise = seeds.to_numpy(dtype=str)
        good &= noise[first] != noise[second]
    found = np.stack([first, second], axis=1)[good]
    return found[np.sort(rng.permutation(len(found))[:PAIRS])]
