"""What the conditions of a recipe mean, in samples and in counterfactuals: shared by the tasks that make new images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.evaluation.classifier import classify
from pipeline_lib.evaluation.counterfactuals import measure_counterfactuals
from pipeline_lib.evaluation.diversity import measure_diversity
from pipeline_lib.evaluation.effect import measure_change, remarks_on
from pipeline_lib.evaluation.metric import VENTRICLES, Metric
from pipeline_lib.evaluation.sets import Real
from pipeline_lib.evaluation.ventricles import measure_ventricles
from pipeline_lib.inference.segmenter import load_segmenter
from pipeline_lib.metrics.distribution import Features


def measure_meaning(
    recipe: RecipeOptions,
    known: Real | None,
    other: Real,
    images: NDArray[np.floating],
    features: Features,
    samples: pd.DataFrame,
    chunks: Sequence[Path],
    result: Metric,
    counterfactuals: Path | None = None,
) -> tuple[list[Metric], dict[str, pd.DataFrame], list[str]]:
    """A classifier's AUC, what another group changes, diversity, and with a segmenter the ventricles, of samples and of scans made again.

    Args:
        known: training people, None where the recipe is frozen; ``other`` held-out people.
        images: samples ``(N, C, *spatial)``; ``features`` of them ``(N, D)``; ``samples`` their rows in ``samples.tsv``.
        chunks: packed chunks of the held-out people.
        result: says method, split and note.
        counterfactuals: folder of `make_counterfactuals`.

    Returns:
        Metrics, tables by file name, and what is to be said of the conditions in plain words.
    """
    options = recipe.evaluation
    metrics = measure_diversity(images, samples, other, options, result)
    if known is not None:
        metrics += classify(known, other, features, samples, options, result)
    metrics += measure_change(images, samples, known or other, options, result)
    tables: dict[str, pd.DataFrame] = {}
    segmenter = None
    if options.segmenter is not None:
        segmenter = load_segmenter(options.segmenter, chunks, allow_trained=recipe.sampling.allow_trained_people)
        found, tables[VENTRICLES] = measure_ventricles(segmenter, other, images, samples, options, result)
        metrics += found
    if counterfactuals is not None:
        about = replace(result, method="counterfactuals")
        metrics += measure_counterfactuals(counterfactuals, segmenter, other, options, about)
    remarks = remarks_on(metrics, samples, options, trained_here=known is not None)
    return metrics, tables, remarks
