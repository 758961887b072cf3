"""Sheets written from what is on disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_lib.cohort.importers import Found, from_bids, from_folder, from_pictures, group_by_age
from pipeline_lib.cohort.people import read_people
from pipeline_lib.cohort.sheet import read_sheet, write_sheet
from pipeline_lib.errors import UserError

HEADER = "participant_id\tage\tsex\tgroup"


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def bids(folder: Path, table: str, *people: str) -> Found:
    touch(folder, *(f"sub-{person}/anat/sub-{person}_T1w.nii.gz" for person in people))
    (folder / "participants.tsv").write_text(table)
    return from_bids(folder)


def test_bids_dataset(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz",
        "sub-01/ses-a/dwi/sub-01_ses-a_dwi.nii.gz",
        "sub-01/ses-a/dwi/sub-01_ses-a_dwi.bval",
        "sub-01/ses-a/dwi/sub-01_ses-a_dwi.bvec",
        "sub-02/anat/sub-02_FLAIR.nii",
        "sub-02/anat/sub-02_T1w.json",
        "sub-02/func/sub-02_bold.nii.gz",
        "sub-02/anat/._sub-02_T1w.nii.gz",
        "sub-02/.git/anat/sub-02_T1w.nii.gz",
        "derivatives/x/sub-02/anat/sub-02_T1w.nii.gz",
    )
    (tmp_path / "participants.tsv").write_text(
        "participant_id\tage\tsex\tdiagnosis\nsub-01\t40\tF\tAD\nsub-02\tn/a\tmale\tCN\n"
    )
    found = from_bids(tmp_path)
    assert [(s.participant, s.session, s.modality, s.group, s.age, s.sex) for s in found.scans] == [
        ("01", "a", "T1w", "AD", 40.0, "F"),
        ("01", "a", "dwi", "AD", 40.0, "F"),
        ("02", "", "FLAIR", "CN", None, "M"),
    ]
    assert found.scans[1].bval == "sub-01/ses-a/dwi/sub-01_ses-a_dwi.bval"
    assert found.left_out == [("sub-02/func/sub-02_bold.nii.gz", "in no folder anat or dwi")]
    assert any("2 of 2 people found" in note for note in found.notes)


@pytest.mark.parametrize(
    ("used", "others"),
    [
        ("part-mag_T1w", ["part-phase_T1w"]),
        ("acq-mprage_T1w", ["acq-mprage_ce-gad_T1w"]),
        ("run-2_T1w", ["run-10_T1w", "run-03_T1w"]),
        ("T1w", ["rec-norm_T1w", "chunk-spine_T1w", "space-MNI152_T1w", "desc-preproc_T1w"]),
        ("run-1_T1w", ["acq-Localizer_T1w", "ce-gad_T1w"]),
        ("acq-0.8mm_T1w", []),
        ("ce-gad_T1w", ["part-real_T1w"]),
    ],
)
def test_one_scan_of_a_kind_is_used_by_the_rule_and_the_others_are_named(
    tmp_path: Path, used: str, others: list[str]
) -> None:
    touch(tmp_path, *(f"sub-01/anat/sub-01_{name}.nii.gz" for name in (used, *others)))
    found = from_bids(tmp_path)
    assert [scan.path for scan in found.scans] == [f"sub-01/anat/sub-01_{used}.nii.gz"]
    assert [path for path, _ in found.left_out] == sorted(f"sub-01/anat/sub-01_{name}.nii.gz" for name in others)


def test_a_contrast_agent_that_only_the_sidecar_names_counts(tmp_path: Path) -> None:
    touch(tmp_path, *(f"sub-01/anat/sub-01_run-{n}_T1w.nii.gz" for n in (1, 2)))
    (tmp_path / "run-1_T1w.json").write_text(json.dumps({"ContrastBolusIngredient": "GADOLINIUM"}))
    assert from_bids(tmp_path).scans[0].path.endswith("run-2_T1w.nii.gz")


def test_gradients_are_inherited_and_the_series_of_most_volumes_is_used(tmp_path: Path) -> None:
    touch(tmp_path, "sub-01/dwi/sub-01_dir-AP_dwi.nii.gz", "sub-01/dwi/sub-01_dir-PA_dwi.nii.gz", "dwi.bvec")
    touch(tmp_path, "sub-02/dwi/sub-02_dwi.nii.gz", "sub-01/dir-PA_dwi.bvec", "acq-other_dwi.bval")
    assert all("no .bval and .bvec" in reason for _, reason in left_out_of(tmp_path))
    (tmp_path / "dwi.bval").write_text("0 1000")
    (tmp_path / "sub-01" / "dir-PA_dwi.bval").write_text("0 1000 1000")
    scans = from_bids(tmp_path).scans
    assert [(scan.path, scan.bval, scan.bvec) for scan in scans] == [
        ("sub-01/dwi/sub-01_dir-PA_dwi.nii.gz", "sub-01/dir-PA_dwi.bval", "sub-01/dir-PA_dwi.bvec"),
        ("sub-02/dwi/sub-02_dwi.nii.gz", "dwi.bval", "dwi.bvec"),
    ]


def left_out_of(folder: Path) -> list[tuple[str, str]]:
    touch(folder, "sub-03/anat/sub-03_T1w.nii.gz")
    left_out = from_bids(folder).left_out
    (folder / "sub-03" / "anat" / "sub-03_T1w.nii.gz").unlink()
    assert len(left_out) == 3
    return left_out


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("sub-01/anat/sub-02_T1w.nii.gz", "another person than its folder"),
        ("sub-01/ses-1/anat/sub-01_ses-2_T1w.nii.gz", "another session than its folder"),
        ("sub-01/anat/sub-01_t1w.nii.gz", "rename t1w to T1w"),
        ("sub-01/anat/sub-01_label-lesion_mask.nii.gz", "no T1w, T2w"),
        ("sub-01/sub-01_T1w.nii.gz", "in no folder anat or dwi"),
        ("sub-01/anat/sub-01_T1w.NII.GZ", "no .nii.gz or .nii file"),
        ("sub-01/anat/sub-01_T1w.mgz", "no .nii.gz or .nii file"),
    ],
)
def test_what_bids_would_not_have_is_left_out_with_its_reason(tmp_path: Path, name: str, reason: str) -> None:
    touch(tmp_path, "sub-09/anat/sub-09_T1w.nii.gz", name)
    found = from_bids(tmp_path)
    assert [scan.participant for scan in found.scans] == ["09"]
    assert found.left_out[0][0] == name
    assert reason in found.left_out[0][1]


@pytest.mark.parametrize(
    ("ids", "people"),
    [
        (("1.0", "2.0", "10.0", "20.0"), ("1", "2", "10", "20")),
        (("1", "2", "10", "20"), ("001", "002", "010", "020")),
        (("subj-01", "Sub_02", "SUB-03", "subject_4"), ("01", "02", "03", "04")),
        (("oas1-0001", "OAS1_2", "1.5", "A"), ("OAS10001", "OAS12", "x", "a")),
    ],
)
def test_ids_find_their_people_however_they_are_written(tmp_path: Path, ids: tuple, people: tuple) -> None:
    rows = "".join(f"{name}\t{30 + n}\tF\tCN\n" for n, name in enumerate(ids))
    found = bids(tmp_path, f"{HEADER}\n{rows}", *people)
    ages = {scan.participant: scan.age for scan in found.scans}
    expected = {person: 30.0 + n for n, person in enumerate(people)}
    assert ages == {**expected, "x": None} if "x" in people else ages == expected


def test_a_number_with_a_fraction_is_nobody_else(tmp_path: Path) -> None:
    found = bids(tmp_path, f"{HEADER}\n1.5\t30\tF\tCN\n", "15")
    assert found.scans[0].age is None
    assert any("none of 1 people found; ids look like 1.5 there, 15 here" in note for note in found.notes)


@pytest.mark.parametrize(
    ("ids", "people"),
    [(("P-1-23", "P-12-3"), ("P123",)), (("1",), ("01", "001")), (("01.0", "001"), ("1",))],
)
def test_an_id_that_could_be_of_two_people_stops_with_the_names(tmp_path: Path, ids: tuple, people: tuple) -> None:
    rows = "".join(f"{name}\t30\tF\tCN\n" for name in ids)
    with pytest.raises(UserError, match="could be") as raised:
        bids(tmp_path, f"{HEADER}\n{rows}", *people)
    assert all(name in str(raised.value) for name in people)


@pytest.mark.parametrize(
    ("content", "said"),
    [("participant_id\tage\n", "no row names a person"), (bytes(range(256)).decode("latin-1"), "is no table of text")],
)
def test_a_table_without_people_is_said(tmp_path: Path, content: str, said: str) -> None:
    touch(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz")
    (tmp_path / "participants.tsv").write_text(content, encoding="latin-1")
    try:
        notes = from_bids(tmp_path).notes
    except UserError as error:
        notes = [str(error)]
    assert [said in note for note in notes] == [True]


def test_folders_of_people_in_capitals_are_named(tmp_path: Path) -> None:
    for name in ("sub-01/anat/sub-01_T1w.nii.gz", "SUB-02/anat/SUB-02_T1w.nii.gz"):
        touch(tmp_path, name)
    found = from_bids(tmp_path)
    assert [scan.participant for scan in found.scans] == ["01"]
    assert found.left_out == [
        ("SUB-02/anat/SUB-02_T1w.nii.gz", "in a folder that does not start with sub- in small letters; rename it")
    ]


@pytest.mark.parametrize("pair", [("P-1-23", "P-12-3"), ("Mül_ler", "Müll_er"), ("p_1", "p1")])
def test_two_ids_that_would_share_a_label_stop_with_both_names(tmp_path: Path, pair: tuple[str, str]) -> None:
    touch(tmp_path, *(f"{name}_T1.nii.gz" for name in pair))
    with pytest.raises(UserError, match="would both be") as raised:
        from_folder(tmp_path, "{participant}_T1.nii.gz")
    assert all(name in str(raised.value) for name in pair)


def test_letters_with_accents_keep_people_apart(tmp_path: Path) -> None:
    touch(tmp_path, "Müller_T1.nii.gz", "Möller_T1.nii.gz")
    found = from_folder(tmp_path, "{participant}_T1.nii.gz")
    assert {scan.participant for scan in found.scans} == {"Muller", "Moller"}


def test_sessions_have_their_own_group_and_a_clash_stops(tmp_path: Path) -> None:
    touch(tmp_path, *(f"sub-01/ses-{n}/anat/sub-01_ses-{n}_T1w.nii.gz" for n in ("01", "02", "03")))
    table = tmp_path / "participants.tsv"
    table.write_text("Participant_ID\tses\tAge (years)\tDX (baseline)\nsub-01\t1\t70\tCN\nsub-01\t2\t72\tAD\n")
    scans = from_bids(tmp_path).scans
    assert [(scan.session, scan.group, scan.age) for scan in scans] == [
        ("01", "CN", 70.0), ("02", "AD", 72.0), ("03", "", None),
    ]  # fmt: skip
    assert any("1 scans are of a session that no row names" in note for note in from_bids(tmp_path).notes)
    table.write_text("participant_id\tgroup\tsex\nsub-01\tCN\tF\nsub-01\tAD\tF\n")
    with pytest.raises(UserError, match=r"rows 2 and 3 are both of sub-01 and differ in group \(CN, AD\)"):
        from_bids(tmp_path)
    table.write_text("participant_id\tgroup\tsex\nsub-01\tCN\tF\nsub-01\tCN\t\n")
    (tmp_path / "sub-01" / "sub-01_sessions.tsv").write_text("session_id\tdiagnosis\nses-02\tMCI\n")
    assert [(scan.group, scan.sex) for scan in from_bids(tmp_path).scans] == [("CN", "F"), ("MCI", "F"), ("CN", "F")]


def test_what_is_not_understood_is_said_once_and_columns_are_named(tmp_path: Path) -> None:
    table = "participant_id\t AGE \tSex \tDiagnosis\tmmse\n" + "".join(
        f"sub-0{n}\t{age}\t{sex}\t{group}\t{n}\n"
        for n, (age, sex, group) in enumerate([("89+", "1", "NA"), (">89", "2", " CN "), ("34,5", "F ", "CN")])
    )
    found = bids(tmp_path, table, "00", "01", "02")
    said = "\n".join(found.notes)
    assert [(scan.age, scan.sex, scan.group) for scan in found.scans] == [
        (None, "", ""), (None, "", "CN"), (34.5, "F", "CN"),
    ]  # fmt: skip
    assert "2 rows, the first row 2, column age" in said
    assert "2 rows, the first row 2, column sex" in said
    assert "column group: NA is taken as missing" in said
    assert "group from Diagnosis" in said
    assert "columns not used: mmse" in said
    with pytest.raises(UserError, match="is a column of the sheet"):
        from_bids(tmp_path, covariates=["Sex"])
    kept = from_bids(tmp_path, covariates=["mmse"])
    assert [dict(scan.covariates) for scan in kept.scans] == [{"mmse": "0"}, {"mmse": "1"}, {"mmse": "2"}]
    write_sheet(tmp_path / "s.tsv", kept.scans)
    assert read_sheet(tmp_path / "s.tsv", tmp_path, {"mmse": "number"}).scans[2].covariates == (("mmse", 2.0),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04", "workbook"),
        (b"", "no column names the participant"),
        (b"age\tsex\n1\tF\n", "no column names the participant"),
        (b'participant_id\t"age\n', "stray quotation mark"),
    ],
)
def test_a_table_of_people_that_cannot_be_read_says_why(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "people.tsv").write_bytes(content)
    with pytest.raises(UserError, match=message) as raised:
        read_people(tmp_path / "people.tsv")
    assert str(raised.value).count("\n") == 0


def test_folder_with_a_pattern(tmp_path: Path) -> None:
    touch(tmp_path, "t1/IXI-01_T1.nii.gz", "t1/IXI-02_T1.nii.gz", "mask/IXI-01_mask.nii.gz", "t1/._IXI-01_T1.nii.gz")
    (tmp_path / "people.csv").write_text("id,age,sex\nIXI-01,30.5,M\n")
    found = from_folder(tmp_path, "t1/{participant}_T1.nii.gz", read_people(tmp_path / "people.csv"))
    assert [(s.participant, s.path, s.age) for s in found.scans] == [
        ("IXI01", "t1/IXI-01_T1.nii.gz", 30.5),
        ("IXI02", "t1/IXI-02_T1.nii.gz", None),
    ]
    assert found.left_out == [("mask/IXI-01_mask.nii.gz", "does not fit the pattern")]
    assert [s.group for s in group_by_age(found.scans, ["young:0-45", "old:45-120"])] == ["young", ""]
    lesions = from_folder(tmp_path, "t1/{participant}_T1.nii.gz", lesion_pattern="mask/{participant}_mask.nii.gz")
    assert [scan.lesion for scan in lesions.scans] == ["mask/IXI-01_mask.nii.gz", ""]


def test_a_participant_named_twice_is_the_same_in_both_places(tmp_path: Path) -> None:
    touch(tmp_path, "A1/A1.nii.gz", "A2/A1.nii.gz")
    found = from_folder(tmp_path, "{participant}/{participant}.nii.gz")
    assert [scan.path for scan in found.scans] == ["A1/A1.nii.gz"]


def test_pictures_in_class_folders(tmp_path: Path) -> None:
    touch(tmp_path, "AD/p1_1.png", "AD/p1_2.png", "CN/p2_1.png", "CN/p1_9.png", "CN/single.jpg", "AD/._p1_1.png")
    scans = {(s.participant, s.group): s for s in from_pictures(tmp_path).scans}
    assert scans["p1", "AD"].path == "AD/p1_*.png"
    assert scans["p1", "AD"].session == "AD", "one person in two classes has a session for each"
    assert scans["p2", "CN"].session == ""
    assert scans["single", "CN"].path == "CN/single.jpg"
    assert len(scans) == 4


def test_train_and_test_folders_become_the_split_column(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "train/glioma/p1_1.png",
        "train/glioma/p1_2.jpg",
        "Testing/none/p2_1.png",
        "Testing/none/p3_1.png",
        "train/none/p3_1.png",
    )
    scans = from_pictures(tmp_path).scans
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
    touch(tmp_path, "train/cat/0001.jpg", "train/dog/0001.jpg", "test/cat/0001.jpg", "train/1/11.png", "train/11/1.png")
    found = from_pictures(tmp_path)
    scans = {scan.path: (scan.participant, scan.group, scan.split) for scan in found.scans}
    assert scans["train/n01/images/n01_0.JPEG"] == ("trainn01n010", "n01", "train")
    assert scans["test/cat/0001.jpg"] == ("testcat0001", "cat", "test")
    assert scans["train/1/11.png"][0] != scans["train/11/1.png"][0]
    assert len({scan.participant for scan in found.scans}) == len(found.scans) == 11
    write_sheet(tmp_path / "s.tsv", [replace(scan, group="") for scan in found.scans])
    assert not read_sheet(tmp_path / "s.tsv", tmp_path).problems
    assert any("11 pictures are people of their own" in note for note in found.notes)


def test_a_person_in_two_folders_of_a_class_has_a_session_for_each(tmp_path: Path) -> None:
    touch(tmp_path, "CN/a/p_1.png", "CN/b/p_1.png", "AD/a/p_1.png", "AD/a/q_1.tif")
    found = from_pictures(tmp_path)
    assert len({scan.id for scan in found.scans}) == 3
    assert found.left_out == [("AD/a/q_1.tif", "no PNG or JPEG picture")]


def test_two_files_that_would_be_one_scan_stop_with_both(tmp_path: Path) -> None:
    touch(tmp_path, "sub-01_T1.nii.gz", "01_T1.nii.gz", "02_T1.nii.gz")
    with pytest.raises(UserError, match="01_T1.nii.gz and sub-01_T1.nii.gz would both be sub-01_T1w"):
        from_folder(tmp_path, "{participant}_T1.nii.gz")


def test_pictures_can_be_each_its_own_persons_or_its_folders(tmp_path: Path) -> None:
    touch(tmp_path, "cat/Tr-gl_1.png", "cat/Tr-gl_2.png", "dog/anna/1.png", "dog/anna/2.png")
    assert len(from_pictures(tmp_path, whose="picture").scans) == 4
    by_folder = from_pictures(tmp_path / "dog", whose="folder").scans
    assert [(scan.participant, scan.path) for scan in by_folder] == [("anna", "anna/*.png")]


def test_masks_of_pictures_are_found_by_pattern(tmp_path: Path) -> None:
    touch(tmp_path, *(f"AD/p{p}_{n}.png" for p in (1, 2, 3) for n in (1, 2)))
    touch(tmp_path, *(f"masks/AD/p{p}_{n}.png" for p, n in ((1, 1), (1, 2), (2, 1))))
    found = from_pictures(tmp_path, lesion_pattern="masks/{folder}/{name}.png")
    assert [(scan.path, scan.lesion) for scan in found.scans] == [
        ("AD/p1_*.png", "masks/AD/p1_*.png"), ("AD/p2_*.png", ""), ("AD/p3_*.png", ""),
    ]  # fmt: skip
    assert any("some of their slices only and count as unknown: p2" in note for note in found.notes)
    touch(tmp_path, "CN/q_1.png", "CN/q_1_mask.png")
    with pytest.raises(UserError, match="takes masks for pictures"):
        from_pictures(tmp_path, lesion_pattern="{folder}/{name}_mask.png")


def test_a_pattern_takes_the_slices_of_one_person_only(tmp_path: Path) -> None:
    touch(tmp_path, "a[1]_1.png", "a[1]_2.png", "b_1.png")
    for scan in from_pictures(tmp_path).scans:
        assert {path.name.rsplit("_", 1)[0] for path in tmp_path.glob(scan.path)} <= {"a[1]", "b"}
        assert any(tmp_path.glob(scan.path))
    touch(tmp_path, "b_2_1.png")
    with pytest.raises(UserError, match="are of b and of b_2; rename one"):
        from_pictures(tmp_path)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda folder: from_bids(folder), "is it a BIDS dataset"),
        (lambda folder: from_folder(folder, "x_{participant}.nii"), "no file fits"),
        (lambda folder: from_folder(folder, "x.nii"), "names no {participant}"),
        (lambda folder: from_pictures(folder), "no PNG or JPEG"),
        (lambda folder: group_by_age([], ["young"]), "not name:from-to"),
        (lambda folder: group_by_age([], ["young:0-1.2.3"]), "not name:from-to"),
        (lambda folder: group_by_age([], ["young:50-40"]), "from the lower to the higher"),
        (lambda folder: read_people(folder), "is no file"),
        (lambda folder: read_people(folder / "none.tsv"), "no such file"),
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


def command(repository: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "pipeline_lib.cohort", *map(str, words)]
    return subprocess.run(line, cwd=repository, capture_output=True, text=True)


def test_command_line_refuses_to_replace_a_sheet(tmp_path: Path, repository: Path) -> None:
    touch(tmp_path, "p1_1.png", "p2_1.png")
    words = ("from-pictures", tmp_path, "--sheet", tmp_path / "s.tsv")
    first = command(repository, *words)
    assert first.returncode == 0
    assert "2 scans of 2 people" in first.stdout
    second = command(repository, *words)
    assert second.returncode == 1
    assert second.stderr.count("\n") == 1
    assert "--force" in second.stderr


def test_a_terminal_that_knows_ascii_only_shows_all_there_is(tmp_path: Path, repository: Path) -> None:
    folder = tmp_path / "Müller 🧠"
    touch(folder, "sub-01/anat/sub-01_T1w.nii.gz")
    (folder / "participants.tsv").write_text("participant_id\tGröße\n01\tgroß\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pipeline_lib.cohort", "from-bids", str(folder), "--sheet", str(tmp_path / "s.tsv")],
        cwd=repository, capture_output=True, text=True, env={"PYTHONIOENCODING": "ascii", "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "columns not used: Gr\\xf6\\xdfe" in done.stdout


def test_command_line_lists_what_it_leaves_out(tmp_path: Path, repository: Path) -> None:
    touch(tmp_path / "d", "sub-01/anat/sub-01_run-1_T1w.nii.gz", "sub-01/anat/sub-01_run-2_T1w.nii.gz")
    (tmp_path / "d" / "sub-01" / "anat" / os.fsdecode(b"sub-01_acq-\xff_T1w.nii.gz")).touch()
    done = command(repository, "from-bids", tmp_path / "d", "--sheet", tmp_path / "s.tsv")
    assert done.returncode == 0, done.stderr
    listed = (tmp_path / "s.left_out.tsv").read_text()
    assert "sub-01_run-2_T1w.nii.gz\tsub-01_run-1_T1w.nii.gz is used" in listed
    assert "a name that is not readable text" in listed


@pytest.mark.parametrize(
    "words",
    [
        ("synthetic", "--people", "0"),
        ("synthetic", "--workers", "none"),
        ("from-folder", ".", "--pattern", "x"),
        ("from-bids", "/nowhere"),
        ("from-pictures", ".", "--whose", "cat"),
        ("from-bids",),
    ],
)
def test_odd_arguments_are_answered_in_one_line(tmp_path: Path, repository: Path, words: tuple[str, ...]) -> None:
    done = command(repository, *words, "--sheet", tmp_path / "s.tsv")
    assert done.returncode in (1, 2)
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "s.tsv").exists()


def test_dicom_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "IM1.dcm").write_bytes(b"x")
    for run in (
        lambda: from_bids(tmp_path),
        lambda: from_pictures(tmp_path),
        lambda: from_folder(tmp_path, "study/{participant}.dcm"),
        lambda: from_folder(tmp_path, "{participant}.nii.gz"),
    ):
        with pytest.raises(UserError, match="dcm2niix"):
            run()


cells = st.sampled_from(
    (
        "",
        "sub-01",
        "01",
        "1.0",
        "sub-",
        "participant_id",
        "id",
        "age",
        "sex",
        "group",
        "ses",
        "NA",
        "89+",
        "ü",
        '"',
        "\0",
        ",",
        "9" * 40,
    )
)
tables = st.lists(st.lists(cells, max_size=5), max_size=5).map(lambda rows: "\n".join("\t".join(row) for row in rows))
parts = st.sampled_from(("sub-01", "sub-1", "sub-", "sub-ü", "sub-a.b", "ses-1", "ses-", "anat", "dwi", ".x", "func"))
endings = st.sampled_from(
    ("_T1w.nii.gz", "_dwi.nii", "_run-x_T1w.nii.gz", "_ce_T1w.nii", ".nii.gz", "_-_T1w.nii.gz", "dwi.bval")
)
trees = st.lists(st.tuples(st.lists(parts, max_size=3), parts, endings), max_size=6)


@given(table=tables, tree=trees)
def test_no_dataset_makes_an_import_fall(tmp_path_factory: pytest.TempPathFactory, table: str, tree: list) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    for folders, name, ending in tree:
        touch(folder, "/".join([*folders, name + ending]))
    (folder / "participants.tsv").write_text(table)
    for find in (from_bids, lambda place: from_folder(place, "{participant}_T1w.nii.gz")):
        try:
            found = find(folder)
        except UserError:
            continue
        assert found.scans
        assert all((folder / scan.path).is_file() for scan in found.scans)
        assert len({scan.id for scan in found.scans}) == len(found.scans)
        used = {scan.path for scan in found.scans}
        assert used.isdisjoint(path for path, _ in found.left_out)
