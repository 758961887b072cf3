"""The status table of a chunk: one row a scan, whether it went well or not."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline_lib.files import write_text

COLUMNS = (
    "scan", "participant", "session", "modality", "group", "age", "sex", "site", "pair",
    "ok", "stage", "reason", "log", "sha256", "outputs",
)  # fmt: skip


def read_status(path: Path) -> list[dict[str, str]]:
    """Rows of ``status.tsv``; ``ok`` is ``true`` or ``false``, ``outputs`` JSON of name to relative path."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def write_status(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Write rows atomically; columns beyond the common ones (quality figures) follow in order of appearance."""
    extra = dict.fromkeys(name for row in rows for name in row if name not in COLUMNS)
    text = io.StringIO()
    writer = csv.DictWriter(text, [*COLUMNS, *extra], delimiter="\t", lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
