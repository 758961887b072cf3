"""After a withdrawal nothing of the person is found in a real run's results and state: no name, no hash, no voxel."""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from workspace import BROKEN, Workspace, environment

from pipeline_lib.cohort.ledger import read_ledger
from pipeline_lib.files import pseudonym, read_table, sha256_text

pytestmark = pytest.mark.dag

WINDOW = 64
"""Bytes by which voxels are recognised."""


def files(folder: Path) -> Iterator[Path]:
    for top in ("results", "state"):
        yield from (path for path in sorted((folder / top).rglob("*")) if path.is_file())


def content(path: Path) -> bytes:
    found = path.read_bytes()
    return gzip.decompress(found) if path.name.endswith(".gz") else found


def pictures(path: Path) -> set[str]:
    """Hashes of the pixels of a picture, or of the pictures in a page."""
    found = [path.read_bytes()] if path.suffix == ".png" else []
    if path.suffix == ".html":
        found = [base64.b64decode(each) for each in re.findall(rb"data:image/png;base64,([\w+/=]+)", path.read_bytes())]
    shown = [Image.open(io.BytesIO(each)).convert("RGB") for each in found]
    return {sha256_text(f"{each.size} {each.tobytes().hex()}") for each in shown}


def windows(array: np.ndarray) -> Iterator[bytes]:
    """Some bytes from the middle of an array, where they are many different ones."""
    plain = np.ascontiguousarray(array).tobytes()
    for start in range(len(plain) // 2, len(plain) - WINDOW, max(WINDOW, len(plain) // 4)):
        if len(set(window := plain[start : start + WINDOW])) > WINDOW // 3:
            yield window


def theirs(folder: Path, person: str) -> tuple[set[bytes], set[str]]:
    """The words and bytes by which a person is known, and the pictures made of the person."""
    known = {person.encode(), pseudonym("person", person).encode()}
    shown: set[str] = set()
    for path in files(folder):
        if path.name == "status.tsv":
            for row in read_table(path):
                hashes = [row[key] for key in ("sha256", "voxels_sha256") if row.get(key)]
                if row["participant"] == person:
                    known |= {word.encode() for each in hashes for word in (each, pseudonym("scan", each))}
        if path.name == "index.tsv":
            places = [n for n, row in enumerate(read_table(path)) if row.get("participant") == person]
            arrays = [np.load(each, mmap_mode="r") for each in path.parent.glob("*.npy")] if places else []
            known |= {each for array in arrays for n in places if n < len(array) for each in windows(array[n])}
        if person in path.name:
            known |= set(windows(np.asarray(nib.load(path).dataobj).T)) if path.name.endswith(".nii.gz") else set()
            shown |= pictures(path)
    return known, shown


def left(folder: Path, known: set[bytes], shown: set[str]) -> list[str]:
    return [
        str(path.relative_to(folder))
        for path in files(folder)
        if any(word in str(path).encode() or word in content(path) for word in known) or shown & pictures(path)
    ]


@pytest.mark.parametrize("split", ["train", "test"])
def test_nothing_of_a_person_is_left(finished_workspace: Workspace, tmp_path: Path, split: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished_workspace.folder, folder, symlinks=True)
    placed = read_ledger(folder / "config" / "splits.tsv").rows
    person = next(row.participant for row in placed if row.split == split and row.participant != BROKEN)
    known, shown = theirs(folder, person)
    assert len(known) > 20
    assert shown
    assert len(left(folder, known, shown)) > 20, "the search finds what there is"
    done = subprocess.run(
        [sys.executable, "-m", "pipeline_lib.cohort", "withdraw", person, "--configfile", "config/tiny.yaml", "--yes"],
        cwd=folder, capture_output=True, text=True, env=environment() | {"PYTHONPATH": str(folder)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert ("a model that learned from them" in done.stdout) == (split == "train")
    assert left(folder, known, shown) == []
    kept = [row.participant for row in read_ledger(folder / "config" / "splits.tsv").rows]
    assert person not in kept
    others = [path for path in files(folder) if path.name == "status.tsv"]
    assert others, "what is of others only stays"
    assert all(json.loads(row["outputs"]) or row["reason"] for path in others for row in read_table(path))
