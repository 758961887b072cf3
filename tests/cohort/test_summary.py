"""Who is in and who is out, and the checks across the cohort."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline_lib.cohort.sheet import read_sheet
from pipeline_lib.cohort.summary import check_cohort, mark_failed_chunks, summarise_split
from pipeline_lib.config.schema import CohortOptions
from pipeline_lib.errors import UserError
from pipeline_lib.files import read_json, read_table, write_table

STATUS = ("scan", "participant", "group", "age", "sex", "ok", "stage", "reason", "sha256", "voxels_sha256")


def status_row(person: str, ok: bool = True, **values: str) -> dict[str, str]:
    base = {"scan": f"sub-{person}_T1w", "participant": person, "group": "A", "age": "40", "sex": "F", "sha256": person}
    failed = {} if ok else {"stage": "preprocess", "reason": f"{person} is broken"}
    return base | {"ok": str(ok).lower()} | failed | values


def chunk(folder: Path, name: str, *rows: dict[str, str]) -> Path:
    write_table(folder / name / "status.tsv", STATUS, rows)
    return folder / name


def test_table_lists_who_is_in_and_who_is_out_with_the_reason(tmp_path: Path) -> None:
    first = chunk(tmp_path, "train-anat-0001", status_row("p1"), status_row("p2", ok=False))
    second = chunk(tmp_path, "train-anat-0002", status_row("p3"))
    summarise_split("train", [first, second], CohortOptions(max_failed_fraction=0.5), tmp_path / "train.tsv")
    rows = read_table(tmp_path / "train.tsv")
    assert [(row["participant"], row["included"], row["chunk"]) for row in rows] == [
        ("p1", "true", "train-anat-0001"),
        ("p2", "false", "train-anat-0001"),
        ("p3", "true", "train-anat-0002"),
    ]
    assert rows[1]["reason"] == "p2 is broken"


def test_too_many_failures_stop_with_names_reasons_and_the_limit(tmp_path: Path) -> None:
    folder = chunk(tmp_path, "test-anat-0001", status_row("p1"), status_row("p2", ok=False))
    with pytest.raises(UserError, match=r"1 of 2 test scans failed.*max_failed_fraction 0\.2.*p2 is broken"):
        summarise_split("test", [folder], CohortOptions(), tmp_path / "test.tsv")
    assert not (tmp_path / "test.tsv").exists()


def test_strict_stops_at_the_first_failure(tmp_path: Path) -> None:
    folder = chunk(tmp_path, "test-anat-0001", *(status_row(f"p{i}") for i in range(9)), status_row("q", ok=False))
    summarise_split("test", [folder], CohortOptions(), tmp_path / "test.tsv")
    with pytest.raises(UserError, match=r"cohort\.strict"):
        summarise_split("test", [folder], CohortOptions(strict=True), tmp_path / "test.tsv")


@pytest.fixture
def sheet(tmp_path: Path):
    path = tmp_path / "subjects.tsv"
    path.write_text("participant\tmodality\tpath\nok\tT1w\ta.nii.gz\nbad/id\tT1w\tb.nii.gz\n")
    return read_sheet(path, tmp_path)


def test_checks_find_identical_scans_under_two_ids_and_say_when_they_leak(tmp_path: Path, sheet) -> None:
    for split, people in (("train", ("p1", "p2")), ("test", ("p3",))):
        rows = [status_row(person, sha256="same" if person in ("p1", "p3") else person) for person in people]
        summarise_split(
            split, [chunk(tmp_path, f"{split}-anat-0001", *rows)], CohortOptions(), tmp_path / f"{split}.tsv"
        )
    check_cohort([tmp_path / "train.tsv", tmp_path / "test.tsv"], sheet, tmp_path / "checks.json")
    found = read_json(tmp_path / "checks.json")
    assert found["duplicates"] == [
        {"scans": ["sub-p1_T1w", "sub-p3_T1w"], "splits": ["test", "train"], "leakage": True}
    ]
    assert found["people_in_two_splits"] == []
    assert "bad/id" in found["excluded_rows"][0]["reason"]
    assert {(row["split"], row["people"], row["age_mean"]) for row in found["balance"]} == {
        ("train", 2, 40.0),
        ("test", 1, 40.0),
    }


def test_the_same_voxels_in_another_file_are_a_duplicate_listed_once(tmp_path: Path, sheet) -> None:
    voxels = {"p1": "v", "p2": "v", "p3": "w", "p4": ""}
    for split, people in (("train", ("p1", "p3")), ("test", ("p2", "p4"))):
        rows = [status_row(person, voxels_sha256=voxels[person]) for person in people]
        rows += [status_row(f"{split}q", sha256="bytes", voxels_sha256="both")]
        summarise_split(
            split, [chunk(tmp_path, f"{split}-anat-0001", *rows)], CohortOptions(), tmp_path / f"{split}.tsv"
        )
    check_cohort([tmp_path / "train.tsv", tmp_path / "test.tsv"], sheet, tmp_path / "checks.json")
    assert read_json(tmp_path / "checks.json")["duplicates"] == [
        {"scans": ["sub-p1_T1w", "sub-p2_T1w"], "splits": ["test", "train"], "leakage": True},
        {"scans": ["sub-testq_T1w", "sub-trainq_T1w"], "splits": ["test", "train"], "leakage": True},
    ]


def test_two_scans_of_one_person_are_no_duplicate_across_people(tmp_path: Path, sheet) -> None:
    rows = [status_row("p1", scan="a", sha256="same"), status_row("p1", scan="b", sha256="same")]
    summarise_split("train", [chunk(tmp_path, "train-anat-0001", *rows)], CohortOptions(), tmp_path / "train.tsv")
    check_cohort([tmp_path / "train.tsv"], sheet, tmp_path / "checks.json")
    assert read_json(tmp_path / "checks.json")["duplicates"] == []


def test_only_chunks_with_failed_scans_are_marked_to_be_done_again(tmp_path: Path) -> None:
    bad = chunk(tmp_path / "preprocess", "train-anat-0001", status_row("p1", ok=False))
    good = chunk(tmp_path / "preprocess", "train-anat-0002", status_row("p2"))
    for folder in (bad, good):
        (folder / "provenance.json").write_text("{}")
    assert mark_failed_chunks(tmp_path) == ["train-anat-0001: sub-p1_T1w will be tried again (p1 is broken)"]
    assert not (bad / "provenance.json").exists()
    assert (good / "provenance.json").exists()
