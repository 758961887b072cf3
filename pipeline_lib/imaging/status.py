"""The status table of a chunk: one row a scan, whether it went well or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline_lib.files import write_table

SCAN_COLUMNS = (
    "scan", "participant", "session", "modality", "group", "age", "sex", "site", "covariates", "lesion", "pair",
    "source", "sha256", "voxels_sha256",
)  # fmt: skip
"""What a scan is, from the sheet and its file: the same in every stage. ``lesion`` is ``mask``, ``none`` (looked at,
no lesion) or empty (unknown); ``covariates`` is JSON of name to text or number."""
COLUMNS = (*SCAN_COLUMNS, "ok", "stage", "reason", "log", "outputs")


def write_status(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Write rows atomically; columns beyond the common ones (quality figures) follow in order of appearance.

    ``ok`` is ``true`` or ``false``, ``outputs`` JSON of name to relative path.
    """
    extra = dict.fromkeys(name for row in rows for name in row if name not in COLUMNS)
    write_table(path, [*COLUMNS, *extra], rows)


def pair_key(row: Mapping[str, str]) -> str:
    """What the two halves of a source/target pair share, as `Scan.pair_key` in the sheet."""
    return row.get("pair") or f"{row['participant']}/{row['session']}"
