"""Who is in and who is out, and why; whether the split leaks; whether it is balanced."""

from __future__ import annotations

import itertools
import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline_lib.cohort.sheet import Sheet
from pipeline_lib.config.schema import CohortOptions
from pipeline_lib.errors import UserError
from pipeline_lib.files import read_table, write_json, write_table

COLUMNS = (
    "scan", "participant", "session", "modality", "split", "chunk", "group", "age", "sex", "site",
    "covariates", "lesion", "included", "stage", "reason", "sha256", "voxels_sha256",
)  # fmt: skip
Row = dict[str, str]


def summarise_split(split: str, chunks: Sequence[Path], options: CohortOptions, out: Path) -> None:
    """Write ``out``, a TSV with a row for each scan of a split: included or not, and why.

    Args:
        split: train, validation or test.
        chunks: folders of preprocessed chunks, each with its ``status.tsv``.

    Raises:
        UserError: when a larger fraction of the scans failed than ``max_failed_fraction``, or any
            with ``strict``.
    """
    rows = [_table_row(split, chunk, row) for chunk in chunks for row in read_table(chunk / "status.tsv")]
    failed = [row for row in rows if row["included"] == "false"]
    listed = "; ".join(f"{row['scan']}: {row['reason']}" for row in failed[:5])
    listed += f"; and {len(failed) - 5} more" if len(failed) > 5 else ""
    where = f"see {', '.join(str(chunk / 'status.tsv') for chunk in chunks[:3])}"
    if failed and options.strict:
        raise UserError(
            f"{len(failed)} of {len(rows)} {split} scans were excluded and cohort.strict is set: {listed}; {where}"
        )
    if len(failed) > options.max_failed_fraction * len(rows):
        raise UserError(
            f"{len(failed)} of {len(rows)} {split} scans failed, more than cohort.max_failed_fraction "
            f"{options.max_failed_fraction:g} allows: {listed}; {where}"
        )
    write_table(out, COLUMNS, rows)


def check_cohort(tables: Sequence[Path], sheet: Sheet, out: Path) -> None:
    """Write ``out``, JSON with duplicates, leakage, balance and the sheet's problems.

    Scans under two ids of the same bytes, or of the same voxels in another container, are reported, and marked as
    leakage when they lie in two splits: inference refuses a scan that is identical to one its model was trained on.
    """
    rows = list(itertools.chain.from_iterable(read_table(table) for table in tables))
    write_json(
        out,
        {
            "scans": len(rows),
            "people": len({row["participant"] for row in rows}),
            "included": sum(row["included"] == "true" for row in rows),
            "duplicates": _duplicates(rows),
            "people_in_two_splits": _people_in_two_splits(rows),
            "balance": _balance(rows),
            "excluded_rows": [
                {"row": scan.row, "scan": scan.id, "participant": scan.participant, "reason": str(problem)}
                for scan, problem in sheet.excluded
            ],
            "sheet_problems": [str(problem) for problem in sheet.problems],
        },
    )


def mark_failed_chunks(results: Path) -> list[str]:
    """Remove the sidecars of chunks with failed scans, so that the next run does them again.

    Returns:
        One line a failed scan. Scans that succeeded are kept in the scan cache and not repeated.
    """
    lines = []
    for stage in ("ingest", "preprocess"):
        for status in sorted(results.glob(f"{stage}/*/status.tsv")):
            failed = [row for row in read_table(status) if row["ok"] == "false" and row["stage"] == stage]
            if stage == "preprocess":
                failed += [row for row in read_table(status) if row["stage"] == "quality"]
            if failed:
                (status.parent / "provenance.json").unlink(missing_ok=True)
            lines += [f"{status.parent.name}: {row['scan']} will be tried again ({row['reason']})" for row in failed]
    return lines or ["no scan failed; nothing to try again"]


def _table_row(split: str, chunk: Path, row: Row) -> Row:
    return {name: row.get(name, "") for name in COLUMNS} | {
        "split": split,
        "chunk": chunk.name,
        "included": row["ok"],
    }


def _duplicates(rows: Sequence[Row]) -> list[dict[str, Any]]:
    same: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        for column in ("voxels_sha256", "sha256"):
            if row[column]:
                same[column, row[column]].append(row)
    found = {
        tuple(sorted(row["scan"] for row in group)): sorted({row["split"] for row in group})
        for group in same.values()
        if len({row["participant"] for row in group}) > 1
    }
    return [{"scans": list(scans), "splits": splits, "leakage": len(splits) > 1} for scans, splits in found.items()]


def _people_in_two_splits(rows: Sequence[Row]) -> list[str]:
    splits: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        splits[row["participant"]].add(row["split"])
    return sorted(person for person, places in splits.items() if len(places) > 1)


def _balance(rows: Sequence[Row]) -> list[dict[str, Any]]:
    people = {(row["participant"], row["split"]): row for row in rows if row["included"] == "true"}
    cells: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for (_, split), row in people.items():
        cells[split, row["group"]].append(row)
    return [
        {
            "split": split,
            "group": group,
            "people": len(members),
            "sex": dict(sorted(Counter(row["sex"] or "unknown" for row in members).items())),
            "age_mean": statistics.fmean(ages) if ages else None,
            "age_sd": statistics.stdev(ages) if len(ages) > 1 else None,
        }
        for (split, group), members in sorted(cells.items())
        for ages in [[float(row["age"]) for row in members if row["age"]]]
    ]
