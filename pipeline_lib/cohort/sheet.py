"""The sheet of scans: one row a scan, read without opening a scan.

A fault of the whole file (no such file, commas for tabs, a required column missing) raises
:class:`UserError`. A fault of one row excludes that row and the rest goes on; every fault found
is reported at once, with its row, its column and what to do. An age, sex or covariate that is not
understood is unknown, which is said and costs no scan.
"""

from __future__ import annotations

import csv
import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipeline_lib.cohort.chunks import SPLITS
from pipeline_lib.cohort.delimited import CONTROL, Table, read_delimited, read_text
from pipeline_lib.cohort.values import (
    LONGEST_GROUP,
    LONGEST_LABEL,
    LONGEST_NAME,
    MISSING,
    UNCLEAR,
    as_label,
    loosely,
    parse_age,
    parse_sex,
)
from pipeline_lib.errors import UserError
from pipeline_lib.files import atomic_path

FAMILIES: Mapping[str, str] = {
    "T1w": "anat",
    "T2w": "anat",
    "FLAIR": "anat",
    "PD": "anat",
    "dwi": "dmri",
    "noddi": "dmri",
    "image": "image",
}
REQUIRED = ("participant", "modality", "path")
COLUMNS = (
    "participant", "session", "modality", "path", "group", "age", "sex", "site",
    "mask", "lesion", "pair", "bval", "bvec", "alias", "split",
)  # fmt: skip
PATHS = ("path", "mask", "lesion", "bval", "bvec")
FOREIGN_MODALITIES: Mapping[str, str] = {
    "t1": "T1w", "mprage": "T1w", "spgr": "T1w", "mp2rage": "T1w", "t2": "T2w", "t2flair": "FLAIR", "pdw": "PD", "dti": "dwi",
}  # fmt: skip
NO_LESION = "none"
"""In the column ``lesion``: somebody looked, and there is none. Empty: unknown."""
LABEL = re.compile(r"[A-Za-z0-9]+")
NUMBER = re.compile(r"[+-]?[0-9]+([.,][0-9]+)?([eE][+-]?[0-9]+)?")
Kind = Literal["category", "number"]
# Names other formats use for our columns, too unlike them for a comparison of letters.
FOREIGN_COLUMNS: Mapping[str, str] = {
    "participant_id": "participant", "id": "participant", "subject": "participant",
    "session_id": "session", "visit": "session", "gender": "sex", "diagnosis": "group",
    "dx": "group", "file": "path", "filename": "path", "center": "site", "scanner": "site",
}  # fmt: skip


@dataclass(frozen=True)
class Scan:
    """One row of the sheet. Labels are stored without their ``sub-`` and ``ses-`` prefixes.

    ``path``, ``mask``, ``lesion``, ``bval`` and ``bvec`` are as written: relative to the folder
    of scans (``cohort.root``) unless absolute. ``lesion`` is a mask's path, ``none`` or empty
    (unknown). ``age`` is in years. ``covariates`` are the columns of ``cohort.covariates`` as pairs of
    name and text or number, those missing left out. ``row`` is the line in the file.
    """

    participant: str
    session: str
    modality: str
    path: str
    group: str = ""
    age: float | None = None
    sex: str = ""
    site: str = ""
    mask: str = ""
    lesion: str = ""
    pair: str = ""
    bval: str = ""
    bvec: str = ""
    alias: str = ""
    split: str = ""
    covariates: tuple[tuple[str, str | float], ...] = ()
    row: int = 0

    @property
    def id(self) -> str:
        """``sub-01_ses-1_T1w``, without ``ses-`` where there is no session."""
        session = f"_ses-{self.session}" if self.session else ""
        return f"sub-{self.participant.removeprefix('sub-')}{session}_{self.modality}"

    @property
    def family(self) -> str:
        """``anat``, ``dmri`` or ``image``: scans that one chunk may hold together."""
        return FAMILIES[self.modality]

    @property
    def lesion_mask(self) -> str:
        """Path of the lesion mask; empty where there is no lesion, or none is known."""
        return "" if self.lesion == NO_LESION else self.lesion

    @property
    def lesion_state(self) -> str:
        """``mask``, ``none`` (looked at, no lesion) or empty (unknown)."""
        return "mask" if self.lesion_mask else self.lesion

    @property
    def pair_key(self) -> str:
        """What the two halves of a source/target pair share."""
        return self.pair or f"{self.participant}/{self.session}"


@dataclass(frozen=True)
class Problem:
    """A fault in the sheet: of a row, or of the whole sheet where ``row`` is None.

    Problems of one ``kind`` in one column differ only in the value at fault, and are listed together.
    """

    row: int | None
    column: str | None
    message: str
    sheet: str = field(default="", compare=False)
    kind: str = field(default="", compare=False)

    def __str__(self) -> str:
        return self._said(f"row {self.row}" if self.row is not None else "")

    def _said(self, where: str) -> str:
        place = [self.sheet, where, f"column {self.column}" if self.column is not None else ""]
        return f"{', '.join(word for word in place if word)}: {self.message}"


def summed_up(problems: Iterable[Problem]) -> list[str]:
    """One line for each kind of problem: in how many rows, and the first of them."""
    kinds: dict[tuple[str | None, str], list[Problem]] = defaultdict(list)
    for problem in problems:
        kinds[problem.column, problem.kind or problem.message].append(problem)
    return [
        str(first) if not more else first._said(f"{len(more) + 1} rows, the first row {first.row}")
        for first, *more in kinds.values()
    ]


@dataclass(frozen=True)
class Sheet:
    """What was read: scans to use, scans left out each with its reason, and every fault found."""

    path: str
    scans: tuple[Scan, ...]
    excluded: tuple[tuple[Scan, Problem], ...]
    problems: tuple[Problem, ...]
    root: str = "."


_Fault = tuple["str | None", str, str]
"""Column, message, kind."""


def read_sheet(path: Path | str, root: Path | str = ".", covariates: Mapping[str, Kind] | None = None) -> Sheet:
    """Read and check the sheet at ``path``, whose relative paths start at the folder ``root``.

    Args:
        covariates: further columns to keep, and whether they hold categories or numbers.

    Raises:
        UserError: the file or ``root`` cannot be used at all, or every row has a fault; all such faults in
            one message.
    """
    path = Path(path)
    covariates = covariates or {}
    table = _read_table(path)
    header = _columns(table.header, covariates)
    faults = _structural_faults(header, table, covariates)
    if not Path(root).is_dir():
        faults.append(f"the folder of scans {root} does not exist: set cohort.root to where the scans are")
    if faults:
        raise UserError(f"{path}: " + "; ".join(faults))

    name = str(path)
    problems = [Problem(None, None, note.removeprefix(f"{name}: "), name) for note in table.notes]
    problems += [
        Problem(None, column, f"unknown column, ignored{_column_hint(column)}", name)
        for column in header
        if column and column not in COLUMNS and column not in covariates
    ]
    labels = _shared_labels(header, table)
    scans: list[Scan] = []
    faulty: dict[int, list[Problem]] = defaultdict(list)
    said: dict[int, list[Problem]] = defaultdict(list)
    for line, values in table.rows:
        scan, found, unknown = _parse(line, header, values, covariates, labels)
        scans.append(scan)
        faulty[line] += [Problem(line, column, message, name, kind) for column, message, kind in found]
        said[line] += [Problem(line, column, message, name, kind) for column, message, kind in unknown]
    for line, message in table.faults:
        scans.append(Scan("", "", "", "", row=line))
        faulty[line].append(Problem(line, None, message, name, "cannot be read"))
    for check in (_duplicates, _foreign_pairs, _torn_people, _lonely_groups):
        for scan, column, message in check([scan for scan in scans if not faulty[scan.row]]):
            faulty[scan.row].append(Problem(scan.row, column, message, name, check.__name__))

    kept = tuple(scan for scan in scans if not faulty[scan.row])
    excluded = tuple((scan, _joined(faulty[scan.row])) for scan in scans if faulty[scan.row])
    in_rows = [problem for line in sorted({*faulty, *said}) for problem in (*faulty[line], *said[line])]
    if not kept:
        listed = "; ".join(line.removeprefix(f"{name}, ") for line in summed_up(in_rows))
        raise UserError(f"{path}: every row has a fault and is left out: {listed}")
    return Sheet(path=name, scans=kept, excluded=excluded, problems=(*problems, *in_rows), root=str(root))


def write_sheet(path: Path | str, scans: Sequence[Scan]) -> None:
    """Write ``scans`` as a sheet with their covariates, leaving out the columns that no row fills."""
    covariates = dict.fromkeys(name for scan in scans for name, _ in scan.covariates)
    rows = [
        {column: _text(getattr(scan, column)) for column in COLUMNS}
        | {name: _text(value) for name, value in scan.covariates}
        for scan in scans
    ]
    used = [column for column in COLUMNS if column in REQUIRED or any(row[column] for row in rows)]
    used += covariates
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, used, restval="", delimiter="\t", lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def append_to_sheet(path: Path, scans: Sequence[Scan]) -> int:
    """Add the ``scans`` that the sheet at ``path`` does not have yet below its rows; how many there were.

    Raises:
        UserError: the sheet cannot be read, or lacks a column that a new scan fills.
    """
    sheet = read_sheet(path)
    known = {scan.id for scan in sheet.scans} | {scan.id for scan, _ in sheet.excluded}
    rows = [{column: _text(getattr(scan, column)) for column in COLUMNS} for scan in scans if scan.id not in known]
    table = _read_table(path)
    header = _columns(table.header, {})
    missing = [column for column in COLUMNS if column not in header and any(row[column] for row in rows)]
    if missing:
        raise UserError(f"{path}: has no column {', '.join(missing)} for the new rows; add it to the first line")
    if table.notes:
        raise UserError(f"{path}: is not UTF-8; save it as UTF-8 before rows are added")
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        before = read_text(path)
        file.write(before if before.endswith("\n") else f"{before}\n")
        writer = csv.DictWriter(
            file, header, restval="", delimiter=table.delimiter, lineterminator="\n", extrasaction="ignore"
        )
        writer.writerows(rows)
    return len(rows)


def row_lines(path: Path) -> dict[int, tuple[str, str]]:
    """Line of each row to its participant and alias, without their prefixes.

    Raises:
        UserError: the sheet cannot be read, or a row takes more than one line.
    """
    table = _read_table(path)
    header = _columns(table.header, {})
    found = {}
    for line, values in table.rows:
        if any("\n" in value for value in values):
            raise UserError(f"{path}: row {line} takes several lines; remove the line breaks in its cells")
        cells = dict(zip(header, values, strict=False))
        participant, alias = (cells.get(name, "").strip().removeprefix("sub-") for name in ("participant", "alias"))
        found[line] = (participant, alias)
    return found


def people(scans: Iterable[Scan]) -> dict[str, str]:
    """Map each participant to the person it is: the connected components of ids and aliases.

    Two ids are one person where one is the other's alias, or both have the same alias. A person
    is named by the first of its participant ids in sorted order.
    """
    parent: dict[str, str] = {}

    def find(label: str) -> str:
        parent.setdefault(label, label)
        while parent[label] != label:
            parent[label] = parent[parent[label]]
            label = parent[label]
        return label

    participants: set[str] = set()
    for scan in scans:
        participants.add(scan.participant)
        first = find(scan.participant)
        if scan.alias:
            parent[find(scan.alias)] = first
    names: dict[str, str] = {}
    for participant in sorted(participants):
        names.setdefault(find(participant), participant)
    return {participant: names[find(participant)] for participant in participants}


def alike_people(scans: Iterable[Scan]) -> list[tuple[str, str]]:
    """Pairs of ids that differ only in case or leading zeros: perhaps one person, who could then be in two splits."""
    scans = list(scans)
    person = people(scans)
    first: dict[str, str] = {}
    return [
        (other, participant)
        for participant in sorted(person)
        if person[other := first.setdefault(loosely(participant), participant)] != person[participant]
    ]


def alike_groups(scans: Iterable[Scan]) -> list[tuple[str, str]]:
    """Pairs of groups that differ only in case: perhaps one group, which would be split."""
    first: dict[str, str] = {}
    groups = sorted({scan.group for scan in scans if scan.group})
    return [(other, group) for group in groups if (other := first.setdefault(group.casefold(), group)) != group]


def _read_table(path: Path) -> Table:
    try:
        found = path.exists()
    except (OSError, ValueError):
        found = True
    if not found:
        raise UserError(
            f"{path}: no such sheet; write it with `python -m pipeline_lib.cohort from-bids` or `from-folder`"
        )
    return read_delimited(path)


def _columns(header: Sequence[str], covariates: Mapping[str, Kind]) -> list[str]:
    """Our names for the columns: case does not matter."""
    return [
        name.lower() if name not in covariates and name.lower() in COLUMNS else name for name in map(str.strip, header)
    ]


def _structural_faults(header: list[str], table: Table, covariates: Mapping[str, Kind]) -> list[str]:
    if not any(header):
        return [f"the file is empty; its first line must name the columns ({', '.join(REQUIRED)}, ...)"]
    if len(header) == 1 and " " in header[0]:
        return ["columns are separated by spaces; save the sheet with tabs (TSV)"]
    faults = []
    for column in REQUIRED:
        if column not in header:
            similar = next((c for c in header if _nearest_column(c) == column), None)
            hint = f"; rename {similar}" if similar else ""
            faults.append(f"required column {column} is missing{hint}")
    faults += [
        f"{column} is read as it is; take it out of cohort.covariates" for column in covariates if column in COLUMNS
    ]
    faults += [
        f"no column {column}, which cohort.covariates names; {_nearest(column, header)}"
        for column in covariates
        if column not in header
    ]
    repeated = sorted({column for column in header if column and header.count(column) > 1})
    faults += [f"column {column} appears twice; keep one" for column in repeated]
    if not table.rows and not table.faults:
        faults.append("there are no rows; add one row a scan")
    return faults


_LABELS = (("participant", "sub-"), ("session", "ses-"), ("alias", "sub-"))


def _shared_labels(header: list[str], table: Table) -> Counter[tuple[str, str]]:
    """How many ids as written would share a label: what may not be advised."""
    written = {
        (column, values[place].strip().removeprefix(prefix))
        for column, prefix in _LABELS
        if column in header
        for place in [header.index(column)]
        for _, values in table.rows
        if place < len(values)
    }
    return Counter((column, as_label(value)) for column, value in written)


def _parse(
    line: int,
    header: list[str],
    values: Sequence[str],
    covariates: Mapping[str, Kind],
    labels: Mapping[tuple[str, str], int],
) -> tuple[Scan, list[_Fault], list[_Fault]]:
    """A scan as it is written, what is wrong with the row, and what is merely not understood."""
    cells = dict.fromkeys((*COLUMNS, *covariates), "")
    unknown: list[_Fault] = []
    for column, value in zip(header, values, strict=False):
        value = value.strip()
        if column == "group" and value in UNCLEAR:
            unknown.append((column, f"{value} is taken as missing; if it is a group, give it another name", "missing"))
        if column in cells and value not in MISSING:
            cells[column] = value
    faults: list[_Fault] = []
    if any(value.strip() for value in values[len(header) :]):
        message = f"{len(values)} values for {len(header)} columns; look for a stray tab"
        faults.append((None, message, "stray"))
    faults += [(column, "empty; every scan needs one", "empty") for column in REQUIRED if not cells[column]]
    faults += _faulty_labels(cells, labels)
    faults += [
        (column, f"a name of {longest} bytes, which no file system holds; write the path of the file", "long")
        for column in PATHS
        if (longest := max(len(part.encode()) for part in cells[column].split("/"))) > LONGEST_NAME
    ]
    modality = cells["modality"]
    if modality and modality not in FAMILIES:
        meant = FOREIGN_MODALITIES.get(modality.lower(), modality)
        faults.append(("modality", f"unknown modality {modality!r}; {_nearest(meant, FAMILIES)}", "unknown"))
    if cells["split"] and cells["split"] not in SPLITS:
        faults.append(("split", f"unknown split {cells['split']!r}; {_nearest(cells['split'], SPLITS)}", "unknown"))
    if re.search(r"[/\\\x00-\x1f]|^\.", cells["group"]):
        message = f"{cells['group']!r} cannot name a folder; remove slashes and a leading dot"
        faults.append(("group", message, "folder"))
    if len(cells["group"]) > LONGEST_GROUP:
        message = f"{len(cells['group'])} characters, which file names cannot hold; write at most {LONGEST_GROUP}"
        faults.append(("group", message, "long"))
    if cells["lesion"].lower() == NO_LESION:
        cells["lesion"] = NO_LESION
    faults += [
        (column, "holds a line break or a control character; remove it", "control")
        for column, value in cells.items()
        if CONTROL.search(value) or "\n" in value
    ]
    age, fault = parse_age(cells["age"])
    if fault:
        unknown.append(("age", f"{fault}; the scan is kept, its age unknown", "age"))
    cells["sex"], fault = parse_sex(cells["sex"])
    if fault:
        unknown.append(("sex", f"{fault}; the scan is kept, its sex unknown", "sex"))
    for column, kind in covariates.items():
        if kind == "number" and cells[column] and not NUMBER.fullmatch(cells[column]):
            unknown.append((column, f"{cells[column]!r} is not a number; it is taken as missing", "number"))
            cells[column] = ""
    if modality == "dwi":
        faults += [
            (column, f"empty; diffusion MRI needs the path of its .{column} file", "empty")
            for column in ("bval", "bvec")
            if not cells[column]
        ]
    known = {column: cells[column] for column in COLUMNS if column != "age"}
    kept = tuple(
        (column, float(cells[column].replace(",", ".")) if kind == "number" else cells[column])
        for column, kind in covariates.items()
        if cells[column]
    )
    return Scan(**known, age=age, covariates=kept, row=line), faults, unknown


def _faulty_labels(cells: dict[str, str], labels: Mapping[tuple[str, str], int]) -> list[_Fault]:
    """Take the prefixes off ids and session, and say which are no labels."""
    faults: list[_Fault] = []
    for column, prefix in _LABELS:
        written = cells[column]
        cells[column] = written.removeprefix(prefix)
        if written and not LABEL.fullmatch(cells[column]):
            label = as_label(cells[column])
            advised = label and labels[column, label] == 1
            hint = f"write {label}" if advised else "give it a name of letters and digits of its own"
            faults.append((column, f"{written!r} is not letters and digits only; {hint}", "label"))
        elif len(cells[column]) > LONGEST_LABEL:
            message = (
                f"{len(cells[column])} letters and digits, which file names cannot hold; write at most {LONGEST_LABEL}"
            )
            faults.append((column, message, "long"))
    return faults


# Checks across rows: each gives (scan, column, message) for the rows to leave out.
_Faults = list[tuple[Scan, "str | None", str]]


def _duplicates(scans: list[Scan]) -> _Faults:
    first: dict[str, int] = {}
    return [
        (scan, "participant", f"{scan.id} is already in row {row}; remove one or give each its own session")
        for scan in scans
        if (row := first.setdefault(scan.id, scan.row)) != scan.row
    ]


def _foreign_pairs(scans: list[Scan]) -> _Faults:
    person = people(scans)
    owner: dict[str, Scan] = {}
    faults: _Faults = []
    for scan in scans:
        other = owner.setdefault(scan.pair, scan) if scan.pair else scan
        if person[other.participant] != person[scan.participant]:
            message = f"{scan.pair!r} is of {other.participant} (row {other.row}); a pair is of one person"
            faults.append((scan, "pair", message))
    return faults


def _torn_people(scans: list[Scan]) -> _Faults:
    person = people(scans)
    given: dict[str, set[str]] = defaultdict(set)
    for scan in scans:
        if scan.split:
            given[person[scan.participant]].add(scan.split)
    torn = {name: sorted(splits) for name, splits in given.items() if len(splits) > 1}
    return [
        (scan, "split", f"{name} is given {' and '.join(torn[name])}; give all rows of a person one split")
        for scan in scans
        if (name := person[scan.participant]) in torn
    ]


def _lonely_groups(scans: list[Scan]) -> _Faults:
    person = people(scans)
    members: dict[str, set[str]] = defaultdict(set)
    for scan in scans:
        if scan.group:
            members[scan.group].add(person[scan.participant])
    why = "has one person: cannot be both trained and tested on; add people or merge groups"
    return [
        (scan, "group", f"group {scan.group} {why}") for scan in scans if scan.group and len(members[scan.group]) == 1
    ]


def _joined(problems: list[Problem]) -> Problem:
    if len(problems) == 1:
        return problems[0]
    message = "; ".join(f"{p.column}: {p.message}" if p.column else p.message for p in problems)
    return Problem(problems[0].row, None, message, problems[0].sheet)


def _nearest(written: str, valid: Iterable[str]) -> str:
    """A hint with the valid name most like ``written``, or with all of them."""
    names = {name.lower(): name for name in valid}
    close = difflib.get_close_matches(written.lower(), names, n=1, cutoff=0.5)
    return f"did you mean {names[close[0]]}?" if close else f"write one of {', '.join(names.values())}"


def _nearest_column(written: str) -> str | None:
    lower = written.lower()
    if lower in FOREIGN_COLUMNS:
        return FOREIGN_COLUMNS[lower]
    return next(iter(difflib.get_close_matches(lower, COLUMNS, n=1, cutoff=0.6)), None)


def _column_hint(written: str) -> str:
    nearest = _nearest_column(written)
    if nearest:
        return f"; did you mean {nearest}?"
    return f"; known columns are {', '.join(COLUMNS)}"


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None else str(value)
