"""Did it matter to the model which group it was told? Numbers, and what they say in plain words.

A classifier fitted to training people says whether samples look like the group they were asked for (`classifier`). Beside it
stands how much a sample changes when only the group is another and the noise the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline_lib.config.schema import EvaluationOptions
from pipeline_lib.evaluation.classifier import HELD_OUT_PART, NAME, SAMPLES_PART, TRAINING
from pipeline_lib.evaluation.contrasts import FEWEST, Contrast, told_apart
from pipeline_lib.evaluation.metric import Metric
from pipeline_lib.evaluation.sets import Real
from pipeline_lib.evaluation.ventricles import SHARE
from pipeline_lib.metrics.bootstrap import bootstrap_groups, bootstrap_mean

CHANGE = "change of an image by another group"
PEOPLE = "two people, one of each group"
VENTRICLES_DIFFER = f"{SHARE}, effect size of"
PAIRS = 200
HARDLY = 0.64
"""An area below it is less than half a standard deviation between two Gaussians, Cohen's medium effect: Phi(.5 / sqrt 2)."""
OF_ITSELF = ("id", "cell", "group")
"""Columns of ``samples.tsv`` that differ between two samples of one noise."""


def measure_change(
    images: NDArray[np.floating], samples: pd.DataFrame, real: Real, options: EvaluationOptions, result: Metric
) -> Iterator[Metric]:
    """Mean absolute difference, in % of the intensity range, of samples of two groups from the same noise.

    As a reference stands that of two real people, one of each group, at the same slice.

    Args:
        images: ``(N, C, *spatial)`` in [-1, 1]; ``samples`` their rows in ``samples.tsv``.
        real: people of whom the reference is taken.
        result: says method, split and note.
    """
    for contrast in _groups(samples, options):
        about = replace(
            result,
            name=f"{CHANGE}, {contrast.ones} against {contrast.others}",
            unit="% of the range",
            direction="neither",
        )
        drawn = _same_noise(samples, contrast)
        if len(drawn) < FEWEST:
            continue
        found = _difference(images[drawn[:, 0]], images[drawn[:, 1]])
        noise = samples["seed"].to_numpy(dtype=str)[drawn[:, 0]]
        interval = bootstrap_groups(
            lambda x: float(x.mean()), found, clusters=[noise], resamples=options.bootstrap, seed=options.seed
        )
        yield replace(about, images=2 * len(drawn)).measured(interval, f"{len(drawn)} pairs from the same noise")
        pairs = _same_slice(real, contrast, options.seed)
        if len(pairs) >= FEWEST:
            found = _difference(real.images[pairs[:, 0]], real.images[pairs[:, 1]])
            interval = bootstrap_mean(found, resamples=options.bootstrap, seed=options.seed)
            people = len(set(real.people[pairs.ravel()]))
            reference = replace(about, role="reference", method=PEOPLE, people=people, images=len(np.unique(pairs)))
            yield reference.measured(interval, f"{len(pairs)} pairs at the same slice, interval over pairs")


def remarks_on(
    metrics: Sequence[Metric], samples: pd.DataFrame, options: EvaluationOptions, *, trained_here: bool
) -> list[str]:
    """A plain sentence or two on every two kinds that samples were told of: groups, and young and old."""
    return [
        " ".join(
            part
            for part in (
                _look(metrics, contrast, trained_here),
                _changed(metrics, contrast),
                _ventricles(metrics, contrast),
            )
            if part
        )
        for contrast in told_apart(samples, options.ages)
    ]


def _look(metrics: Sequence[Metric], contrast: Contrast, trained_here: bool) -> str:
    """Whether samples look like what they were asked for."""
    name = f"{NAME}, {contrast.others} against {contrast.ones}"
    rows = {row.part: row for row in metrics if (row.name, row.method, row.against) == (name, TRAINING, "")}
    own, real = rows.get(SAMPLES_PART), rows.get(HELD_OUT_PART)
    kinds = f"{contrast.ones} and {contrast.others}"
    if own is None or own.value is None or own.low is None or own.high is None:
        why = f"that takes {FEWEST} training people of each" if trained_here else "the training people are not here"
        return f"Whether samples of {kinds} differ as such people do was not tested: {why}."
    told = f"AUC {_interval(own)} over {own.images} samples, chance is 0.5"
    knows = real is not None and real.low is not None and real.low > 0.5
    checked = f"AUC {_interval(real)} over {real.people} people" if real is not None else ""
    if own.low > 0.5 and own.value < HARDLY:
        said = (
            f"Samples of {kinds} can hardly be told apart by a classifier fitted to real {kinds} ({told}): the group does something to "
            "them, and little that is seen in people."
        )
    elif own.low > 0.5:
        said = f"Samples look like the people they were asked for: a classifier fitted to real {kinds} tells them apart ({told})."
    elif own.high < 0.5:
        said = f"Samples of {kinds} look like the other kind to a classifier fitted to real people ({told})."
    else:
        said = f"Samples of {kinds} cannot be told apart by a classifier fitted to real {kinds} ({told}): read no difference into them."
    if real is None:
        return f"{said} Held-out people of each are too few to say how well it knows people it was not fitted to."
    if knows:
        return f"{said} It does tell held-out people apart ({checked})."
    return f"{said} That it tells held-out people apart is not shown ({checked}), so that this test is weak."


def _changed(metrics: Sequence[Metric], contrast: Contrast) -> str:
    """How much only the group changes."""
    name = f"{CHANGE}, {contrast.ones} against {contrast.others}"
    rows = {row.role: row for row in metrics if row.name == name and row.value is not None}
    if "result" not in rows or contrast.ages is not None:
        return ""
    beside = f"; two real people of the two differ by {_percent(rows['reference'])}" if "reference" in rows else ""
    return f"From the same noise, the other group changes a sample by {_percent(rows['result'])} of the intensity range on average{beside}."


def _ventricles(metrics: Sequence[Metric], contrast: Contrast) -> str:
    """Whether their ventricles differ, and as those of people do."""
    orders = {
        f"{VENTRICLES_DIFFER} {one} to {other}": (one, other)
        for one, other in ((contrast.ones, contrast.others), (contrast.others, contrast.ones))
    }
    rows = {row.role: row for row in metrics if row.name in orders and row.value is not None and not row.against}
    own, real = rows.get("result"), rows.get("reference")
    if own is None or own.low is None or own.high is None:
        return ""
    one, other = orders[own.name]
    told = f"the share of the brain that ventricles take, {one} against {other}, has an effect size of {_interval(own)} in samples"
    if real is None or real.low is None or real.high is None:
        return f"{told[0].upper()}{told[1:]}; people were not enough to compare."
    beside = f"and {_interval(real)} in {real.people} people"
    shown, people_shown = _holds_no_zero(own), _holds_no_zero(real)
    if people_shown and not shown:
        said = "people differ, of samples it is not shown"
    elif people_shown:
        said = (
            "samples differ the same way as people"
            if own.low * real.low > 0
            else "samples differ the other way than people"
        )
    elif shown:
        said = "that people differ is not shown, so that what samples show may be the model's own"
    else:
        said = "no difference is shown in either"
    return f"{told[0].upper()}{told[1:]} {beside}: {said}."


def _holds_no_zero(row: Metric) -> bool:
    return row.low is not None and row.high is not None and row.low * row.high > 0


def _interval(row: Metric) -> str:
    return f"{row.value:.2f} [{row.low:.2f}, {row.high:.2f}]"


def _percent(row: Metric) -> str:
    return f"{row.value:.2g}% [{row.low:.2g}, {row.high:.2g}]"


def _groups(samples: pd.DataFrame, options: EvaluationOptions) -> list[Contrast]:
    return [contrast for contrast in told_apart(samples, options.ages) if contrast.ages is None]


def _difference(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.float64]:
    """% of the range from -1 to 1, of each pair, ``(N,)``."""
    apart = np.abs(np.asarray(first, np.float64) - np.asarray(second, np.float64))
    means: NDArray[np.float64] = 50 * apart.mean(axis=tuple(range(1, apart.ndim)))
    return means


def _same_noise(samples: pd.DataFrame, contrast: Contrast) -> NDArray[np.intp]:
    """Places of samples of the two that differ in nothing else, ``(P, 2)``."""
    if "seed" not in samples:
        return np.empty((0, 2), np.intp)
    told = samples.reset_index(drop=True)
    alike = (
        told.drop(columns=[name for name in OF_ITSELF if name in told]).astype(str).fillna("").agg("\t".join, axis=1)
    )
    places = [
        dict(zip(alike[rows], np.flatnonzero(rows), strict=True))
        for rows in ((told["group"] == kind).to_numpy() for kind in (contrast.ones, contrast.others))
    ]
    return np.array([(places[0][key], places[1][key]) for key in places[0] if key in places[1]], np.intp).reshape(-1, 2)


def _same_slice(real: Real, contrast: Contrast, seed: int) -> NDArray[np.intp]:
    """Places of images of two people, one of each kind, at the same slice and of the same contrast, ``(P, 2)``: at most `PAIRS`,
    at random."""
    rng = np.random.default_rng(seed)
    alike = (
        real.index[[name for name in ("slice", "modality") if name in real.index]].astype(str).agg("\t".join, axis=1)
    )
    kinds = contrast.kinds(real.index)
    places = [
        [np.flatnonzero((kinds == kind) & (alike == place)) for kind in (contrast.ones, contrast.others)]
        for place in sorted(set(alike))
    ]
    counts = np.array([len(ones) * len(others) for ones, others in places], dtype=np.int64)
    every = int(counts.sum())
    chosen = np.sort(rng.choice(every, min(PAIRS, every), replace=False)) if every else counts[:0]
    ends = counts.cumsum()
    pairs = []
    for number in chosen:
        place = int(np.searchsorted(ends, number, side="right"))
        ones, others = places[place]
        one, other = divmod(int(number - ends[place] + counts[place]), len(others))
        pairs.append((ones[one], others[other]))
    return np.array(pairs, np.intp).reshape(-1, 2)
