"""What people who looked at the scans say of them: scans rated bad are left out, with who said so and why.

The file is what the report exports: columns ``scan``, ``rating`` (good, doubtful or bad) and, where there is one, ``note``;
others are passed over. Files of several people can be put one below the other: one bad rating is enough.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pipeline_lib.cohort.delimited import read_delimited
from pipeline_lib.cohort.ledger import shortened
from pipeline_lib.cohort.sheet import Problem, Sheet
from pipeline_lib.errors import UserError

RATINGS = ("good", "doubtful", "bad")


@dataclass(frozen=True)
class Rating:
    """A row of the file."""

    row: int
    scan: str
    rating: str
    note: str


def read_ratings(path: Path | str) -> list[Rating]:
    """The rows of a file of ratings.

    Raises:
        UserError: the file cannot be read, lacks a column, or a rating is none of `RATINGS`; all such rows in one message.
    """
    table = read_delimited(Path(path))
    header = [name.casefold() for name in table.header]
    if missing := [name for name in ("scan", "rating") if name not in header]:
        raise UserError(
            f"{path}: no column {' and '.join(missing)}; give a table with the columns scan and rating, as the report exports it"
        )
    faults = [f"{path}, row {line}: {fault}" for line, fault in table.faults]
    found = []
    for line, values in table.rows:
        cells = dict(zip(header, (value.strip() for value in values), strict=False))
        scan, rating = cells.get("scan", ""), cells.get("rating", "").casefold()
        if (scan.casefold(), rating) == ("scan", "rating"):  # the header of another file below
            continue
        if not scan or rating not in RATINGS:
            what = f"{cells.get('rating', '')!r} is not a rating" if scan else "no scan is named"
            faults.append(f"{path}, row {line}: {what}; use {', '.join(RATINGS)} for a scan of the report")
        else:
            found.append(Rating(line, scan, rating, cells.get("note", "")))
    if faults:
        raise UserError("\n".join(faults))
    return found


def without_rated_bad(sheet: Sheet, ratings: Path | str | None) -> Sheet:
    """The sheet without the scans that somebody rated bad; scans that are rated and that it does not have are a problem.

    Args:
        ratings: the file; nothing: the sheet as it is.

    Raises:
        UserError: see `read_ratings`.
    """
    if not ratings:
        return sheet
    found = read_ratings(ratings)
    known = {scan.id for scan in sheet.scans} | {scan.id for scan, _ in sheet.excluded}
    bad: dict[str, Rating] = {}
    for rating in found:
        if rating.rating == "bad":
            bad.setdefault(rating.scan, rating)
    excluded = [(scan, _problem(bad[scan.id], scan.row, sheet, ratings)) for scan in sheet.scans if scan.id in bad]
    unknown = sorted({rating.scan for rating in found} - known)
    stray = [_stray(unknown, ratings)] if unknown else []
    return replace(
        sheet,
        scans=tuple(scan for scan in sheet.scans if scan.id not in bad),
        excluded=(*sheet.excluded, *excluded),
        problems=(*sheet.problems, *(problem for _, problem in excluded), *stray),
    )


def _problem(rating: Rating, row: int | None, sheet: Sheet, ratings: Path | str) -> Problem:
    note = f": {rating.note}" if rating.note else ""
    said = f"{rating.scan} is rated bad in {ratings}, row {rating.row}{note}"
    return Problem(row, None, said, sheet.path, f"rated bad in {ratings}")


def _stray(unknown: list[str], ratings: Path | str) -> Problem:
    number = f"{len(unknown)} scans that are" if len(unknown) > 1 else "a scan that is"
    return Problem(
        None, None, f"rates {number} not in the sheet: {shortened(unknown)}; correct or remove the rows", str(ratings)
    )
