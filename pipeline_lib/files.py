"""Files that are either complete or absent, and the sidecar that says what made them."""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline_lib.errors import UserError

BUFFER = 1 << 20
"""Bytes that go to a file at once where many small arrays are written to it."""
VERSIONED = ("torch", "numpy", "nibabel", "SimpleITK", "nilearn", "scikit-image", "opensimplex")


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success sync it and rename it into place.

    The temporary name keeps the full suffix (``.nii.gz``), because writers choose their format
    by it. On an exception the temporary file is removed and ``path`` is left as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".partial-", suffix=f"-{path.name}")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path | str) -> Iterator[Path]:
    """Give a temporary folder beside ``path``; on success it replaces ``path``."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".partial-{path.name}-"))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path | str, text: str) -> None:
    """Write ``text`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write ``value`` atomically as JSON that sorts its keys and ends with a newline."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, default=str) + "\n")


def read_json(path: Path | str) -> Any:
    """Read a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def read_table(path: Path | str) -> list[dict[str, str]]:
    """Rows of a TSV file with a header; a value that a row lacks is empty.

    Raises:
        UserError: the file cannot be read, or is damaged.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return [{key: value or "" for key, value in row.items()} for row in csv.DictReader(file, delimiter="\t")]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); run the stage that writes it again") from None
    except (UnicodeDecodeError, csv.Error):
        raise UserError(f"{path}: is damaged; run the stage that writes it again") from None


def write_table(path: Path | str, columns: Sequence[str], rows: Iterable[Mapping[str, str]]) -> None:
    """Write rows as TSV with a header, atomically; a column that a row lacks stays empty, others are left out."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, delimiter="\t", restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def image_files(path: Path) -> list[Path]:
    """The files of a scan: itself, or header and voxels of a ``.hdr``/``.img`` pair, compressed or not."""
    pair = re.fullmatch(r"(.+)\.(hdr|img)(\.gz)?", path.name)
    if pair is None:
        return [path]
    stem, _, compressed = pair.groups(default="")
    return [path.with_name(f"{stem}.{half}{compressed}") for half in ("hdr", "img")]


def sha256_file(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_text(text: str) -> str:
    """Hexadecimal SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def pseudonym(kind: str, value: str) -> str:
    """16 hexadecimal digits that stand for a name where it must not be written: the same for the same, of its kind."""
    return sha256_text(f"brain-generative-pipeline:{kind}:{value}")[:16]


def _version(package: str) -> str | None:
    """Its version; None where it is absent, as on a machine that only trains."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def provenance(*, stage: str, code: str, options: Any, inputs: Sequence[Path | str]) -> Mapping[str, Any]:
    """What made an output: the stage, hashes of its code and configuration, its seeds by their keys, versions, inputs."""
    return {
        "stage": stage,
        "code": code,
        "options": options,
        "options_sha256": sha256_text(json.dumps(options, sort_keys=True, default=str)),
        "seed": dict(_seeds(options)) or None,
        "inputs": sorted(str(path) for path in inputs),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in VERSIONED},
        "command": " ".join(Path(word).name if word.startswith("/") else word for word in sys.argv[:1]),
    }


def _seeds(options: Any, where: str = "") -> Iterator[tuple[str, int]]:
    """``sampling.seed`` and its like, in options of any depth."""
    for name, value in options.items() if isinstance(options, Mapping) else ():
        if name == "seed":
            yield f"{where}{name}", value
        yield from _seeds(value, f"{where}{name}.")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
