"""What is said of a condition: that it moved samples as people differ, that it did not, or that it was not tested."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from pipeline_lib.config.schema import EvaluationOptions
from pipeline_lib.evaluation.classifier import classify
from pipeline_lib.evaluation.effect import measure_change, remarks_on
from pipeline_lib.evaluation.metric import Metric
from pipeline_lib.evaluation.sets import Real

OPTIONS = EvaluationOptions(bootstrap=200)
RESULT = Metric("", None, role="result", method="diffusion", split="held-out")
SAMPLES = pd.DataFrame(
    {
        "id": [f"s{n}" for n in range(80)],
        "cell": ["AD", "CN"] * 40,
        "group": ["AD", "CN"] * 40,
        "seed": [str(n // 2) for n in range(80)],
    }
)


def features(kinds: list[str], apart: float, seed: int) -> NDArray[np.float64]:
    values = np.random.default_rng(seed).normal(size=(len(kinds), 6))
    values[:, 0] += apart * (np.array(kinds) == "AD")
    return values


def real(number: int, seed: int, apart: float) -> Real:
    """So many people, whose images are of 0 or, in the other group, of .5."""
    kinds = ["AD" if n % 2 else "CN" for n in range(number)]
    index = pd.DataFrame({"participant": [f"{seed}-{n}" for n in range(number)], "group": kinds, "slice": "0"})
    images = np.where(np.array(kinds) == "AD", 0.5, 0.0)[:, None, None, None] * np.ones((1, 1, 8, 8))
    return Real(index, images.astype(np.float32), features(kinds, apart, seed))  # type: ignore[arg-type]


def said(apart: float, told: float, *, held_out: int = 120, people_differ: float | None = None) -> str:
    """The remark on samples ``told`` apart, where training people are ``apart``."""
    other = real(held_out, 2, apart if people_differ is None else people_differ)
    drawn = features(list(SAMPLES["group"]), told, 3)
    metrics = classify(real(200, 1, apart), other, drawn, SAMPLES, OPTIONS, RESULT)
    (remark,) = remarks_on(metrics, SAMPLES, OPTIONS, trained_here=True)
    return remark


def test_a_condition_that_moves_samples_as_people_differ() -> None:
    remark = said(2.0, 2.0)
    assert remark.startswith("Samples look like the people they were asked for")
    assert "over 80 samples" in remark
    assert "It does tell held-out people apart (AUC 0.9" in remark


def test_a_condition_without_effect_is_said_to_have_none() -> None:
    remark = said(2.0, 0.0)
    assert remark.startswith("Samples of AD and CN cannot be told apart")
    assert "read no difference into them" in remark
    assert "It does tell held-out people apart" in remark


def test_a_condition_that_moves_samples_a_little_is_not_said_to_mean_what_it_means_in_people() -> None:
    """The same noise under both groups shows a shift far smaller than what people differ by."""
    drawn = np.random.default_rng(5).normal(size=(40, 6)).repeat(2, axis=0)
    drawn[:, 0] += 0.3 * (SAMPLES["group"] == "AD")
    metrics = classify(real(200, 1, 2.0), real(60, 2, 2.0), drawn, SAMPLES, OPTIONS, RESULT)
    (remark,) = remarks_on(metrics, SAMPLES, OPTIONS, trained_here=True)
    assert remark.startswith("Samples of AD and CN can hardly be told apart")
    assert "little that is seen in people" in remark


def test_a_condition_that_moves_samples_the_wrong_way() -> None:
    assert said(2.0, -2.0).startswith("Samples of AD and CN look like the other kind")


def test_a_weak_test_says_that_it_is_weak() -> None:
    assert "so that this test is weak" in said(2.0, 0.0, people_differ=0.0)
    assert "Held-out people of each are too few" in said(2.0, 0.0, held_out=6)


@pytest.mark.parametrize(
    ("samples", "people", "expected"),
    [
        ((1.0, 0.5, 1.5), (1.2, 0.4, 2.0), "samples differ the same way as people"),
        ((-1.0, -1.5, -0.5), (1.2, 0.4, 2.0), "samples differ the other way than people"),
        ((0.1, -0.5, 0.6), (1.2, 0.4, 2.0), "people differ, of samples it is not shown"),
        ((-0.4, -0.7, -0.1), (0.3, -0.7, 1.1), "may be the model's own"),
        ((0.1, -0.2, 0.3), (0.3, -0.7, 1.1), "no difference is shown in either"),
    ],
)
def test_ventricles_of_samples_are_held_against_those_of_people(
    samples: tuple[float, float, float], people: tuple[float, float, float], expected: str
) -> None:
    name = "ventricles' share of the brain, effect size of CN to AD"
    rows = [
        replace(RESULT, name=name, role=role, value=value, low=low, high=high, people=20)
        for role, (value, low, high) in (("result", samples), ("reference", people))
    ]
    (remark,) = remarks_on(rows, SAMPLES, OPTIONS, trained_here=False)
    assert remark.endswith(f"{expected}.")
    assert f"CN against AD, has an effect size of {samples[0]:.2f} [" in remark


def test_what_was_not_tested_is_said_and_why() -> None:
    (remark,) = remarks_on([], SAMPLES, OPTIONS, trained_here=False)
    assert remark == (
        "Whether samples of AD and CN differ as such people do was not tested: the training people are not here."
    )
    assert "takes 4 training people of each" in remarks_on([], SAMPLES, OPTIONS, trained_here=True)[0]
    assert remarks_on([], SAMPLES.assign(group="all"), OPTIONS, trained_here=True) == []


def test_what_only_the_group_changes_is_measured_on_samples_of_one_noise() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, (40, 1, 8, 8)).repeat(2, axis=0)
    images = noise + 0.02 * (SAMPLES["group"] == "AD").to_numpy()[:, None, None, None]
    own, people = measure_change(images, SAMPLES, real(20, 1, 0.0), OPTIONS, RESULT)
    assert own.value == pytest.approx(1.0), "0.02 of a range of 2"
    assert (own.images, own.note) == (80, "40 pairs from the same noise")
    assert people.value == pytest.approx(25.0)
    assert (people.role, people.people) == ("reference", 20)
    (remark,) = remarks_on([own, people], SAMPLES, OPTIONS, trained_here=True)
    assert "the other group changes a sample by 1% [1, 1] of the intensity range" in remark
    assert "two real people of the two differ by 25%" in remark
    unknown = SAMPLES.assign(age=float("nan"), sex=None)
    assert len(list(measure_change(images, unknown, real(20, 1, 0.0), OPTIONS, RESULT))) == 2, "a value may be unknown"
    other_noise = SAMPLES.assign(seed=[str(n) for n in range(80)])
    assert list(measure_change(images, other_noise, real(20, 1, 0.0), OPTIONS, RESULT)) == []


def test_two_people_are_compared_at_one_slice_of_one_contrast_however_many_there_are() -> None:
    many = 4000
    kinds = ["AD", "CN"] * (many // 2)
    index = pd.DataFrame({"participant": [str(n) for n in range(many)], "group": kinds, "slice": "", "modality": "T1w"})
    images = np.where(np.array(kinds) == "AD", 0.5, 0.0)[:, None, None, None] * np.ones((1, 1, 2, 2))
    index.loc[many // 2 :, "modality"] = "FLAIR"
    images[many // 2 :] += 10
    drawn = SAMPLES.assign(slice="")
    rows = list(
        measure_change(
            np.zeros((80, 1, 2, 2)), drawn, Real(index, images.astype(np.float32), np.zeros((many, 1))), OPTIONS, RESULT
        )
    )
    assert rows[1].value == pytest.approx(25.0), "a T1w is not compared with a FLAIR"
    assert rows[1].note.startswith("200 pairs")
