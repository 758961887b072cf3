"""Scans that somebody rated bad are left out with the reason; a wrong file of ratings says where."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from workspace import CHECKOUT

from pipeline_lib.cohort.ratings import read_ratings, without_rated_bad
from pipeline_lib.cohort.sheet import read_sheet
from pipeline_lib.errors import UserError
from pipeline_lib.files import read_json
from pipeline_lib.plan import Plan

HEADER = "scan\trating\tnote\trated\n"


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    rows = [f"p{n}\tT1w\tp{n}.nii.gz\tCN\t{50 + n}\tF\n" for n in range(12)]
    (tmp_path / "subjects.tsv").write_text("participant\tmodality\tpath\tgroup\tage\tsex\n" + "".join(rows))
    for n in range(12):
        (tmp_path / f"p{n}.nii.gz").write_bytes(b"scan")
    return tmp_path


def rated(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "ratings.tsv"
    path.write_text(header + "".join(f"{row}\n" for row in rows))
    return path


def plan(folder: Path, **more: object) -> Plan:
    named = {"subjects": str(folder / "subjects.tsv"), "splits": str(folder / "splits.tsv"), "root": str(folder)}
    return Plan({"cohort": {**named, **more}, "recipes": {"one": {"task": "generation"}}}, check_recipes=False)


def scans(plan: Plan) -> set[str]:
    return {scan.id for chunk in plan.chunks() for scan in plan.scans(chunk)}


def test_bad_scans_leave_the_plan_with_their_reason_and_others_stay(cohort: Path) -> None:
    ratings = rated(
        cohort,
        "sub-p3_T1w\tbad\tmotion\t2026-01-01",
        "sub-p4_T1w\tdoubtful\t\t",
        "sub-p5_T1w\tgood\t\t",
        "sub-p9_T1w\tBAD\t\t",
    )
    before = plan(cohort)
    before.save_ledger()
    after = plan(cohort, ratings=str(ratings))
    assert scans(before) - scans(after) == {"sub-p3_T1w", "sub-p9_T1w"}
    assert after.sheet_key() != before.sheet_key()
    reasons = {scan.id: str(problem) for scan, problem in after.sheet.excluded}
    assert reasons["sub-p3_T1w"].endswith(f"row 5: sub-p3_T1w is rated bad in {ratings}, row 2: motion")
    assert [line for line in after.notices() if "rated bad" in line] == [
        f"{cohort / 'subjects.tsv'}, 2 rows, the first row 5: sub-p3_T1w is rated bad in {ratings}, row 2: motion"
    ]
    changed = {chunk for chunk in before.chunks() if before.rows_key(chunk) != after.rows_key(chunk)}
    assert changed == {before.ledger.by_scan[name].chunk for name in ("sub-p3_T1w", "sub-p9_T1w")}


def test_a_scan_that_is_rated_better_again_comes_back_to_its_chunk(cohort: Path) -> None:
    first = plan(cohort)
    first.save_ledger()
    chunk = first.ledger.by_scan["sub-p3_T1w"].chunk
    ratings = rated(cohort, "sub-p3_T1w\tbad\t\t")
    without = plan(cohort, ratings=str(ratings))
    without.save_ledger()
    assert "sub-p3_T1w" not in scans(without)
    rated(cohort, "sub-p3_T1w\tgood\t\t")
    again = plan(cohort, ratings=str(ratings))
    assert again.ledger.by_scan["sub-p3_T1w"].chunk == chunk
    assert again.rows_key(chunk) == first.rows_key(chunk)


def test_strict_refuses_faults_and_no_wishes(cohort: Path) -> None:
    ratings = rated(cohort, "sub-p3_T1w\tbad\t\t")
    assert "sub-p3_T1w" not in scans(plan(cohort, ratings=str(ratings), strict=True))


def test_scans_that_the_sheet_does_not_have_are_named(cohort: Path) -> None:
    ratings = rated(cohort, "sub-p77_T1w\tbad\t\t", "sub-p3_T1w\tgood\t\t", "sub-p78_T1w\tgood\t\t")
    lines = plan(cohort, ratings=str(ratings)).notices()
    assert (
        f"{ratings}: rates 2 scans that are not in the sheet: sub-p77_T1w; sub-p78_T1w; correct or remove the rows"
        in lines
    )


def test_one_bad_rating_of_two_people_is_enough(cohort: Path) -> None:
    ratings = rated(
        cohort, "sub-p3_T1w\tgood\t\t", HEADER.strip(), "sub-p3_T1w\tbad\tghosts\t", "sub-p3_T1w\tdoubtful\t\t"
    )
    sheet = without_rated_bad(read_sheet(cohort / "subjects.tsv", cohort), ratings)
    assert "row 4: ghosts" in str(sheet.excluded[0][1])


@pytest.mark.parametrize(
    ("header", "row", "said"),
    [
        (HEADER, "sub-p3_T1w\tawful\t\t", r"row 2: 'awful' is not a rating; use good, doubtful, bad"),
        (HEADER, "\tbad\t\t", r"row 2: no scan is named"),
        ("scan\tverdict\n", "sub-p3_T1w\tbad", r"no column rating; give a table with the columns scan and rating"),
    ],
)
def test_a_wrong_file_says_where(cohort: Path, header: str, row: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_ratings(rated(cohort, row, header=header))


def test_no_such_file_is_one_line(cohort: Path) -> None:
    with pytest.raises(UserError, match=r"ratings\.tsv"):
        plan(cohort, ratings=str(cohort / "ratings.tsv"))


def test_the_check_of_the_cohort_lists_them(cohort: Path) -> None:
    """The script that a rule runs, as it runs it."""
    ratings = rated(cohort, "sub-p3_T1w\tbad\tmotion\t")
    (cohort / "train.tsv").write_text(
        "scan\tparticipant\tsplit\tgroup\tage\tsex\tincluded\tsha256\tvoxels_sha256\nsub-p1_T1w\tp1\ttrain\tCN\t51\tF\ttrue\ta\tb\n"
    )
    checkout = Path(__file__).parents[2]
    assert (checkout / CHECKOUT[1]).is_dir()
    subprocess.run(
        [
            sys.executable, checkout / "workflow/scripts/cohort.py", "--tables", cohort / "train.tsv",
            "--subjects", cohort / "subjects.tsv", "--root", cohort, "--ratings", ratings,
            "--options", json.dumps({"covariates": {}}), "--out", cohort / "checks.json",
        ],
        check=True, env=os.environ | {"PYTHONPATH": str(checkout)},
    )  # fmt: skip
    (row,) = read_json(cohort / "checks.json")["excluded_rows"]
    assert row["scan"] == "sub-p3_T1w"
    assert row["reason"].endswith("motion")
