"""The flow of scans: every one is counted, none twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline_lib.files import write_table
from pipeline_lib.report.flow import cohort_flow, kind_of, recipe_flow


def person(scan: str, stage: str = "", reason: str = "") -> dict[str, str]:
    return {"scan": scan, "included": str(not stage).lower(), "stage": stage, "reason": reason}


def test_every_scan_of_the_sheet_is_accounted_for() -> None:
    people = [
        person("a"),
        person("b", "ingest", "data/b.nii.gz (row 5 of the sheet): truncated"),
        person("c", "ingest", "data/c.nii.gz (row 6 of the sheet): truncated"),
        person("d", "quality", "brain volume 300 mL is below 800"),
        person("e", "elsewhere", "odd"),
    ]
    steps = cohort_flow(people, [{"scan": "row 9", "reason": "row 9: no modality"}], {"b": "scans/b.html"})
    assert [(step.remaining, step.left_out) for step in steps] == [(6, 0), (5, 1), (3, 2), (3, 0), (2, 1), (1, 1)]
    for before, after in zip(steps, steps[1:], strict=False):
        assert after.remaining == before.remaining - after.left_out
        assert sum(reason.scans for reason in after.reasons) == after.left_out
    (truncated,) = steps[2].reasons
    assert (truncated.text, truncated.examples) == ("truncated", (("b", "scans/b.html"), ("c", "")))


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("data/a b.nii.gz (row 5 of the sheet): 3 slices are empty", "… slices are empty"),
        ("brain volume 300.5 mL is outside 800 to 2,300", "brain volume … mL is outside … to …"),
        ("T1w and T2w differ: by 4", "T1w and T2w differ: by …"),
        ("", "no reason given"),
    ],
)
def test_reasons_of_one_kind_are_one_reason(reason: str, kind: str) -> None:
    assert kind_of(reason) == kind


@pytest.mark.parametrize(
    ("model", "last"), [({"train_scans": 1, "data": {"train_groups": ["CN"]}}, (1, 1)), (None, (2, 1))]
)
def test_recipe_counts_scans_once_whatever_their_slices(
    tmp_path: Path, model: dict[str, Any] | None, last: tuple[int, int]
) -> None:
    for split, scans in (("train", ["a", "a", "b"]), ("test", ["c"])):
        folder = tmp_path / f"{split}-anat-0001"
        write_table(folder / "index.tsv", ["scan"], [{"scan": scan} for scan in scans])
        write_table(
            folder / "left_out.tsv", ["scan", "reason"], [{"scan": f"{split}-x", "reason": "no slice in the brain"}]
        )
    steps = recipe_flow(sorted(tmp_path.iterdir()), model)
    assert [(step.remaining, step.left_out) for step in steps[:3]] == [(5, 0), (3, 2), (2, 1)]
    assert (steps[-1].remaining, steps[-1].left_out) == last
