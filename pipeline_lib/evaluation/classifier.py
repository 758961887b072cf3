"""Do samples carry what tells two kinds of people apart, and do they help to tell them apart?

A linear classifier of an image's features, which sees each image by itself. Real people are judged by the mean over their
images, and only people it was not fitted to; samples are nobody, each is judged by itself.

- real to samples: fitted to training people, do samples look like the kind they were asked for?
- samples to real: fitted to samples only, does it know held-out people?
- utility: fitted to training people and samples, does it know held-out people better than without the samples?
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline_lib.config.schema import EvaluationOptions
from pipeline_lib.evaluation.contrasts import Contrast, contrasts_of, enough
from pipeline_lib.evaluation.metric import Metric
from pipeline_lib.evaluation.sets import Real
from pipeline_lib.metrics.bootstrap import Interval, bootstrap_groups
from pipeline_lib.metrics.distribution import Features

NAME = "AUC of a classifier"
SAMPLES, TRAINING, BOTH = "fitted to samples", "fitted to training people", "fitted to training people and samples"
SAMPLES_PART, HELD_OUT_PART = "on samples", "on held-out people"
REGULARISATION = 0.01
"""C of the logistic regression: features are standardised and images of a person are alike."""
ITERATIONS = 2000
Kinds = NDArray[np.str_]


def classify(
    known: Real, other: Real, features: Features, samples: pd.DataFrame, options: EvaluationOptions, result: Metric
) -> list[Metric]:
    """AUC of real to samples, samples to real and both, for every two kinds that samples were told of.

    Where held-out people of a kind are too few, only the first.

    Args:
        known: training people; ``other`` held-out people.
        features: of the samples ``(N, D)``, by the network that measured ``known`` and ``other``.
        samples: their rows in ``samples.tsv``.
        options: resamples, seed and the ages of young and old.
        result: says split and note.
    """
    metrics: list[Metric] = []
    for contrast in contrasts_of(samples, known.index, options.ages):
        metrics += _contrast(contrast, known, other, features, samples, options, result)
    return metrics


def _contrast(
    contrast: Contrast,
    known: Real,
    other: Real,
    features: Features,
    samples: pd.DataFrame,
    options: EvaluationOptions,
    result: Metric,
) -> Iterator[Metric]:
    trained, drawn = contrast.kinds(known.index), contrast.kinds(samples)
    by_real = _fitted(known.features, trained, options.seed)
    about = replace(
        result, name=f"{NAME}, {contrast.others} against {contrast.ones}", direction="higher", unit="", method=TRAINING
    )

    def interval(scores: NDArray[np.floating], kinds: Kinds, noise: Kinds | None = None) -> Interval:
        two = [kinds == kind for kind in (contrast.ones, contrast.others)]
        clusters = None if noise is None else [noise[rows] for rows in two]
        groups = (scores[rows] for rows in two)
        return bootstrap_groups(_area, *groups, clusters=clusters, resamples=options.bootstrap, seed=options.seed)

    of_samples = _scores(by_real, features, contrast)
    noise, asked = samples["seed"].to_numpy(dtype=str), drawn != ""
    yield replace(about, part=SAMPLES_PART, role="reference", images=int(asked.sum())).measured(
        interval(of_samples, drawn, noise),
        f"do samples look like what they were asked for; interval over {len(set(noise[asked]))} noises of samples",
    )
    if not enough(contrast, other.index):
        return
    by_samples = _fitted(features, drawn, options.seed)
    by_both = _fitted(np.concatenate([known.features, features]), np.concatenate([trained, drawn]), options.seed)
    people = pd.DataFrame({"participant": other.people, "kind": contrast.kinds(other.index)})
    for name, model in (("real", by_real), ("samples", by_samples), ("both", by_both)):
        people[name] = _scores(model, other.features, contrast)
    people = (
        people[people["kind"] != ""]
        .groupby("participant")
        .agg({"kind": "first", "real": "mean", "samples": "mean", "both": "mean"})
    )
    kinds = people["kind"].to_numpy(dtype=str)
    on = replace(about, part=HELD_OUT_PART, people=len(people))
    scores = {name: people[name].to_numpy() for name in ("real", "samples", "both")}
    yield replace(on, role="reference").measured(interval(scores["real"], kinds), "what real images alone allow")
    yield replace(on, role="result", method=SAMPLES).measured(
        interval(scores["samples"], kinds), "what samples alone teach of real people"
    )
    with_samples = replace(on, role="result", method=BOTH)
    yield with_samples.measured(interval(scores["both"], kinds), f"{len(features)} samples added")
    gain = _gain(scores["real"], scores["both"], kinds, contrast, options)
    said = "samples help" if (gain.low or 0) > 0 else "samples harm" if (gain.high or 0) < 0 else "no gain is shown"
    yield replace(with_samples, against=TRAINING).measured(gain, f"{said}; paired over people")


def _fitted(features: Features, kinds: Kinds, seed: int) -> Pipeline:
    used = kinds != ""
    model = LogisticRegression(C=REGULARISATION, class_weight="balanced", max_iter=ITERATIONS, random_state=seed)
    return make_pipeline(StandardScaler(), model).fit(features[used], kinds[used])


def _scores(model: Pipeline, features: Features, contrast: Contrast) -> NDArray[np.float64]:
    """How much each image looks like ``contrast.others``, ``(N,)``."""
    scores: NDArray[np.float64] = model.decision_function(features)
    return scores if model.classes_[1] == contrast.others else -scores


def _area(ones: NDArray[np.floating], others: NDArray[np.floating]) -> float:
    """Area under the ROC curve: the share of pairs in which the second scores higher, ties a half (Mann and Whitney)."""
    above, equal = others[:, None] > ones, others[:, None] == ones
    return float(above.mean() + equal.mean() / 2)


def _gain(
    without: NDArray[np.floating],
    together: NDArray[np.floating],
    kinds: Kinds,
    contrast: Contrast,
    options: EvaluationOptions,
) -> Interval:
    """Difference of two areas over the same people."""
    both = np.stack([together, without], axis=1)

    def difference(ones: NDArray[np.floating], others: NDArray[np.floating]) -> float:
        return _area(ones[:, 0], others[:, 0]) - _area(ones[:, 1], others[:, 1])

    groups = [both[kinds == kind] for kind in (contrast.ones, contrast.others)]
    return bootstrap_groups(difference, *groups, resamples=options.bootstrap, seed=options.seed)
