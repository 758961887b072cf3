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
    try:
        record = read_json(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {again(path)}") from None
    except ValueError as error:  # no JSON, or no text
        raise UserError(f"{path}: is damaged ({error}); {again(path)}") from None
    lacking = sorted(set(keys) - record.keys()) if isinstance(record, dict) else sorted(keys) or ["an object"]
    if lacking:
        raise UserError(f"{path}: is damaged (lacks {', '.join(lacking)}); {again(path)}")
    return dict(record)


def again(path: Path) -> str:
    """What to do about a damaged file of a stage."""
    return f"delete the folder {path.parent} and run again, which makes it anew"
