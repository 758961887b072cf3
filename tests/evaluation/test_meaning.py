"""What conditions mean: ventricles, classifiers and diversity of images whose truth is known by construction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from pipeline_lib.config.schema import EvaluationOptions
from pipeline_lib.evaluation.classifier import BOTH, NAME, SAMPLES, TRAINING, _area, classify
from pipeline_lib.evaluation.contrasts import Contrast, contrasts_of
from pipeline_lib.evaluation.counterfactuals import CHANGE, measure_counterfactuals
from pipeline_lib.evaluation.diversity import measure_diversity
from pipeline_lib.evaluation.metric import Metric
from pipeline_lib.evaluation.sets import FLOOR, HELD_OUT, Real
from pipeline_lib.evaluation.ventricles import SHARE, aligned, measure_ventricles
from pipeline_lib.files import write_json

OPTIONS = EvaluationOptions(bootstrap=100)
RESULT = Metric("", None, method="model", split="held-out")
SIDE, BRAIN = 40, 30
PLACES = (0.0, 10.0, 20.0)
LEVEL = {0.0: 40, 10.0: 60, 20.0: 80}
"""Voxels of ventricle in a slice of somebody of 0 years."""


class Counting:
    """Stands for a segmenter: ventricles are what is black within a bright square."""

    figures = "exact"

    def shares(self, images: Any) -> NDArray[np.float64]:
        images = images[:] if not isinstance(images, np.ndarray) else images
        brain = (images > -0.5).sum(axis=(1, 2, 3))
        return (np.abs(images) < 0.1).sum(axis=(1, 2, 3)) / brain


def slice_with(voxels: int) -> NDArray[np.float32]:
    """A bright square of 30 x 30 voxels, so many of which are ventricle."""
    image = np.full((1, SIDE, SIDE), -1, np.float32)
    inner = np.full(BRAIN * BRAIN, 0.8, np.float32)
    inner[:voxels] = 0
    image[0, 5 : 5 + BRAIN, 5 : 5 + BRAIN] = inner.reshape(BRAIN, BRAIN)
    return image


def voxels_of(place: float, age: float, person: float) -> int:
    """Two voxels a year at any slice, and what a person has more than others."""
    return round(LEVEL[place] + 2 * age + person)


def people_of(count: int, seed: int, deviation: float = 8.0) -> tuple[Real, pd.DataFrame]:
    """Real people at every slice; ages even between 20 and 80."""
    rng = np.random.default_rng(seed)
    rows, images = [], []
    for number, age in enumerate(np.linspace(20, 80, count)):
        own = rng.normal(0, deviation)
        for place in PLACES:
            rows.append((f"p{seed}-{number}", "old" if age >= 50 else "young", age, place))
            images.append(slice_with(voxels_of(place, age, own)))
    index = pd.DataFrame(rows, columns=["participant", "group", "age", "slice"])
    stacked = np.stack(images)
    return Real(index, stacked, stacked.reshape(len(stacked), -1)[:, ::9].astype(float)), index  # type: ignore[arg-type]


def samples_of(
    ages: Sequence[float], places: Sequence[float], seed: int, factor: float = 1.0, deviation: float = 8.0
) -> Any:
    """Samples of a model whose ventricles grow ``factor`` times as fast over age, from the mean age of 50 on."""
    rng = np.random.default_rng(seed)
    images = [
        slice_with(voxels_of(place, 50 + factor * (age - 50), rng.normal(0, deviation)))
        for age, place in zip(ages, places, strict=True)
    ]
    table = pd.DataFrame(
        {
            "id": [f"syn-{n}" for n in range(len(images))],
            "group": ["old" if age >= 50 else "young" for age in ages],
            "age": [f"{age:g}" for age in ages],
            "slice": [f"{place:g}" for place in places],
            "seed": [str(n) for n in range(len(images))],
        }
    )
    return np.stack(images), table


def found(metrics: list[Metric], name: str, **about: Any) -> Metric:
    chosen = [
        row for row in metrics if row.name == name and all(getattr(row, key) == value for key, value in about.items())
    ]
    assert len(chosen) == 1, [(row.name, row.group, row.method) for row in metrics]
    return chosen[0]


def measured(factor: float, deviation: float = 8.0) -> list[Metric]:
    real, _ = people_of(60, 1)
    rng = np.random.default_rng(2)
    ages, places = rng.uniform(20, 80, 300), rng.choice(PLACES, 300)
    images, table = samples_of(ages, places, 3, factor, deviation)
    return measure_ventricles(Counting(), real, images, table, OPTIONS, RESULT)[0]  # type: ignore[arg-type]


def test_a_model_that_is_right_agrees_with_held_out_people() -> None:
    metrics = measured(1.0)
    for name in ("old to young", "60+ to under 35"):
        assert found(metrics, f"{SHARE}, ratio of {name}, samples over held-out people").value == pytest.approx(
            1, abs=0.04
        )
    over = "samples over held-out people"
    assert found(metrics, f"{SHARE}, slope over age, {over}").value == pytest.approx(1, abs=0.06)
    spread = f"{SHARE}, spread between people at a slice, {over}"
    assert found(metrics, spread, group="all").value == pytest.approx(1, abs=0.1)


def test_levels_ratio_and_slope_are_those_put_in() -> None:
    """2 voxels a year of 900 are 2.22 % of the brain a decade; people of 65 and 35 years on average have 190 and 130 voxels."""
    metrics = measured(1.0)
    slope = found(metrics, f"{SHARE}, slope over age", role="reference")
    assert slope.value == pytest.approx(2000 / 900, rel=0.05)
    assert slope.low is not None
    assert slope.high is not None
    assert slope.low < 2000 / 900 < slope.high
    mean = found(metrics, SHARE, role="reference", group="all")
    assert mean.value == pytest.approx(100 * 160 / 900, rel=0.03)
    assert mean.people == 60
    assert mean.method == HELD_OUT
    ratio = found(metrics, f"{SHARE}, ratio of old to young", role="reference")
    assert ratio.value == pytest.approx(190 / 130, rel=0.03)


def test_a_model_of_half_the_slope_and_half_the_spread_is_found_out() -> None:
    metrics = measured(0.5, deviation=4.0)
    over = "samples over held-out people"
    slope = found(metrics, f"{SHARE}, slope over age, {over}")
    assert slope.value == pytest.approx(0.5, abs=0.05)
    assert slope.high is not None
    assert slope.high < 0.7
    ratio = found(metrics, f"{SHARE}, ratio of old to young, {over}")
    assert ratio.value == pytest.approx((175 / 145) / (190 / 130), abs=0.03)
    distance = found(metrics, f"{SHARE}, Wasserstein distance to held-out people", group="old", role="result")
    floor = found(metrics, f"{SHARE}, Wasserstein distance to held-out people", group="old", method=FLOOR)
    assert distance.value is not None
    assert floor.value is not None
    assert distance.value > 1.5 * floor.value
    assert distance.low is None, "resampled, a distance lies above itself"


def test_where_slices_lie_is_no_difference_between_groups() -> None:
    """Old samples lie high, where ventricles are large, young ones low: unadjusted their shares would differ by 40 voxels more."""
    real, _ = people_of(60, 1, deviation=0)
    ages = [30.0] * 40 + [70.0] * 40
    places = [0.0] * 36 + [20.0] * 4 + [0.0] * 4 + [20.0] * 36
    images, table = samples_of(ages, places, 3, deviation=0)
    _metrics, rows = measure_ventricles(Counting(), real, images, table, OPTIONS, RESULT)  # type: ignore[arg-type]
    drawn = rows[rows["kind"] == "sample"].groupby("group")["adjusted"].mean()
    assert drawn["old"] - drawn["young"] == pytest.approx(100 * 80 / 900, abs=0.02)


def test_samples_far_from_every_real_slice_are_left_out() -> None:
    _real, index = people_of(10, 1)
    drawn = pd.DataFrame({"group": "old", "age": 50.0, "slice": [10.0, 14.0, 70.0], "share": 10.0, "seed": "0"})
    people, samples = aligned(index.assign(share=5.0), drawn)
    assert list(samples.table["position"]) == [1, 1]
    assert people.weights.tolist() == [0, 2, 0]


def test_pairs_from_the_same_noise_have_an_effect_of_their_own() -> None:
    """The same deviation in both groups: hardly any spread of the differences, so a huge paired effect."""
    real, _ = people_of(40, 1)
    images, tables = [], []
    for age in (30.0, 70.0):
        drawn, table = samples_of([age] * 20, [10.0] * 20, seed=5)
        images.append(drawn)
        tables.append(table.assign(age="", slice="10"))
    metrics, _ = measure_ventricles(
        Counting(), real, np.concatenate(images), pd.concat(tables, ignore_index=True), OPTIONS, RESULT  # type: ignore[arg-type]
    )  # fmt: skip
    paired = found(metrics, f"{SHARE}, paired effect of old to young")
    plain = found(metrics, f"{SHARE}, effect size of old to young", role="result")
    assert paired.images == 20
    assert paired.value is not None
    assert plain.value is not None
    assert paired.value > 5 * plain.value


def test_young_and_old_are_compared_where_ages_are_told_and_there_are_enough() -> None:
    _, people = people_of(20, 1)
    _, table = samples_of([25.0] * 5 + [70.0] * 5, [0.0] * 10, 0)
    assert contrasts_of(table, people, (35, 60)) == [Contrast("old", "young"), Contrast("under 35", "60+", (35, 60))]
    assert contrasts_of(table.assign(group="all"), people, (35, 60)) == [Contrast("under 35", "60+", (35, 60))]
    assert contrasts_of(table.iloc[:6], people, (35, 60)) == []


def features_of(kinds: Sequence[str], apart: float, seed: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(len(kinds), 6))
    features[:, 0] += apart * (np.array(kinds) == "old")
    return features


def real_with(number: int, seed: int, apart: float) -> Real:
    kinds = ["old" if n % 2 else "young" for n in range(number)]
    index = pd.DataFrame(
        {"participant": [f"{seed}-{n}" for n in range(number)], "group": kinds, "age": 50.0, "slice": 0.0}
    )
    return Real(index, np.zeros((number, 1, 8, 8)), features_of(kinds, apart, seed))  # type: ignore[arg-type]


def classified(apart: float, told_apart: float) -> list[Metric]:
    kinds = ["old", "young"] * 40
    table = pd.DataFrame({"id": range(80), "group": kinds, "seed": range(80)})
    return classify(
        real_with(200, 1, apart), real_with(120, 2, apart), features_of(kinds, told_apart, 3), table, OPTIONS, RESULT
    )


def test_a_classifier_reaches_what_two_gaussians_allow() -> None:
    """Two unit Gaussians 2 apart: the area under the curve is Phi(2 / sqrt 2) = .921."""
    metrics = classified(2.0, 2.0)
    name = f"{NAME}, young against old"
    for method, part in ((TRAINING, "on samples"), (TRAINING, "on held-out people"), (SAMPLES, "on held-out people")):
        row = found(metrics, name, method=method, part=part, against="")
        assert row.value == pytest.approx(0.921, abs=0.06)
        assert row.low is not None
        assert row.high is not None
        assert row.low < 0.921 + 0.05
        assert row.high > 0.921 - 0.05


def test_samples_of_one_noise_are_drawn_together() -> None:
    """Four copies of a sample from each of 20 noises: the interval is that of 20 samples, not of 80."""
    images, own = samples_of([30.0, 70.0] * 10, [10.0] * 20, seed=6)
    noises = np.tile(np.arange(20), 4)
    table = own.iloc[noises].assign(id=[f"c-{n}" for n in range(80)]).reset_index(drop=True)
    real, _ = people_of(30, 1)
    options = EvaluationOptions(bootstrap=400)
    name = f"{SHARE}, spread between people at a slice"

    def widths(seeds: Sequence[int], drawn: Any, of: pd.DataFrame) -> list[float]:
        told = of.assign(seed=[str(seed) for seed in seeds])
        rows = measure_ventricles(Counting(), real, drawn, told, options, RESULT)[0]  # type: ignore[arg-type]
        chosen = [found(rows, each, role="result", group="all") for each in (SHARE, name)]
        return [float(row.high or 0) - float(row.low or 0) for row in chosen]

    single = widths(range(20), images, own)
    assert widths(list(noises), images[noises], table) == pytest.approx(single, rel=0.15)
    assert widths(range(80), images[noises], table)[0] < 0.6 * single[0]


def test_of_volumes_no_slice_is_spoken() -> None:
    real, index = people_of(20, 1)
    rows = (index["slice"] == PLACES[0]).to_numpy()
    volumes = Real(index[rows].assign(slice=np.nan).reset_index(drop=True), real.images[rows], real.features[rows])
    images, table = samples_of([30.0, 70.0] * 10, [PLACES[0]] * 20, seed=6)
    own = table.assign(slice="")
    metrics = measure_ventricles(Counting(), volumes, images, own, OPTIONS, RESULT)[0]  # type: ignore[arg-type]
    assert found(metrics, f"{SHARE}, spread between people", role="result", group="all").images == 20
    assert not [row for row in metrics if "slice" in f"{row.name} {row.unit} {row.note}"]


def test_the_area_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    ones, others = rng.integers(0, 9, 40).astype(float), rng.integers(3, 12, 30).astype(float)
    truth = np.repeat([0, 1], [40, 30])
    assert _area(ones, others) == pytest.approx(roc_auc_score(truth, np.concatenate([ones, others])))


def test_samples_without_meaning_are_told_so_and_a_null_result_is_said() -> None:
    metrics = classified(2.0, 0.0)
    name = f"{NAME}, young against old"
    assert found(metrics, name, part="on samples").value == pytest.approx(0.5, abs=0.13)
    gain = found(metrics, name, method=BOTH, against=TRAINING)
    assert "samples help" not in gain.note
    nothing = classified(0.0, 0.0)
    assert "no gain is shown" in found(nothing, name, method=BOTH, against=TRAINING).note


def test_samples_that_repeat_themselves_are_more_alike_than_people() -> None:
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (20, 1, 32, 32)).astype(np.float32)
    index = pd.DataFrame({"participant": [f"p{n}" for n in range(20)], "group": "A", "slice": 5.0})
    real = Real(index, images, images.reshape(20, -1))  # type: ignore[arg-type]
    table = pd.DataFrame({"id": [f"s{n}" for n in range(20)], "group": "A", "seed": [str(n) for n in range(20)]})
    repeated = images[:1] + rng.normal(0, 0.02, images.shape).astype(np.float32)
    drawn, people = measure_diversity(repeated, table, real, OPTIONS, RESULT)
    assert drawn.value is not None
    assert people.value is not None
    assert drawn.value > 0.95 > 0.5 > people.value


def test_counterfactuals_that_age_like_the_cohort_agree_with_it(tmp_path: Path) -> None:
    real, index = people_of(40, 1)
    ages = [25.0, 40.0, 55.0, 70.0]
    chosen = index[index["slice"] == 10].iloc[::4]
    own = np.random.default_rng(4).normal(0, 8, len(chosen))
    changed = np.stack([[slice_with(voxels_of(10.0, age, mine)) for age in ages] for mine in own])
    for condition in ("age", "sex"):
        (tmp_path / condition).mkdir()
        np.save(tmp_path / condition / "changed.npy", changed)
    write_json(tmp_path / "counterfactuals.json", {"age": ages, "sex": ["F", "M"]})
    table = chosen.assign(scan=chosen["participant"], own=chosen["age"], psnr=30.0, mean_absolute_error=0.02)
    for condition in ("age", "sex"):
        table.to_csv(tmp_path / f"counterfactuals_{condition}.tsv", sep="\t", index=False)
    metrics = measure_counterfactuals(tmp_path, Counting(), real, OPTIONS, RESULT)  # type: ignore[arg-type]
    name = f"{CHANGE} over age"
    assert found(metrics, name, role="result").value == pytest.approx(2000 / 900, rel=0.02)
    assert found(metrics, f"{name}, counterfactuals over held-out people").value == pytest.approx(1, abs=0.05)
    spread = "people spread over age"
    assert found(metrics, "round trip of a scan, PSNR", part=spread).value == 30
    assert found(metrics, "round trip of a scan, mean absolute error", part=spread).value == pytest.approx(0.01)
    alone = measure_counterfactuals(tmp_path, None, real, OPTIONS, RESULT)
    assert {row.part for row in alone} == {"people spread over age", "people spread over sex"}
    assert {row.name for row in alone} == {"round trip of a scan, PSNR", "round trip of a scan, mean absolute error"}
