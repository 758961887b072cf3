"""The ledger as a file: written, read again, and refused where it contradicts itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline_lib.cohort.ledger import Ledger, read_ledger, write_ledger
from pipeline_lib.cohort.placement import place
from pipeline_lib.cohort.sheet import SPLITS, Scan, Sheet, read_sheet
from pipeline_lib.config.schema import SplitOptions
from pipeline_lib.errors import UserError


def test_written_ledger_is_read_again(tmp_path: Path) -> None:
    scans = tuple(Scan(f"p{n}", "", "T1w", "x.nii.gz", row=n + 2) for n in range(10))
    ledger = place(Sheet("subjects.tsv", scans, (), (), "."), Ledger(), SplitOptions(), 4)
    write_ledger(tmp_path / "splits.tsv", ledger)
    assert read_ledger(tmp_path / "splits.tsv") == ledger
    assert read_ledger(tmp_path / "none.tsv") == Ledger()
    assert ledger.chunks("train", "anat") == ("train-anat-0001", "train-anat-0002")


GOOD_ROW = "sub-a_T1w\ta\ttrain\ttrain-anat-0001\thash"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a ledger has scan, participant"),
        ("a,b\n", "a ledger has scan, participant"),
        ("scan\tparticipant\tsplit\tchunk\thow\nx\ty\n", "row 2: 2 values for 5 columns"),
        (f"scan\tparticipant\tsplit\tchunk\thow\n{GOOD_ROW}\n{GOOD_ROW}\n", "row 3: sub-a_T1w is listed twice"),
        (
            f"scan\tparticipant\tsplit\tchunk\thow\n{GOOD_ROW}\nsub-a_FLAIR\ta\ttest\ttest-anat-0001\thash\n",
            "row 3: a is in train and test",
        ),
        ("scan\tparticipant\tsplit\tchunk\thow\nx\tx\ttest\ttrain-anat-0001\thash\n", "not of split 'test'"),
    ],
)
def test_an_edited_ledger_that_contradicts_itself_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "splits.tsv"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as raised:
        read_ledger(path)
    assert str(raised.value).startswith(str(path))


def test_the_demo_ledger_fits_the_demo_sheet(repository: Path) -> None:
    ledger = read_ledger(repository / "config" / "splits.tsv")
    sheet = read_sheet(repository / "config" / "subjects.tsv", repository)
    assert {row.scan for row in ledger.rows} == {scan.id for scan in sheet.scans}
    for family in ("anat", "dmri"):
        assert all(ledger.chunks(split, family) for split in SPLITS)
