"""The files that rows of the sheet name, and whether their content changed since they were last read.

Ten thousand scans cannot be read whenever the graph is built. So ingest records of every file its size, time and
content (`write_record`), and `RowsKey` reads only files whose size or time is another now: a file replaced by one of
equal size is noticed, a file that was merely touched or copied is not done again.
"""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import fnmatch
import functools
import glob
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline_lib.cohort.sheet import Scan
from pipeline_lib.files import image_files, read_json, sha256_file, sha256_text, write_json

COLUMNS = ("path", "mask", "lesion_mask", "bval", "bvec")
"""Properties of a `Scan` that name files."""
RECORD = "inputs.json"
CACHE = Path("state") / "hashes.json"
"""Content of files that were read again because their time had changed."""
MISSING = "missing"


@dataclasses.dataclass(frozen=True)
class Read:
    """A file, or the files of a pattern, as last read: sizes and times in one text, and the hash of the content."""

    stamp: str
    sha256: str


def named_files(scans: Iterable[Scan]) -> list[str]:
    """The paths and patterns that rows name, each once."""
    return sorted({path for scan in scans for column in COLUMNS if (path := getattr(scan, column))})


def read_files(scans: Iterable[Scan], root: Path) -> dict[str, Read]:
    """Read the content of every file that rows name."""
    return {name: Read(stamp(root, name), content(root, name)) for name in named_files(scans)}


def write_record(folder: Path, key: str, scans: Sequence[Scan], read: Mapping[str, Read]) -> None:
    """Keep in a chunk's folder what its scans were made of, and the key under which the workflow knows that."""
    files = {name: dataclasses.astuple(each) for name, each in read.items()}
    write_json(folder / RECORD, {"key": key, "rows": _rows(scans), "files": files})


class RowsKey:
    """A hash of a chunk's rows and of the content of the files they name.

    It stays what it was when the chunk was made until a row or a file's content changes; moving the cohort changes
    nothing. Files that no record knows count by their sizes.
    """

    def __init__(self, root: Path, made: Path, cache: Path = CACHE) -> None:
        """``root`` is where the sheet's paths start, ``made`` the folder of ingested chunks."""
        self.root, self.made, self.cache = root, made, cache

    def __call__(self, chunk: str, scans: Sequence[Scan]) -> str:
        """The key of a chunk of ``scans``."""
        rows = _rows(scans)
        stamps = {name: stamp(self.root, name) for name in named_files(scans)}
        path = self.made / chunk / RECORD
        record: dict[str, Any] = read_json(path) if path.is_file() else {"key": "", "rows": "", "files": {}}
        before = {name: Read(*each) for name, each in record["files"].items()}
        suspect = {name: now for name, now in stamps.items() if name in before and before[name].stamp != now}
        changed = {name: sha for name, sha in self._contents(suspect).items() if sha != before[name].sha256}
        if record["rows"] == rows and before.keys() == stamps.keys() and not changed:
            return str(record["key"])
        sizes = {name: now.split("@")[0] for name, now in stamps.items()}
        return sha256_text(json.dumps([rows, sizes, changed], sort_keys=True))

    def _contents(self, stamps: Mapping[str, str]) -> dict[str, str]:
        if not stamps:
            return {}
        known = read_json(self.cache) if self.cache.is_file() else {}
        places = {name: os.path.abspath(os.path.join(self.root, name)) for name in stamps}  # noqa: PTH118
        unread = [name for name, now in stamps.items() if known.get(places[name], [""])[0] != now]
        known |= {places[name]: [stamps[name], content(self.root, name)] for name in unread}
        if unread:
            with contextlib.suppress(OSError):  # only time is lost where nothing may be written
                write_json(self.cache, known)
        return {name: known[places[name]][1] for name in stamps}


def stamp(root: Path, name: str) -> str:
    """``size@time`` of a file, or a hash of all of them for a pattern or a pair of header and voxels."""
    paths = _paths(root, name)
    found = [_stat(path) for path in paths]
    if len(found) == 1:
        return found[0]
    listed = json.dumps([[os.path.basename(path), each] for path, each in zip(paths, found, strict=True)])
    sizes = json.dumps([each.split("@")[0] for each in found])
    return f"{len(found)} files {sha256_text(sizes)}@{sha256_text(listed)}"


def content(root: Path, name: str) -> str:
    """SHA-256 of a file's bytes; of several, of their hashes in order; empty where it cannot be read."""
    try:
        paths = _paths(root, name)
        if not all(os.path.isfile(path) for path in paths):  # nor a pipe, which would never end
            return ""
        hashes = [sha256_file(path) for path in paths]
    except (OSError, ValueError):
        return ""
    return hashes[0] if len(hashes) == 1 else sha256_text("".join(hashes)) if hashes else ""


def matching_files(root: Path, pattern: str) -> list[str]:
    """The files that a path of the sheet stands for: itself, or those that its pattern matches, sorted."""
    if not glob.has_magic(pattern) or os.path.lexists(os.path.join(root, pattern)):  # noqa: PTH118
        return [os.path.join(root, pattern)]  # noqa: PTH118
    folder, last = os.path.split(pattern)
    if glob.has_magic(folder):
        return sorted(os.path.join(root, found) for found in glob.glob(pattern, root_dir=root))  # noqa: PTH118
    # Thousands of patterns in one folder: the names that share the pattern's beginning are found by bisection
    # instead of listing the folder again for each.
    names = _listing(*_folder(os.path.join(root, folder)))  # noqa: PTH118
    beginning = re.split(r"[*?\[]", last, maxsplit=1)[0]
    low = bisect.bisect_left(names, beginning)
    high = bisect.bisect_right(names, beginning + "\U0010ffff")
    found = [name for name in fnmatch.filter(names[low:high], last) if not name.startswith(".")]
    return [os.path.join(root, folder, name) for name in found]  # noqa: PTH118


def _rows(scans: Sequence[Scan]) -> str:
    return sha256_text(json.dumps([{**vars(scan), "row": 0} for scan in scans]))


def _paths(root: Path, name: str) -> list[str]:
    if re.search(r"\.(hdr|img)(\.gz)?$", name):
        return [str(path) for path in image_files(Path(root, name))]
    return matching_files(root, name)


def _stat(path: str) -> str:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return MISSING
    return f"{found.st_size}@{found.st_mtime_ns}"


def _folder(path: str) -> tuple[str, int]:
    """A folder and the time of its last change; 0 where there is none."""
    try:
        return path, os.stat(path).st_mtime_ns
    except (OSError, ValueError):
        return path, 0


@functools.lru_cache(maxsize=1000)
def _listing(folder: str, changed: int) -> list[str]:
    return sorted(os.listdir(folder)) if changed and os.path.isdir(folder) else []
