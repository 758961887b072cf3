"""One sentence a recipe: what it claims is what the paired difference says, and no more."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from pipeline_lib.evaluation.metric import Metric, Role, read_metrics
from pipeline_lib.files import write_json
from pipeline_lib.report.verdict import Verdict, headline, judged, verdict
from pipeline_lib.tasks import TASKS


def metric(method: str, value: float | None, role: Role, **about: Any) -> Metric:
    defaults: dict[str, Any] = {"name": "pixel AP", "direction": "higher", "people": 64}
    return Metric(value=value, method=method, role=role, **(defaults | about))


def said(*metrics: Metric, task: str = "anomaly", missing: tuple[str, ...] = ()) -> Verdict:
    return verdict(TASKS[task], metrics, headline(TASKS[task].headline, judged(metrics)), missing)


def anomaly(low: float, high: float, **about: Any) -> Verdict:
    return said(
        metric("diffusion", 0.71, "result"),
        metric("asymmetry", 0.65, "floor"),
        metric("chance", 0.02, "floor"),
        metric("diffusion", 0.06, "result", against="asymmetry", low=low, high=high, **about),
        metric("diffusion", 0.69, "result", against="chance", low=0.6, high=0.8),
    )


@pytest.mark.parametrize(
    ("low", "high", "outcome", "words"),
    [
        (0.04, 0.08, "better", "Finds lesions better than asymmetry: pixel AP 0.710 against 0.650, difference 0.0600 [0.0400, 0.0800]"),
        (-0.04, 0.16, "undecided", "Finds lesions neither better nor worse than asymmetry"),
        (-0.08, -0.04, "worse", "Finds lesions worse than asymmetry"),
    ],
)  # fmt: skip
def test_sentence_says_what_the_interval_to_the_best_floor_allows(
    low: float, high: float, outcome: str, words: str
) -> None:
    found = anomaly(low, high)
    assert found.outcome == outcome
    assert found.sentence.startswith(words)
    assert found.sentence.endswith("64 people.")
    assert found.detail == ""


def test_few_people_are_named_as_few() -> None:
    assert anomaly(0.04, 0.08, people=5).detail == "So few people settle little."


def test_lower_is_better_where_the_metric_says_so() -> None:
    about = {"name": "FID", "direction": "lower", "split": "held-out"}
    found = said(
        metric("diffusion", 1.0, "result", **about),
        metric("half against half", 0.4, "floor", **about),
        metric("diffusion", 0.6, "result", against="half against half", low=0.5, high=0.7, **about),
        task="generation",
    )
    assert found.outcome == "worse"
    assert found.sentence.startswith(
        "Samples lie farther from held-out people than these from each other (half against half)"
    )


def test_parts_are_told_apart() -> None:
    rows = [
        metric(method, value, role, name="PSNR", part=part, **more)
        for part, low, high in (("ICVF", 0.1, 0.3), ("ODI", -0.3, -0.1))
        for method, value, role, more in (
            ("diffusion", 20.0, "result", {}),
            ("linear fit", 19.0, "floor", {}),
            ("diffusion", 1.0, "result", {"against": "linear fit", "low": low, "high": high}),
        )
    ]  # fmt: skip
    found = said(*rows, task="translation")  # type: ignore[arg-type]
    assert found.outcome == "better"
    assert found.detail == "By part: ODI worse."


def test_nothing_is_claimed_without_a_floor_a_difference_or_a_value() -> None:
    alone = said(metric("diffusion", 0.7, "result"))
    assert (alone.outcome, alone.sentence) == (
        "", "No verdict: pixel AP 0.700, and nothing stands beside it that it has to beat.",
    )  # fmt: skip
    unpaired = said(metric("diffusion", 0.7, "result"), metric("asymmetry", 0.6, "floor"))
    assert (unpaired.outcome, "without an interval" in unpaired.sentence) == ("", True)
    unmeasured = said(metric("diffusion", None, "result"), missing=("pixel AP: no lesion mask",))
    assert unmeasured.sentence == "No verdict: pixel AP: no lesion mask."


def test_an_interval_that_is_no_number_claims_nothing(tmp_path: Path) -> None:
    nan = float("nan")
    assert anomaly(nan, nan).outcome == "undecided"
    rows = [
        metric("diffusion", 0.7, "result"),
        metric("broken", nan, "floor"),
        metric("asymmetry", 0.6, "floor"),
        metric("diffusion", nan, "result", against="asymmetry", low=nan, high=nan),
    ]
    write_json(tmp_path / "metrics.json", [asdict(row) for row in rows])
    found = said(*read_metrics(tmp_path))
    assert found.outcome == ""
    assert found.sentence.endswith("pixel AP 0.700 against 0.600 of asymmetry, without an interval of the difference.")


def test_every_task_has_its_words() -> None:
    for task in TASKS.values():
        assert set(task.verdicts) == {"better", "worse", "undecided"}
        assert all("{floor}" in words for words in task.verdicts.values())
