"""A line for a terminal: how many recipes beat their floor, by the roles of their metrics."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.metric import Metric
from pipeline_lib.files import write_json
from pipeline_lib.report.floors import floors


def evaluated(results: Path, task: str, name: str, direction: str, result: float, floor: float, half: float) -> None:
    about = {"name": name, "direction": direction, "people": 30}
    difference = result - floor
    rows = [
        Metric(value=result, role="result", method="diffusion", **about),  # type: ignore[arg-type]
        Metric(value=floor, role="floor", method="bar", **about),  # type: ignore[arg-type]
        Metric(
            value=difference, low=difference - half, high=difference + half, method="diffusion", against="bar", **about
        ),  # type: ignore[arg-type]
    ]
    write_json(results / task / "evaluation" / "metrics.json", [asdict(row) for row in rows])
    write_json(results / task / "evaluation" / "provenance.json", {"options": {"task": task}})


def test_what_is_above_and_what_is_not(tmp_path: Path) -> None:
    evaluated(tmp_path, "anomaly", "pixel AP", "higher", 0.7, 0.6, 0.05)
    evaluated(tmp_path, "translation", "PSNR", "higher", 20, 25, 1)
    assert floors(tmp_path)[0] == "1 of 2 recipes beat their floor"
    (line,) = floors(tmp_path)[1:]
    assert line.startswith("translation: Predicts the target worse than the bar: PSNR 20")


def test_samples_that_cannot_be_told_from_people_have_reached_their_floor(tmp_path: Path) -> None:
    evaluated(tmp_path, "generation", "FID", "lower", 1.1, 1.0, 0.5)
    assert floors(tmp_path) == ["1 of 1 recipes beat their floor"]
    evaluated(tmp_path, "generation", "FID", "lower", 3.0, 1.0, 0.5)
    assert floors(tmp_path)[0] == "0 of 1 recipes beat their floor"
    evaluated(tmp_path, "anomaly", "pixel AP", "higher", 0.7, 0.69, 0.05)
    assert floors(tmp_path)[0] == "0 of 2 recipes beat their floor", "an interval over 0 beats nothing"


def test_without_an_evaluation_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no recipe was evaluated here"):
        floors(tmp_path)
