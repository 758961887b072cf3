"""The sheet of scans: one row a scan, read without opening a scan.

A fault of the whole file (no such file, commas for tabs, a required column missing) raises
:class:`UserError`. A fault of one row excludes that row and the rest goes on; every fault found
is reported at once, with its row, its column and what to do.
"""

from __future__ import annotations

import csv
import difflib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

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
SPLITS = ("train", "validation", "test")
MISSING = frozenset(("", "n/a", "N/A", "NA", "nan", "NaN"))
LABEL = re.compile(r"[A-Za-z0-9]+")
SEXES: Mapping[str, str] = {
    "m": "M", "male": "M", "man": "M", "f": "F", "female": "F", "woman": "F", "o": "O", "other": "O",
}  # fmt: skip
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
    of scans (``cohort.root``) unless absolute. ``age`` is in years. ``covariates`` are the further
    columns that were asked for, text or numbers, those left empty left out. ``row`` is the line in
    the file, the header being line 1.
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
    def pair_key(self) -> str:
        """What the two halves of a source/target pair share."""
        return self.pair or f"{self.participant}/{self.session}"


@dataclass(frozen=True)
class Problem:
    """A fault in the sheet: of a row, or of the whole sheet where ``row`` is None."""

    row: int | None
    column: str | None
    message: str
    sheet: str = field(default="", compare=False)

    def __str__(self) -> str:
        place = [self.sheet] if self.sheet else []
        if self.row is not None:
            place.append(f"row {self.row}")
        if self.column is not None:
            place.append(f"column {self.column}")
        return f"{', '.join(place)}: {self.message}"


@dataclass(frozen=True)
class Sheet:
    """What was read: scans to use, scans left out each with its reason, and every fault found."""

    path: str
    scans: tuple[Scan, ...]
    excluded: tuple[tuple[Scan, Problem], ...]
    problems: tuple[Problem, ...]
    root: str = "."


def read_sheet(path: Path | str, root: Path | str = ".", covariates: Mapping[str, str] | None = None) -> Sheet:
    """Read and check the sheet at ``path``, whose relative paths start at the folder ``root``.

    Args:
        covariates: further columns to read, each a ``category`` or a ``number``.

    Raises:
        UserError: the file or ``root`` cannot be used at all; all such faults in one message.
    """
    path = Path(path)
    header, lines = _read_rows(path)
    covariates = covariates or {}
    faults = _structural_faults(header, lines)
    faults += [f"no column {name}, which cohort.covariates names" for name in covariates if name not in header]
    faults += [f"{name} is read as it is; take it out of cohort.covariates" for name in covariates if name in COLUMNS]
    if not Path(root).is_dir():
        faults.append(f"the folder of scans {root} does not exist: set cohort.root to where the scans are")
    if faults:
        raise UserError(f"{path}: " + "; ".join(faults))

    name = str(path)
    problems = [
        Problem(None, column, f"unknown column, ignored{_column_hint(column)}", name)
        for column in header
        if column and column not in COLUMNS and column not in covariates
    ]
    scans: list[Scan] = []
    faulty: dict[int, list[Problem]] = defaultdict(list)
    for line, values in lines:
        scan, found = _parse(line, header, values, covariates)
        scans.append(scan)
        for column, message in found:
            faulty[line].append(Problem(line, column, message, name))
    for check in (_duplicates, _foreign_pairs, _torn_people, _lonely_groups):
        for scan, column, message in check([scan for scan in scans if scan.row not in faulty]):
            faulty[scan.row].append(Problem(scan.row, column, message, name))

    problems += [problem for line in sorted(faulty) for problem in faulty[line]]
    return Sheet(
        path=name,
        scans=tuple(scan for scan in scans if scan.row not in faulty),
        excluded=tuple((scan, _joined(faulty[scan.row])) for scan in scans if scan.row in faulty),
        problems=tuple(problems),
        root=str(root),
    )


def write_sheet(path: Path | str, scans: Sequence[Scan]) -> None:
    """Write ``scans`` as a sheet, leaving out the columns that no row fills."""
    rows = [{column: _text(getattr(scan, column)) for column in COLUMNS} for scan in scans]
    used = [column for column in COLUMNS if column in REQUIRED or any(row[column] for row in rows)]
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, used, delimiter="\t", lineterminator="\n", extrasaction="ignore")
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
    header, _ = _read_rows(path)
    missing = [column for column in COLUMNS if column not in header and any(row[column] for row in rows)]
    if missing:
        raise UserError(f"{path}: has no column {', '.join(missing)} for the new rows; add it to the first line")
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        before = path.read_text(encoding="utf-8-sig")
        file.write(before if before.endswith("\n") else f"{before}\n")
        csv.DictWriter(file, header, restval="", delimiter="\t", lineterminator="\n", extrasaction="ignore").writerows(
            rows
        )
    return len(rows)


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


def _read_rows(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header and the rows that are not blank, each with its line number."""
    try:
        with open(path, encoding="utf-8-sig", newline=None) as file:
            reader = csv.reader(file, delimiter="\t", strict=True)
            header = [name.strip() for name in next(reader, [])]
            rows = [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such sheet; write it with `python -m pipeline_lib.cohort from-bids` or `from-folder`"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"{path}: not a tab-separated text file ({error}); save it as UTF-8 text, tabs between columns"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    return header, rows


def _structural_faults(header: list[str], rows: Sequence[object]) -> list[str]:
    if not any(header):
        return [f"the file is empty; its first line must name the columns ({', '.join(REQUIRED)}, ...)"]
    if len(header) == 1 and (separator := re.search(r"[,; ]", header[0])):
        name = {",": "commas", ";": "semicolons", " ": "spaces"}[separator.group()]
        return [f"columns are separated by {name}; save the sheet with tabs (TSV)"]
    faults = []
    for column in REQUIRED:
        if column not in header:
            similar = next((c for c in header if _nearest_column(c) == column), None)
            hint = f"; rename {similar}" if similar else ""
            faults.append(f"required column {column} is missing{hint}")
    repeated = sorted({column for column in header if column and header.count(column) > 1})
    faults += [f"column {column} appears twice; keep one" for column in repeated]
    if not rows:
        faults.append("there are no rows; add one row a scan")
    return faults


def _parse(
    line: int, header: list[str], values: list[str], covariates: Mapping[str, str]
) -> tuple[Scan, list[tuple[str | None, str]]]:
    """A scan as it is written, and what is wrong with it: pairs of column and message."""
    cells = dict.fromkeys(COLUMNS, "")
    for column, value in zip(header, values, strict=False):
        value = value.strip()
        if column in cells and value not in MISSING:
            cells[column] = value
    faults: list[tuple[str | None, str]] = []
    if any(value.strip() for value in values[len(header) :]):
        faults.append((None, f"{len(values)} values for {len(header)} columns; look for a stray tab"))
    faults += [(column, "empty; every scan needs one") for column in REQUIRED if not cells[column]]

    for column, prefix in (("participant", "sub-"), ("session", "ses-"), ("alias", "sub-")):
        written = cells[column]
        cells[column] = written.removeprefix(prefix)
        if written and not LABEL.fullmatch(cells[column]):
            faults.append((column, f"{written!r} is not letters and digits only; {_label_hint(written)}"))
    modality = cells["modality"]
    if modality and modality not in FAMILIES:
        faults.append(("modality", f"unknown modality {modality!r}; {_nearest(modality, FAMILIES)}"))
    if cells["split"] and cells["split"] not in SPLITS:
        faults.append(("split", f"unknown split {cells['split']!r}; {_nearest(cells['split'], SPLITS)}"))
    if re.search(r"[/\\\x00-\x1f]|^\.", cells["group"]):
        faults.append(("group", f"{cells['group']!r} cannot name a folder; remove slashes and a leading dot"))
    age, fault = _age(cells["age"])
    if fault:
        faults.append(("age", fault))
    if cells["sex"]:
        written = cells["sex"]
        cells["sex"] = SEXES.get(written.lower(), written)
        if cells["sex"] not in SEXES.values():
            faults.append(("sex", f"unknown sex {written!r}; write M, F, O or leave it empty"))
    if modality == "dwi":
        faults += [
            (column, f"empty; diffusion MRI needs the path of its .{column} file")
            for column in ("bval", "bvec")
            if not cells[column]
        ]
    del cells["age"]
    further, unread = _covariates(dict(zip(header, values, strict=False)), covariates)
    return Scan(**cells, age=age, covariates=further, row=line), faults + unread


def _covariates(
    written: Mapping[str, str], kinds: Mapping[str, str]
) -> tuple[tuple[tuple[str, str | float], ...], list[tuple[str | None, str]]]:
    """The further columns of a row that are filled, and what is wrong with them."""
    found: list[tuple[str, str | float]] = []
    faults: list[tuple[str | None, str]] = []
    for name, kind in kinds.items():
        text = written.get(name, "").strip()
        if text in MISSING:
            continue
        if kind == "category":
            found.append((name, text))
        elif re.fullmatch(r"[-+]?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?", text):
            found.append((name, float(text)))
        else:
            faults.append((name, f"{text!r} is not a number; write e.g. 12.5, or leave it empty"))
    return tuple(found), faults


def _age(text: str) -> tuple[float | None, str | None]:
    if not text:
        return None, None
    if not re.fullmatch(r"[0-9]+(\.[0-9]*)?", text):
        return None, f"age {text!r} is not a number of years; write e.g. 42 or 42.5, or leave it empty"
    age = float(text)
    return (age, None) if age <= 120 else (None, f"age {text} is over 120 years; write years, not months")


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


def _label_hint(written: str) -> str:
    label = re.sub(r"[^A-Za-z0-9]", "", re.sub(r"^(sub|ses)-", "", written))
    return f"write {label}" if label else "give it a name of letters and digits"


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
