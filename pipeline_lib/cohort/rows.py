"""The rows of each chunk, written when a run starts: an ingest job reads its own, not the sheet and the ledger of a whole cohort."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from pipeline_lib.cohort.sheet import Scan
from pipeline_lib.errors import UserError
from pipeline_lib.files import sha256_text, write_text

COLUMNS = tuple(field.name for field in dataclasses.fields(Scan))


def rows_of(results: str, chunk: str) -> Path:
    """Where the rows of a chunk are; two cohorts, each with its results, may be run in one folder at once."""
    return Path("state", "rows", sha256_text(results)[:12], f"{chunk}.json")


def write_rows(path: Path, scans: Sequence[Scan]) -> None:
    """Write the scans of a chunk atomically, unless the file says the same already."""
    rows = [[getattr(scan, column) for column in COLUMNS] for scan in scans]
    text = json.dumps({"columns": COLUMNS, "rows": rows})
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


def read_rows(path: Path) -> list[Scan]:
    """The scans that `write_rows` wrote.

    Raises:
        UserError: the file is not there, or of another version of the code.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file, which the start of a run writes; start the workflow again")
    written = json.loads(path.read_text(encoding="utf-8"))
    if tuple(written["columns"]) != COLUMNS:
        raise UserError(f"{path}: written by another version of the code; start the workflow again")
    rows = (dict(zip(COLUMNS, values, strict=True)) for values in written["rows"])
    return [Scan(**row | {"covariates": tuple(map(tuple, row["covariates"]))}) for row in rows]
