"""Two runs side by side: what differs is named once, and people are compared with themselves."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.metric import Metric
from pipeline_lib.files import write_json, write_table
from pipeline_lib.report.compare import compare, read_run


def made_run(folder: Path, dice: dict[str, float], *, steps: int, code: str = "c0de", cohort: str = "") -> Path:
    """Results of one recipe on test people with so much Dice each; one more person is in training."""
    people = [
        {"participant": name, "scan": name, "split": split, "included": "true", "sha256": f"content of {name}{cohort}"}
        for split, names in (("test", dice), ("train", ["trained"]))
        for name in names
    ]
    write_table(folder / "cohort" / "test-anat.tsv", list(people[0]), people)
    options: dict[str, Any] = {"denoiser": {"training": {"steps": steps, "seed": 0}}}
    for place, stage in (("diffusion", "train_denoiser"), ("evaluation", "evaluate_anomaly")):
        write_json(folder / "anomaly" / place / "provenance.json", {"stage": stage, "code": code, "options": options})
    for page, own in (
        ("anomaly", options),
        ("translation", {"denoiser": {"training": {"steps": 7 * steps, "seed": 0}}}),
    ):
        made = {"stage": "report_recipe", "code": code, "options": {"cohort": {"name": "C"}, "recipe": own}}
        write_json(folder / "report" / f"{page}.provenance.json", made)
    evaluation = folder / "anomaly" / "evaluation"
    value = sum(dice.values()) / len(dice)
    rows = [Metric("Dice", value, 0.1, 0.9, method="diffusion", direction="higher", people=len(dice))]
    write_json(evaluation / "metrics.json", [asdict(row) for row in rows])
    subjects = [
        {
            "participant": name,
            "split": "test",
            "method": method,
            "images": 3,
            "dice": value if method == "diffusion" else 0.0,
        }
        for name, value in dice.items()
        for method in ("diffusion", "intensity")
    ]
    pd.DataFrame(subjects).to_csv(evaluation / "per_subject.tsv", sep="\t", index=False)
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    first = made_run(tmp_path / "first", {"01": 0.2, "02": 0.4, "03": 0.6, "gone": 0.9}, steps=10)
    second = made_run(tmp_path / "second", {"01": 0.3, "02": 0.5, "03": 0.7, "new <b>": 0.1}, steps=20, code="d0de")
    return first, second


def test_people_in_both_runs_are_compared_with_themselves(tmp_path: Path, runs: tuple[Path, Path]) -> None:
    lines = compare(*runs, tmp_path / "compare.html")
    assert lines[1] == "anomaly: dice: +0.1 [+0.1, +0.1], 3 people in both"
    text = (tmp_path / "compare.html").read_text()
    assert "new &lt;b&gt;" in text
    assert "new <b>" not in text


def test_the_same_identifiers_in_two_cohorts_are_not_the_same_people(tmp_path: Path) -> None:
    first = made_run(tmp_path / "first", {"01": 0.2, "02": 0.4, "03": 0.6}, steps=10)
    other = made_run(tmp_path / "other", {"01": 0.3, "02": 0.5, "03": 0.7}, steps=10, cohort=" of another cohort")
    out = tmp_path / "compare.html"
    assert [line for line in compare(first, other, out) if "people in both" in line] == []
    text = out.read_text()
    assert "4 identifiers stand in both runs without a scan in common" in text
    assert "No test person has numbers of their own in both runs." in text
    assert '<th scope="row" class="nowrap">People in the first only</th><td class="n">0</td>' in text


def test_option_is_named_once_however_many_stages_read_it(tmp_path: Path, runs: tuple[Path, Path]) -> None:
    assert (
        compare(*runs, tmp_path / "compare.html")[0] == "1 options, the code of 4 stages and 4 people or scans differ"
    )
    text = (tmp_path / "compare.html").read_text()
    assert text.count("denoiser.training.steps") == 1, "not those of the pages, of which there is one a recipe"
    assert "anomaly: denoiser.training.steps" in text
    assert '<td class="long">10</td><td class="long">20</td>' in text
    assert "training.seed" not in text


def test_a_run_does_not_differ_from_itself(tmp_path: Path, runs: tuple[Path, Path]) -> None:
    lines = compare(runs[0], runs[0], tmp_path / "compare.html")
    assert lines[0] == "0 options, the code of 0 stages and 0 people or scans differ"
    text = (tmp_path / "compare.html").read_text()
    assert "The same code made both." in text
    assert "No option of a stage that both ran differs." in text


def test_folder_of_somebody_elses_sidecars_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "provenance.json").write_text('{"made_by": "another program"}')
    with pytest.raises(UserError, match=r"provenance\.json: no stage of this workflow wrote it"):
        compare(tmp_path, tmp_path, tmp_path / "compare.html")


def test_folder_without_results_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no results of a run"):
        read_run(tmp_path)
    command = [sys.executable, "-m", "pipeline_lib.report", "compare", str(tmp_path), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("ERROR ")
    assert done.stderr.count("\n") == 1
