"""Sheets written from what is on disk."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline_lib.cohort.importers import from_bids, from_folder, from_pictures, group_by_age, read_people
from pipeline_lib.cohort.sheet import read_sheet, write_sheet
from pipeline_lib.errors import UserError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_bids_dataset(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz",
        "sub-01/ses-a/dwi/sub-01_ses-a_dwi.nii.gz",
        "sub-02/anat/sub-02_FLAIR.nii",
        "sub-02/anat/sub-02_T1w.json",
        "sub-02/func/sub-02_bold.nii.gz",
    )
    (tmp_path / "participants.tsv").write_text(
        "participant_id\tage\tsex\tdiagnosis\nsub-01\t40\tF\tAD\nsub-02\tn/a\tmale\tCN\n"
    )
    scans = from_bids(tmp_path)
    assert [(s.participant, s.session, s.modality, s.group, s.age, s.sex) for s in scans] == [
        ("01", "a", "T1w", "AD", 40.0, "F"),
        ("01", "a", "dwi", "AD", 40.0, "F"),
        ("02", "", "FLAIR", "CN", None, "M"),
    ]
    assert scans[1].bval == "sub-01/ses-a/dwi/sub-01_ses-a_dwi.bval"


def test_folder_with_a_pattern(tmp_path: Path) -> None:
    touch(tmp_path, "t1/IXI-01_T1.nii.gz", "t1/IXI-02_T1.nii.gz", "mask/IXI-01_mask.nii.gz")
    (tmp_path / "people.csv").write_text("id,age,sex\nIXI-01,30.5,M\n")
    scans = from_folder(tmp_path, "t1/{participant}_T1.nii.gz", read_people(tmp_path / "people.csv"))
    assert [(s.participant, s.path, s.age) for s in scans] == [
        ("IXI01", "t1/IXI-01_T1.nii.gz", 30.5),
        ("IXI02", "t1/IXI-02_T1.nii.gz", None),
    ]
    assert [s.group for s in group_by_age(scans, ["young:0-45", "old:45-120"])] == ["young", ""]


def test_pictures_in_class_folders(tmp_path: Path) -> None:
    touch(tmp_path, "AD/p1_1.png", "AD/p1_2.png", "CN/p2_1.png", "CN/p1_9.png", "CN/single.jpg")
    scans = {(s.participant, s.group): s for s in from_pictures(tmp_path)}
    assert scans["p1", "AD"].path == "AD/p1_*.png"
    assert scans["p1", "AD"].session == "AD", "one person in two classes has a session for each"
    assert scans["p2", "CN"].session == ""
    assert scans["single", "CN"].path == "CN/single.jpg"


def test_train_and_test_folders_become_the_split_column(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "train/glioma/p1_1.png",
        "train/glioma/p1_2.jpg",
        "Testing/none/p2_1.png",
        "Testing/none/p3_1.png",
        "train/none/p3_1.png",
    )
    scans = from_pictures(tmp_path)
    assert [(s.participant, s.split, s.group, s.path) for s in scans[:2]] == [
        ("p2", "test", "none", "Testing/none/p2_*.png"),
        ("p3", "test", "none", "Testing/none/p3_*.png"),
    ]
    assert {s.path for s in scans if s.participant == "p1"} == {"train/glioma/p1_*.*"}
    write_sheet(tmp_path / "s.tsv", [replace(scan, group="") for scan in scans])
    sheet = read_sheet(tmp_path / "s.tsv", tmp_path)
    assert {scan.participant for scan, _ in sheet.excluded} == {"p3"}, "a person in both folders is in neither split"
    assert "p3 is given test and train" in str(sheet.problems[0])


def test_pictures_numbered_within_their_class_are_people_of_their_own(tmp_path: Path) -> None:
    touch(tmp_path, *(f"train/n0{c}/images/n0{c}_{i}.JPEG" for c in (1, 2) for i in range(3)))
    scans = from_pictures(tmp_path)
    assert [(s.participant, s.group, s.path) for s in scans[:2]] == [
        ("n010", "n01", "train/n01/images/n01_0.JPEG"),
        ("n011", "n01", "train/n01/images/n01_1.JPEG"),
    ]
    assert len(scans) == 6


def test_a_pattern_takes_the_slices_of_one_person_only(tmp_path: Path) -> None:
    touch(tmp_path, "a[1]_1.png", "a[1]_2.png", "b_1.png")
    for scan in from_pictures(tmp_path):
        assert {path.name.rsplit("_", 1)[0] for path in tmp_path.glob(scan.path)} <= {"a[1]", "b"}
        assert any(tmp_path.glob(scan.path))
    touch(tmp_path, "b_2_1.png")
    with pytest.raises(UserError, match="are of b and of b_2; rename one"):
        from_pictures(tmp_path)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda folder: from_bids(folder), "is it a BIDS dataset"),
        (lambda folder: from_folder(folder, "x_{participant}.nii", {}), "no file fits"),
        (lambda folder: from_folder(folder, "x.nii", {}), "names no {participant}"),
        (lambda folder: from_pictures(folder), "no PNG or JPEG"),
        (lambda folder: group_by_age([], ["young"]), "not name:from-to"),
    ],
)
def test_nothing_found_says_so(tmp_path: Path, call, message: str) -> None:
    with pytest.raises(UserError, match=message):
        call(tmp_path)


def test_committed_ixi_sheet_fits_the_real_folder(shared_data: Path, repository: Path) -> None:
    folder = shared_data / "ixi_t1_2mm_rawhead"
    sheet = read_sheet(repository / "config" / "ixi" / "subjects.tsv", folder)
    assert len(sheet.scans) == 99
    assert not sheet.problems
    assert all((folder / scan.path).is_file() for scan in sheet.scans)


def test_command_line_refuses_to_replace_a_sheet(tmp_path: Path, repository: Path) -> None:
    touch(tmp_path, "p1_1.png", "p2_1.png")
    command = [
        sys.executable,
        "-m",
        "pipeline_lib.cohort",
        "from-pictures",
        str(tmp_path),
        "--sheet",
        str(tmp_path / "s.tsv"),
    ]
    first = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert first.returncode == 0
    assert "2 scans of 2 people" in first.stdout
    second = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert second.returncode == 1
    assert second.stderr.count("\n") == 1
    assert "--force" in second.stderr


def test_dicom_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "IM1.dcm").write_bytes(b"x")
    for run in (
        lambda: from_bids(tmp_path),
        lambda: from_pictures(tmp_path),
        lambda: from_folder(tmp_path, "study/{participant}.dcm", {}),
        lambda: from_folder(tmp_path, "{participant}.nii.gz", {}),
    ):
        with pytest.raises(UserError, match="dcm2niix"):
            run()
