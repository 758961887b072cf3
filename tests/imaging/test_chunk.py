"""A chunk of scans: nothing lost, nothing repeated, nothing half-written."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from pipeline_lib.errors import UserError
from pipeline_lib.files import read_table
from pipeline_lib.imaging.chunk import Done, Item, run_chunk


def work(given: object, out: Path) -> Done:
    kind, counter = given  # type: ignore[misc]
    with open(counter, "a") as file:
        file.write(f"{kind}\n")
    (out / f"{kind}.txt").write_text(kind)
    if kind == "user":
        raise UserError("scan.nii.gz (row 2): is empty; remove it")
    if kind == "bug":
        raise ZeroDivisionError("oh")
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    return Done({"image": f"{kind}.txt"}, {"snr": "3"}, "brain volume 3 mL" if kind == "poor" else "")


def run(folder: Path, *kinds: str, cache: Path | None = None) -> tuple[dict[str, dict[str, str]], list[str]]:
    counter = folder / "counter"
    counter.write_text("")
    items = [Item({"scan": kind, "participant": kind}, f"key-{kind}", (kind, counter)) for kind in kinds]
    run_chunk("stage", items, work, folder / "out", workers=2, cache=cache)
    rows = {row["scan"]: row for row in read_table(folder / "out" / "status.tsv")}
    return rows, counter.read_text().split()


def test_rows_keep_the_order_and_say_what_happened(tmp_path: Path) -> None:
    rows, _ = run(tmp_path, "good", "user", "bug", "poor")
    assert list(rows) == ["good", "user", "bug", "poor"]
    assert [row["ok"] for row in rows.values()] == ["true", "false", "false", "false"]
    assert rows["user"]["reason"] == "scan.nii.gz (row 2): is empty; remove it"
    assert rows["bug"]["reason"].startswith("unexpected ZeroDivisionError: oh")
    assert "Traceback" in (tmp_path / "out" / rows["bug"]["log"]).read_text()
    assert (rows["poor"]["stage"], rows["poor"]["reason"]) == ("quality", "brain volume 3 mL")
    assert sorted(path.name for path in (tmp_path / "out" / "scans").iterdir()) == ["good.txt", "poor.txt"]


@pytest.mark.filterwarnings("ignore")
def test_a_killed_process_fails_only_its_own_scan(tmp_path: Path) -> None:
    rows, _ = run(tmp_path, "good", "killed", "other")
    assert {scan: row["ok"] for scan, row in rows.items()} == {"good": "true", "killed": "false", "other": "true"}
    assert "killed, probably out of memory" in rows["killed"]["reason"]
    assert sorted(path.name for path in (tmp_path / "out" / "scans").iterdir()) == ["good.txt", "other.txt"]


def test_finished_scans_are_not_repeated_and_failed_ones_are(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    run(tmp_path, "good", "user", cache=cache)
    rows, done = run(tmp_path, "good", "user", "new", cache=cache)
    assert sorted(done) == ["new", "user"]
    assert rows["good"]["ok"] == "true"
    assert (tmp_path / "out" / "scans" / "good.txt").is_file()


def test_two_scans_never_write_one_file(tmp_path: Path) -> None:
    items = [Item({"scan": name, "participant": name}, name, ("good", tmp_path / "counter")) for name in ("a", "b")]
    with pytest.raises(FileExistsError, match=r"good.txt is written by two scans"):
        run_chunk("stage", items, work, tmp_path / "out", workers=1, cache=tmp_path / "cache")
    assert (tmp_path / "cache" / "a" / "good.txt").read_text() == "good"


def test_a_chunk_that_is_stopped_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline_lib.imaging.chunk.write_status", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "good")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".partial*"))


def full(given: object, out: Path) -> Done:
    """As a disk that is full: the library's error says nothing of it, or all."""
    if given == "library":
        out.rmdir()
        out.write_text("")  # nothing can be written into the folder any more
        raise RuntimeError("ITK could not write the file")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("kind", ["said", "library"])
def test_a_full_disk_stops_the_chunk_and_excludes_no_one(tmp_path: Path, kind: str) -> None:
    item = Item({"scan": "good", "participant": "good"}, "key", kind)
    with pytest.raises(OSError, match="state/key") as fault:
        run_chunk("stage", [item], full, tmp_path / "out", workers=1, cache=tmp_path / "state")
    assert str(fault.value.filename).startswith(str(tmp_path / "state" / "key")), "the folder that is full is named"
    assert not (tmp_path / "out").exists()


def test_a_copy_that_fails_names_where_it_was_to_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*_: object) -> None:
        raise OSError(errno.EXDEV, "another file system")

    def no_space(source: Path, *_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(source))

    monkeypatch.setattr("os.link", no_link)
    monkeypatch.setattr("shutil.copyfile", no_space)
    with pytest.raises(OSError, match="No space left") as fault:
        run(tmp_path, "good", cache=tmp_path / "state")
    assert "state" not in str(fault.value.filename)
