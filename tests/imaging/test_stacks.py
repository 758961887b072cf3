"""A chunk of pictures: one file for all, one row for each, whatever happens to one of them."""

from __future__ import annotations

import errno
import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline_lib.cohort.sheet import Scan
from pipeline_lib.errors import UserError
from pipeline_lib.files import read_table
from pipeline_lib.imaging import stacks as module
from pipeline_lib.imaging.chunk import Item
from pipeline_lib.imaging.ingest import ingest_chunk
from pipeline_lib.imaging.picture_chunk import preprocess_pictures
from pipeline_lib.imaging.stacks import FILE, Pictures, Place, Stacks, holds_pictures, run_pictures


def stack(number: int) -> np.ndarray:
    """Another shape and other values for each number."""
    random = np.random.default_rng(number)
    return random.integers(0, 255, (1 + number % 3, 4 + number % 2, 5, 1 + 2 * (number % 2)), dtype=np.uint8)


def read(given: Any) -> Pictures:
    if given == "user":
        raise UserError("p.png (row 2): no image; export it again")
    if given in ("bug", "bug too"):
        raise ZeroDivisionError("oh")
    if given == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if given == "disk":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "pictures")
    return Pictures({"image": stack(given), "mask": stack(given)[..., :1] // 200}, {"slices": str(len(stack(given)))})


def run(folder: Path, *given: Any, workers: int = 1) -> list[dict[str, str]]:
    items = [Item({"scan": f"p{n}"}, "", each) for n, each in enumerate(given)]
    run_pictures("ingest", items, read, folder / "out", workers=workers)
    return read_table(folder / "out" / "status.tsv")


def check(folder: Path, rows: list[dict[str, str]], given: list[Any]) -> None:
    """Every sound row gives back what was read for it."""
    stacks = Stacks(folder / "out")
    for row, number in zip(rows, given, strict=True):
        if isinstance(number, int):
            assert row["ok"] == "true", row["reason"]
            outputs = json.loads(row["outputs"])
            np.testing.assert_array_equal(stacks[outputs["image"]], stack(number))
            np.testing.assert_array_equal(stacks[outputs["mask"]], stack(number)[..., :1] // 200)
            assert row["slices"] == str(len(stack(number)))


@pytest.mark.parametrize("workers", [1, 2])
def test_stacks_of_any_shape_come_back_in_order(tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOGETHER", 3)
    given = list(range(11))
    rows = run(tmp_path, *given, workers=workers)
    check(tmp_path, rows, given)
    assert sorted(path.name for path in (tmp_path / "out").rglob("*") if path.is_file()) == [
        "pictures.npy",
        "status.tsv",
    ]
    assert np.load(tmp_path / "out" / FILE).ndim == 1


def test_a_fault_is_a_row_and_the_rest_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOGETHER", 4)
    given = [0, "user", 1, "bug", 2, "bug", 3]
    rows = run(tmp_path, *given)
    check(tmp_path, rows, given)
    assert (rows[1]["ok"], rows[1]["stage"], rows[1]["outputs"]) == ("false", "ingest", "{}")
    assert rows[1]["reason"] == "p.png (row 2): no image; export it again"
    assert rows[3]["reason"].startswith("unexpected ZeroDivisionError: oh")
    text = (tmp_path / "out" / rows[3]["log"]).read_text()
    assert text.count("Traceback") == 1, "each traceback once"
    assert "p3 p5" in text


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_process_fails_only_its_own_row(tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOGETHER", 2)
    given = [0, 1, 2, "killed", 3, 4, "killed", 5, 6]
    rows = run(tmp_path, *given, workers=workers)
    check(tmp_path, rows, given)
    assert [row["scan"] for row in rows if row["ok"] == "false"] == ["p3", "p6"]
    assert "killed, probably out of memory" in rows[3]["reason"]


def test_a_full_disk_stops_the_chunk_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path, 0, "disk", 1)
    assert not list(tmp_path.iterdir())


def test_a_place_says_where_and_a_damaged_one_is_refused() -> None:
    place = Place(4096, (1, 64, 48, 3))
    assert str(place) == "scans/pictures.npy@4096:1x64x48x3"
    assert Place.parse(str(place)) == place
    with pytest.raises(UserError, match="ingest the chunk again"):
        Place.parse("scans/p1_slices.npy")


def test_pictures_go_from_folder_to_a_chunk_to_look_at(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    scans = []
    for n in range(30):
        Image.fromarray(random.integers(0, 255, (8, 6, 3), dtype=np.uint8)).save(tmp_path / f"{n}.png")
        scans.append(Scan(f"p{n}", "", "image", f"{n}.png", row=n + 2))
    (tmp_path / "7.png").write_bytes(b"no picture")
    (tmp_path / "9.png").write_bytes((tmp_path / "9.png").read_bytes()[:60])
    ingest_chunk(scans, tmp_path, tmp_path / "ingest", workers=1)
    assert holds_pictures(tmp_path / "ingest")
    preprocess_pictures(tmp_path / "ingest", tmp_path / "preprocess")
    rows = read_table(tmp_path / "preprocess" / "status.tsv")
    assert [row["scan"] for row in rows if row["ok"] == "false"] == ["sub-p7_image", "sub-p9_image"]
    assert "cannot be read as an image" in rows[7]["reason"]
    last = Stacks(tmp_path / "preprocess")[json.loads(rows[29]["outputs"])["image"]]
    np.testing.assert_array_equal(last[0], np.asarray(Image.open(tmp_path / "29.png")))
    with Image.open(tmp_path / "preprocess" / "figures" / "pictures.png") as sheet:
        assert sheet.size == (12 * 80, 3 * 80)
    assert os.path.samefile(tmp_path / "ingest" / FILE, tmp_path / "preprocess" / FILE), "nothing is copied"
