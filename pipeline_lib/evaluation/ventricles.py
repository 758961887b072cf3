"""Does the condition mean something? The lateral ventricles' share of the brain in samples and in held-out people.

A segmenter measures both alike. A share depends on where a slice lies, so every image is compared at its slice: from its share
the mean of the held-out people at the same slice is taken off, and their mean over all slices put back. People are weighted as
the samples lie along the slices. A person has many slices and a sample one, so that the spread between people is that at a
slice, and intervals are over people and over samples, those from one noise together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline_lib.config.schema import EvaluationOptions
from pipeline_lib.evaluation.contrasts import FEWEST, Contrast, contrasts_of
from pipeline_lib.evaluation.metric import Metric, joined
from pipeline_lib.evaluation.sets import FLOOR, HELD_OUT, SPLITS, Real
from pipeline_lib.inference.segmenter import Segmenter
from pipeline_lib.metrics.bootstrap import Interval, bootstrap_groups, half_sampling, halves
from pipeline_lib.metrics.volumes import hedges_g, paired_effect, residuals, slope, spread, wasserstein

SHARE = "ventricles' share of the brain"
COMPARED = "samples over held-out people"
UNIT = "%"
DECADE = 10.0
Values = NDArray[np.floating]


@dataclass(frozen=True)
class People:
    """Shares of real people, %: a row a person, a column a slice position, NaN where a person has none.

    ``values`` are adjusted for the position; ``weights`` (P,) is where samples lie.
    """

    index: pd.DataFrame
    values: Values
    weights: Values

    def of(self, rows: NDArray[np.bool_]) -> Values:
        """The values of some people."""
        return self.values[rows]

    def means(self, values: Values) -> Values:
        """Of each person, ``(n,)``."""
        there = ~np.isnan(values)
        return np.nansum(values * self.weights, axis=1) / (there * self.weights).sum(axis=1)

    def spread(self, values: Values) -> float:
        """Standard deviation between people at a slice, pooled over the slices."""
        counts = (~np.isnan(values)).sum(axis=0)
        used = (counts > 1) & (self.weights > 0)
        if not used.any():
            return float("nan")
        variances = np.nanvar(values[:, used], axis=0, ddof=1)
        return float(np.sqrt((variances * self.weights[used]).sum() / self.weights[used].sum()))


@dataclass(frozen=True)
class Samples:
    """Shares of samples, %, a row a sample with ``position`` (the column of `People`), ``adjusted`` and the ``seed`` of its noise."""

    table: pd.DataFrame

    def of(self, rows: NDArray[np.bool_]) -> Values:
        """Adjusted shares of some samples, ``(n,)``."""
        values: Values = self.table["adjusted"].to_numpy(dtype=float)[rows]
        return values

    def noise(self, rows: NDArray[np.bool_]) -> NDArray[np.str_]:
        """The noise of some samples, ``(n,)``."""
        return self.table["seed"].to_numpy(dtype=str)[rows]


def measure_ventricles(
    segmenter: Segmenter,
    real: Real,
    images: NDArray[np.floating],
    samples: pd.DataFrame,
    options: EvaluationOptions,
    result: Metric,
) -> tuple[list[Metric], pd.DataFrame]:
    """Shares by group and over age, effect sizes, spreads and distances, of samples and of held-out people.

    Args:
        segmenter: measures both.
        real: held-out people.
        images: samples ``(N, C, *spatial)``.
        samples: their rows in ``samples.tsv``.
        options: resamples, seed and the ages of young and old.
        result: says method and split.

    Returns:
        The metrics, and a row an image: ``kind``, ``id``, ``group``, ``age``, ``slice``, ``share`` and ``adjusted``, %.
    """
    found = real.index[["participant", "group", "age", "slice"]].copy()
    found["share"] = 100 * segmenter.shares(real.images)  # type: ignore[arg-type]  # read in parts
    drawn = pd.DataFrame({name: samples.get(name, "") for name in ("id", "group", "age", "slice")})
    drawn["seed"] = samples["seed"]
    drawn["share"] = 100 * segmenter.shares(images)
    people, generated = aligned(found, drawn)
    metrics = list(Comparison(people, generated, options, result, segmenter.figures).metrics())
    return metrics, _rows(found, people, generated.table)


def aligned(found: pd.DataFrame, drawn: pd.DataFrame) -> tuple[People, Samples]:
    """Shares of both, adjusted for the slices' positions.

    Args:
        found: an image of a real person a row: ``participant``, ``group``, ``age``, ``slice`` (mm; empty of volumes), ``share``.
        drawn: a sample a row: ``group``, ``age``, ``slice``, ``share``; samples farther from every real slice than these are
            from each other are left out.
    """
    found, drawn = (_numbers(table) for table in (found, drawn))
    places = np.unique(found["slice"])
    reach = np.diff(places).min() if len(places) > 1 else 0.0
    positions = np.abs(drawn["slice"].to_numpy()[:, None] - places).argmin(axis=1)
    near = np.abs(drawn["slice"].to_numpy() - places[positions]) <= reach
    drawn = drawn.assign(position=positions)[near & drawn["share"].notna()].reset_index(drop=True)
    weights = np.bincount(drawn["position"], minlength=len(places)).astype(float)
    table = found.pivot_table(index="participant", columns="slice", values="share", aggfunc="mean").reindex(
        columns=places
    )
    expected = np.nan_to_num(np.nanmean(table.to_numpy(), axis=0))
    overall = float((expected * weights).sum() / max(weights.sum(), 1))
    told = found.groupby("participant")[["group", "age"]].first().loc[table.index].reset_index()
    values = table.to_numpy() - expected + overall
    seen = (~np.isnan(values) * weights).sum(axis=1) > 0
    drawn["adjusted"] = drawn["share"] - expected[drawn["position"]] + overall
    drawn["expected"] = expected[drawn["position"]]
    return People(told[seen].reset_index(drop=True), values[seen], weights), Samples(drawn)


def _numbers(table: pd.DataFrame) -> pd.DataFrame:
    numbers = {name: pd.to_numeric(table[name], errors="coerce") for name in ("age", "slice")}
    return table.assign(age=numbers["age"], slice=numbers["slice"].fillna(0.0))


class Comparison:
    """Every number of samples beside that of held-out people."""

    def __init__(
        self, people: People, samples: Samples, options: EvaluationOptions, result: Metric, ruler: str
    ) -> None:
        self.people, self.samples, self.options = people, samples, options
        self.result = replace(result, direction="neither", note=joined(ruler, result.note))
        self.reference = replace(self.result, role="reference", method=HELD_OUT)
        self.at = " at a slice" if len(people.weights) > 1 else ""

    def metrics(self) -> Iterator[Metric]:
        """All of them, groups first."""
        table = self.samples.table
        groups = [name for name in sorted(set(table["group"])) if (self.people.index["group"] == name).sum() >= FEWEST]
        everybody = np.ones(len(self.people.index), bool), np.ones(len(table), bool)
        yield from self._level("all", *everybody)
        for group in groups:
            yield from self._level(
                group, (self.people.index["group"] == group).to_numpy(), (table["group"] == group).to_numpy()
            )
        for contrast in contrasts_of(table, self.people.index, self.options.ages):
            yield from self._contrast(self._ordered(contrast))
        if table["age"].nunique() > 2:
            yield from self._slope()

    def _level(self, group: str, known: NDArray[np.bool_], drawn: NDArray[np.bool_]) -> Iterator[Metric]:
        """Mean, spread and distance of one group."""
        people, samples = self.people, self.samples
        real, values, noise = people.of(known), samples.of(drawn), samples.noise(drawn)
        left = residuals(samples.table["expected"].to_numpy()[drawn], values)
        about = replace(self.result, group=group, unit=UNIT)
        yield from self._both(
            replace(about, name=SHARE),
            (real,),
            (values,),
            (noise,),
            lambda rows: float(people.means(rows).mean()),
            lambda x: float(x.mean()),
        )
        yield from self._both(
            replace(about, name=f"{SHARE}, spread between people{self.at}"), (real,), (left,), (noise,), people.spread, spread
        )  # fmt: skip
        yield from self._distance(
            replace(about, name=f"{SHARE}, Wasserstein distance to held-out people"), real, values
        )

    def _contrast(self, contrast: Contrast) -> Iterator[Metric]:
        """Ratio and effect size of two kinds; ``others`` have the larger ventricles among held-out people."""
        people, samples = self.people, self.samples
        known, drawn = contrast.kinds(people.index), contrast.kinds(samples.table)
        kinds = (contrast.ones, contrast.others)
        small, large = (people.of(known == kind) for kind in kinds)
        few, many = (samples.of(drawn == kind) for kind in kinds)
        noise = tuple(samples.noise(drawn == kind) for kind in kinds)
        expected = samples.table["expected"].to_numpy()
        left = [residuals(expected[drawn == kind], own) for kind, own in zip(kinds, (few, many), strict=True)]
        named = f"{contrast.others} to {contrast.ones}"
        yield from self._both(
            replace(self.result, name=f"{SHARE}, ratio of {named}"),
            (small, large),
            (few, many),
            noise,
            lambda a, b: float(people.means(b).mean() / people.means(a).mean()),
            lambda a, b: float(b.mean() / a.mean()),
        )

        def real_effect(a: Values, b: Values) -> float:
            difference = float(people.means(b).mean() - people.means(a).mean())
            return hedges_g(difference, (people.spread(a), people.spread(b)), (len(a), len(b)))

        def effect(a: Values, b: Values) -> float:
            difference = float(b[:, 0].mean() - a[:, 0].mean())
            return hedges_g(difference, (spread(a[:, 1]), spread(b[:, 1])), (len(a), len(b)))

        pairs = [np.stack([own, rest], axis=1) for own, rest in zip((few, many), left, strict=True)]
        name = f"{SHARE}, effect size of {named}"
        yield from self._both(
            replace(self.result, name=name, unit=f"Hedges' g{self.at}"),
            (small, large),
            tuple(pairs),
            noise,
            real_effect,
            effect,
        )
        differences, noises = self._same_noise(contrast, drawn)
        if len(differences) >= FEWEST:
            paired = replace(
                self.result, name=f"{SHARE}, paired effect of {named}", unit="d_z", images=len(differences)
            )
            yield paired.measured(
                self._interval(paired_effect, differences, clusters=[noises]),
                "pairs of samples from the same noise at the same slice",
            )

    def _same_noise(self, contrast: Contrast, drawn: NDArray[np.str_]) -> tuple[Values, NDArray[np.str_]]:
        """Differences of samples that share noise and slice, the others minus the ones, and these noises."""
        table = self.samples.table.assign(kind=drawn)
        table = table[table["kind"] != ""]
        wide = table.pivot_table(index=["seed", "position"], columns="kind", values="adjusted", aggfunc="mean").dropna()
        if contrast.ages is not None or len(wide.columns) < 2:  # the same noise has one age
            return np.empty(0), np.empty(0, dtype=str)
        values: Values = (wide[contrast.others] - wide[contrast.ones]).to_numpy(dtype=float)
        return values, wide.index.get_level_values("seed").to_numpy(dtype=str)

    def _slope(self) -> Iterator[Metric]:
        """Least-squares slope over age, % of the brain a decade."""
        people, table = self.people, self.samples.table
        aged, told = people.index["age"].notna().to_numpy(), table["age"].notna().to_numpy()
        if aged.sum() < FEWEST:
            return
        means = people.means(people.of(aged))
        real = np.stack([people.index["age"].to_numpy(dtype=float)[aged] / DECADE, means], axis=1)
        drawn = np.stack([table["age"].to_numpy(dtype=float)[told] / DECADE, self.samples.of(told)], axis=1)
        about = replace(self.result, name=f"{SHARE}, slope over age", unit="% a decade")

        def rise(rows: Values) -> float:
            return slope(rows[:, 0], rows[:, 1])

        yield from self._both(about, (real,), (drawn,), (self.samples.noise(told),), rise, rise)

    def _both(
        self,
        about: Metric,
        real: tuple[Values, ...],
        drawn: tuple[Values, ...],
        noise: tuple[NDArray[np.str_], ...],
        of_people: Callable[..., float],
        of_samples: Callable[..., float],
    ) -> Iterator[Metric]:
        """A number of samples, that of held-out people, and the one over the other."""
        persons, images = sum(map(len, real)), sum(map(len, drawn))
        yield replace(about, images=images).measured(
            self._interval(of_samples, *drawn, clusters=noise), f"interval over {_noises(noise)}"
        )
        reference = replace(about, role="reference", method=HELD_OUT, people=persons)
        yield reference.measured(self._interval(of_people, *real), "interval over people")

        def ratio(*groups: Values) -> float:
            below = of_people(*groups[: len(real)])
            return of_samples(*groups[len(real) :]) / below if below else float("nan")

        over = replace(about, name=f"{about.name}, {COMPARED}", unit="", people=persons, images=images)
        yield over.measured(
            self._interval(ratio, *real, *drawn, clusters=[*[None] * len(real), *noise]),
            f"1 where they agree; interval over people and {_noises(noise)}",
        )

    def _distance(self, about: Metric, real: Values, drawn: Values) -> Iterator[Metric]:
        """Distance of samples to people, and, as the floor, of half of the people to the other half.

        The distance has no interval: people drawn again lie further from the samples than the people themselves.
        """
        about = replace(about, direction="lower")
        own = replace(about, people=len(real), images=len(drawn))
        distance = wasserstein(real[~np.isnan(real)], drawn)
        yield own.measured(Interval(distance, None, None), f"of shares{self.at}; no interval, compare the floor")
        if len(real) < FEWEST:
            return
        found = [
            wasserstein(real[one][~np.isnan(real[one])], real[other][~np.isnan(real[other])])
            for one, other in halves(len(real), SPLITS, self.options.seed)
        ]
        floor = replace(about, role="floor", method=FLOOR, people=len(real))
        yield floor.measured(half_sampling(np.array(found), len(real)), f"of shares{self.at}, over random halves")

    def _interval(
        self,
        statistic: Callable[..., float],
        *groups: Values,
        clusters: Sequence[NDArray[np.str_] | None] | None = None,
    ) -> Interval:
        resamples, seed = self.options.bootstrap, self.options.seed
        return bootstrap_groups(statistic, *groups, clusters=clusters, resamples=resamples, seed=seed)

    def _ordered(self, contrast: Contrast) -> Contrast:
        """With the kind of larger ventricles, among held-out people, second."""
        if contrast.ages is not None:
            return contrast
        kinds = contrast.kinds(self.people.index)
        ones, others = (
            self.people.means(self.people.of(kinds == kind)).mean() for kind in (contrast.ones, contrast.others)
        )
        return contrast if ones <= others else contrast.turned()


def _noises(noise: Sequence[NDArray[np.str_]]) -> str:
    """How many are resampled, each with all that was drawn from it."""
    return f"{len(np.unique(np.concatenate(noise)))} noises of samples"


def _rows(found: pd.DataFrame, people: People, drawn: pd.DataFrame) -> pd.DataFrame:
    """What was measured of each image."""
    real = found.rename(columns={"participant": "id"}).assign(kind="held-out")
    means = dict(zip(people.index["participant"], people.means(people.values), strict=True))
    real["adjusted"] = real["id"].map(means)
    columns = ["kind", "id", "group", "age", "slice", "share", "adjusted"]
    return pd.concat([real[columns], drawn.assign(kind="sample")[columns]], ignore_index=True).round(4)
