"""An ingest job is given its rows: what it reads is what the plan saw."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline_lib.cohort.rows import read_rows, write_rows
from pipeline_lib.cohort.sheet import Scan
from pipeline_lib.errors import UserError
from pipeline_lib.files import read_json, write_json

SCANS = [
    Scan("a", "1", "T1w", "a.nii.gz", group="A", age=30.5, covariates=(("education", 12.0), ("hand", "left")), row=2),
    Scan("b", "", "image", "ö/s_*.png", lesion="none", row=7),
]


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_rows(tmp_path / "state" / "c.json", SCANS)
    assert read_rows(tmp_path / "state" / "c.json") == SCANS


def test_file_that_says_the_same_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    write_rows(path, SCANS)
    before = path.stat().st_ino
    write_rows(path, SCANS)
    assert path.stat().st_ino == before
    write_rows(path, SCANS[:1])
    assert read_rows(path) == SCANS[:1]


def test_missing_or_outdated_rows_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    with pytest.raises(UserError, match=r"c\.json: no such file.*start the workflow again"):
        read_rows(path)
    write_rows(path, SCANS)
    write_json(path, {**read_json(path), "columns": ["participant"]})
    with pytest.raises(UserError, match="another version of the code"):
        read_rows(path)
