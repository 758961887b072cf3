"""JSON files that stages wrote, read for a page: one that is damaged is named, with what to do."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from pipeline_lib.errors import UserError
from pipeline_lib.files import read_json


def read_record(path: Path, keys: Collection[str] = ()) -> dict[str, Any]:
    """A JSON object.

    Raises:
        UserError: it cannot be read, or lacks one of ``keys``.
    """
    record = _read(path)
    if not isinstance(record, dict):
        raise UserError(f"{path}: is damaged (no object); {again(path)}")
    if lacking := sorted(set(keys) - record.keys()):
        raise UserError(f"{path}: is damaged (lacks {', '.join(lacking)}); {again(path)}")
    return record


def read_list(path: Path) -> list[Any]:
    """A JSON list.

    Raises:
        UserError: it cannot be read.
    """
    found = _read(path)
    if not isinstance(found, list):
        raise UserError(f"{path}: is damaged (no list); {again(path)}")
    return found


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {again(path)}") from None
    except ValueError as error:  # no JSON, or no text
        raise UserError(f"{path}: is damaged ({error}); {again(path)}") from None


def again(path: Path) -> str:
    """What to do about a damaged file of a stage."""
    return f"delete the folder {path.parent} and run again, which makes it anew"
