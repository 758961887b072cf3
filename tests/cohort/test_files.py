"""Content decides what is read again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline_lib.cohort.chunks import ChunkName, is_chunk
from pipeline_lib.cohort.files import RowsKey, content, matching_files, read_files, stamp, write_record
from pipeline_lib.cohort.sheet import Scan
from pipeline_lib.errors import UserError
from pipeline_lib.files import read_json, sha256_file

SCANS = [
    Scan("a", "", "dwi", "a.nii.gz", bval="a.bval", bvec="a.bvec", row=2),
    Scan("b", "", "image", "b/s_*.png", lesion="none", row=3),
]


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    for name in ("a.nii.gz", "a.bval", "a.bvec", "b/s_1.png", "b/s_2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"content of {name}")
    return tmp_path


def key(cohort: Path, scans: list[Scan] = SCANS) -> str:
    """As a new process would see it."""
    return RowsKey(cohort, cohort / "ingest", cohort / "state" / "hashes.json")("c", scans)


def ingest(cohort: Path, scans: list[Scan] = SCANS) -> str:
    """What the job does: it is given the key and leaves its record."""
    given = key(cohort, scans)
    write_record(cohort / "ingest" / "c", given, scans, read_files(scans, cohort))
    assert key(cohort, scans) == given, "what was just made is not made again"
    return given


@pytest.mark.parametrize("name", ["a.nii.gz", "a.bvec", "b/s_2.png"])
def test_a_file_replaced_by_one_of_equal_size_is_noticed(cohort: Path, name: str) -> None:
    before = ingest(cohort)
    (cohort / name).write_text(f"CONTENT of {name}")
    os.utime(cohort / name, ns=(1, 1))
    changed = key(cohort)
    assert changed != before
    assert key(cohort) == changed, "until the job has run, too"
    assert ingest(cohort) == changed


def test_a_file_that_is_touched_or_copied_is_not_done_again(cohort: Path) -> None:
    before = ingest(cohort)
    for n, name in enumerate(("a.nii.gz", "a.bvec", "b/s_2.png")):
        os.utime(cohort / name, ns=(n, n))
    assert key(cohort) == before
    known = read_json(cohort / "state" / "hashes.json")
    assert known[str(cohort / "a.bvec")][1] == sha256_file(cohort / "a.bvec"), "and is not read again for it"


def test_rows_and_files_that_come_and_go_count_and_place_does_not(cohort: Path, tmp_path_factory) -> None:
    before = ingest(cohort)
    assert key(cohort, [SCANS[0]]) != before
    moved = tmp_path_factory.mktemp("moved") / "cohort"
    cohort.rename(moved)
    assert key(moved) == before
    (moved / "b" / "s_3.png").write_text("one more")
    assert key(moved) != before
    (moved / "b" / "s_3.png").unlink()
    (moved / "a.bval").unlink()
    assert key(moved) != before


def test_a_pattern_is_the_files_it_matches_and_a_pipe_is_never_read(cohort: Path) -> None:
    assert matching_files(cohort, "b/s_*.png") == [str(cohort / "b" / f"s_{n}.png") for n in (1, 2)]
    assert matching_files(cohort, "*/s_1.png") == [str(cohort / "b" / "s_1.png")]
    (cohort / "b" / "t[1]_1.png").touch()
    assert matching_files(cohort, "b/t[1]_1.png") == [str(cohort / "b" / "t[1]_1.png")], "a name with brackets"
    os.mkfifo(cohort / "pipe.nii")
    assert content(cohort, "pipe.nii") == content(cohort, "none.nii") == content(cohort, "x\0") == ""
    assert stamp(cohort, "none.nii") == stamp(cohort, "x\0")
    (cohort / "h.hdr").write_text("header")
    before = stamp(cohort, "h.hdr")
    (cohort / "h.img").write_text("voxels")
    assert stamp(cohort, "h.hdr") != before


def test_a_chunks_name_is_read_and_written() -> None:
    name = ChunkName.parse("train-anat-0012")
    assert (name.split, name.family, name.number, str(name)) == ("train", "anat", 12, "train-anat-0012")
    assert str(ChunkName("test", "dmri", 12345)) == "test-dmri-12345"
    assert not is_chunk("train-anat-1")
    with pytest.raises(UserError, match="no name of a chunk"):
        ChunkName.parse("training-anat-0001")
