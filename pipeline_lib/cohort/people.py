"""Age, sex, group and site of people, from a table that somebody keeps of them, joined to the scans on disk.

An id of the table and a person on disk are one where they are written alike, ``sub-`` and a spreadsheet's ``1.0``
aside; else where they differ only in case, marks or leading zeros and nobody else could be meant. Where two could be
meant, the import stops with both names.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline_lib.cohort.delimited import read_delimited
from pipeline_lib.cohort.sheet import COLUMNS, Problem, Scan, summed_up
from pipeline_lib.cohort.values import MISSING, UNCLEAR, loosely, parse_age, parse_sex, without_prefix
from pipeline_lib.errors import UserError

FIELDS = ("group", "age", "sex", "site")
NAMES: Mapping[str, tuple[str, ...]] = {
    "participant": (
        "participantid", "participant", "subjectid", "subject", "subjid", "subid", "sub", "id", "patientid", "patient",
        "personid", "ptid", "recordid", "srcsubjectid",
    ),
    "session": ("sessionid", "session", "ses", "visitid", "visit", "viscode", "timepoint", "wave"),
    "group": (
        "group", "diagnosis", "dx", "dxgroup", "diag", "diagnosticgroup", "clinicaldiagnosis", "patientgroup",
        "studygroup", "researchgroup", "condition", "phenotype",
    ),
    "age": ("age", "ageyears", "ageinyears", "ageyrs", "ageatscan", "ageatmri", "ageatvisit", "ageatbaseline"),
    "sex": ("sex", "gender", "biologicalsex", "sexatbirth"),
    "site": ("site", "siteid", "center", "centerid", "centre", "scanner", "institution"),
}  # fmt: skip
"""What each column is called elsewhere, best first; case, blanks and marks do not count."""

LIKE = {"age": "age(?!.*(group|band|month|unit))", "sex": "(sex|gender)", "group": "(diagnosis|dx|group)"}
"""What a column may begin with where it has none of these names, and no other column begins so."""


@dataclass(frozen=True)
class Row:
    """What one row says of a person, at a session where it names one; values as text, empty where missing."""

    line: int
    participant: str
    session: str
    values: Mapping[str, str]


@dataclass(frozen=True)
class People:
    """The rows of a table of people, and what was not understood in it."""

    name: str = ""
    rows: tuple[Row, ...] = ()
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()

    def join(self, scans: Sequence[Scan], written: Mapping[str, str]) -> tuple[list[Scan], list[str]]:
        """The scans with what is known of their people, and lines that say who was found and what was not understood.

        Args:
            written: participant of a scan to the id as it stands on disk.

        Raises:
            UserError: an id could be of two people, or rows of one person contradict each other.
        """
        if not self.rows:
            lines = [*self.notes, *summed_up(self.problems)]
            return list(scans), [*lines, f"{self.name}: no row names a person"] if self.name else lines
        people = sorted({scan.participant for scan in scans})
        rows, loose = self._rows_of({person: written.get(person, person) for person in people})
        joined = [self._known(scan, rows[scan.participant]) if scan.participant in rows else scan for scan in scans]
        lines = [*self.notes, *summed_up(self.problems), *self._found(people, rows, written, loose)]
        if unclear := [scan.id for scan in scans if self._is_unclear(scan, rows.get(scan.participant, ()))]:
            lines.append(
                f"{self.name}: {len(unclear)} scans are of a session that no row names; what the rows of their people "
                f"differ in is left empty: {few(unclear)}"
            )
        return joined, lines

    def _rows_of(self, written: Mapping[str, str]) -> tuple[dict[str, list[Row]], list[str]]:
        """Rows of each person, and the people who were found only loosely."""
        by_id: dict[str, list[Row]] = defaultdict(list)
        for row in self.rows:
            by_id[without_prefix(row.participant)].append(row)
        exact = {person: without_prefix(text) for person, text in written.items() if without_prefix(text) in by_id}
        ids: dict[str, set[str]] = defaultdict(set)
        for name in by_id.keys() - exact.values():
            ids[loosely(name)].add(name)
        alike: dict[str, list[str]] = defaultdict(list)
        for person in sorted(written.keys() - exact.keys()):
            alike[loosely(written[person])].append(person)
        found = {person: by_id[name] for person, name in exact.items()}
        loose = []
        for key, persons in alike.items():
            names = sorted(ids.get(key, ()))
            if names and (len(names) > 1 or len(persons) > 1):
                raise UserError(
                    f"{self.name}: {' and '.join(names)} could be {' and '.join(written[person] for person in persons)}; "
                    "write ids as the scans do"
                )
            if names:
                found[persons[0]] = by_id[names[0]]
                loose.append(f"{by_id[names[0]][0].participant} for {written[persons[0]]}")
        return found, loose

    def _known(self, scan: Scan, rows: Sequence[Row]) -> Scan:
        here = _of_session(rows, scan.session)
        always = [row for row in rows if not row.session]
        values = self._agreed(rows, strictly=False) if not here else {}
        values |= {name: value for name, value in self._agreed(always).items() if value}
        values |= {name: value for name, value in self._agreed(here).items() if value}
        age, _ = parse_age(values.pop("age", ""))
        sex, _ = parse_sex(values.pop("sex", ""))
        group, site = values.pop("group", ""), values.pop("site", "")
        return replace(scan, group=group, age=age, sex=sex, site=site, covariates=tuple(values.items()))

    def _is_unclear(self, scan: Scan, rows: Sequence[Row]) -> bool:
        if _of_session(rows, scan.session) or all(not row.session for row in rows):
            return False
        known = {**self._agreed(rows, strictly=False), **self._agreed([row for row in rows if not row.session])}
        return any(not known.get(name) for row in rows for name, value in row.values.items() if value)

    def _agreed(self, rows: Sequence[Row], *, strictly: bool = True) -> dict[str, str]:
        """The values on which rows agree.

        Raises:
            UserError: they differ, and ``strictly`` they must not.
        """
        agreed: dict[str, str] = {}
        for name in dict.fromkeys(name for row in rows for name in row.values):
            said = {row.values[name]: row.line for row in rows if row.values.get(name)}
            if len(said) > 1 and strictly:
                first, second, *_ = said
                raise UserError(
                    f"{self.name}: rows {said[first]} and {said[second]} are both of {rows[0].participant} and differ in "
                    f"{name} ({first}, {second}); keep one, or name the session of each in a column session_id"
                )
            agreed[name] = next(iter(said)) if len(said) == 1 else ""
        return agreed

    def _found(
        self, people: Sequence[str], rows: Mapping[str, object], written: Mapping[str, str], loose: Sequence[str]
    ) -> list[str]:
        without = [written.get(person, person) for person in people if person not in rows]
        if not rows:
            example = f"{self.rows[0].participant} there, {without[0]} here"
            return [f"{self.name}: none of {len(people)} people found; ids look like {example}"]
        lines = [
            f"{self.name}: {len(rows)} of {len(people)} people found"
            + (f"; without: {few(without)}" if without else "")
        ]
        if loose:
            lines.append(
                f"{self.name}: {len(loose)} of them by ids that differ in case, marks or leading zeros: {few(loose)}"
            )
        taken = {id(row) for of in rows.values() for row in of}  # type: ignore[attr-defined]
        others = sorted({row.participant for row in self.rows if id(row) not in taken})
        if others:
            lines.append(
                f"{self.name}: {len(others)} {'person has' if len(others) == 1 else 'people have'} no scan here: {few(others)}"
            )
        return lines


def read_people(path: Path, covariates: Sequence[str] = (), *, participant: str = "") -> People:
    """Read a CSV or TSV file with a row a person (or session), whatever its columns are called.

    Args:
        covariates: further columns to keep.
        participant: whose table it is, where no column says so (BIDS's ``sessions.tsv``).

    Raises:
        UserError: when it cannot be read, names no participant or lacks a covariate.
    """
    table = read_delimited(path)
    places = _places(table.header)
    if "participant" not in places and not participant:
        what = f"its columns are {', '.join(table.header)}" if table.header else "it is empty"
        raise UserError(f"{path}: no column names the participant; call one participant_id ({what})")
    if absent := [name for name in covariates if name not in table.header]:
        raise UserError(f"{path}: no column {', '.join(absent)}; its columns are {', '.join(table.header)}")
    if taken := [name for name in covariates if name.lower() in COLUMNS]:
        raise UserError(f"--covariates: {', '.join(taken)} is a column of the sheet as it is; leave it out")
    name = str(path)
    problems = [Problem(line, None, message, name, "cannot be read") for line, message in table.faults]
    rows = []
    for line, values in table.rows:
        cells = dict(zip(range(len(table.header)), (value.strip() for value in values), strict=False))
        found = {field: cells.get(place, "") for field, place in places.items()}
        found |= {column: cells.get(table.header.index(column), "") for column in covariates}
        problems += _problems(line, found, len(values), len(table.header), name)
        found = {field: "" if value in MISSING else value for field, value in found.items()}
        person = participant or found.pop("participant")
        if person and len(values) <= len(table.header):
            rows.append(Row(line, person, found.pop("session", ""), _understood(found)))
    return People(
        name, tuple(rows), tuple(problems), (*table.notes, *_columns_said(path, table.header, places, covariates))
    )


def with_sessions(people: People, tables: Iterable[People]) -> People:
    """People with what further tables say of their sessions."""
    tables = list(tables)
    return replace(
        people,
        name=people.name or (tables[0].name if tables else ""),
        rows=people.rows + tuple(row for table in tables for row in table.rows),
        problems=people.problems + tuple(problem for table in tables for problem in table.problems),
    )


def _of_session(rows: Sequence[Row], session: str) -> list[Row]:
    exact = [row for row in rows if row.session and without_prefix(row.session) == session]
    return exact or [row for row in rows if row.session and session and loosely(row.session) == loosely(session)]


def few(names: Sequence[str], most: int = 5) -> str:
    """The first names, and how many more."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _places(header: Sequence[str]) -> dict[str, int]:
    """Our columns to their places in the table."""
    plain = [re.sub(r"[^a-z0-9]", "", name.casefold()) for name in header]
    places = {}
    for column, names in NAMES.items():
        place = next((plain.index(name) for name in names if name in plain), None)
        if place is None and column in LIKE:
            like = [n for n, name in enumerate(plain) if re.match(LIKE[column], name)]
            place = like[0] if len(like) == 1 else None
        if place is not None:
            places[column] = place
    if "participant" not in places:
        ids = [n for n, name in enumerate(plain) if name.endswith("id") and n not in places.values()]
        if len(ids) == 1:
            places["participant"] = ids[0]
    return places


def _problems(line: int, cells: Mapping[str, str], values: int, columns: int, name: str) -> list[Problem]:
    """What of a row is not understood."""
    found: list[tuple[str | None, str, str]] = []
    if values > columns:
        found.append((None, f"{values} values for {columns} columns; the row is not used", "long"))
    if cells.get("participant", "-") in MISSING:
        found.append(("participant", "names no participant; the row is not used", "nobody"))
    elif values < columns:
        found.append((None, f"{values} values for {columns} columns; the others are left empty", "short"))
    if cells.get("group", "") in UNCLEAR:
        message = f"{cells['group']} is taken as missing; if it is a group, give it another name"
        found.append(("group", message, "missing"))
    for column, fault in (("age", parse_age(cells.get("age", ""))[1]), ("sex", parse_sex(cells.get("sex", ""))[1])):
        if fault:
            found.append((column, f"{fault}; it is left empty", column))
    return [Problem(line, column, message, name, kind) for column, message, kind in found]


def _understood(cells: Mapping[str, str]) -> dict[str, str]:
    age, _ = parse_age(cells.get("age", ""))
    sex, _ = parse_sex(cells.get("sex", ""))
    return {**cells, "age": "" if age is None else f"{age:g}", "sex": sex}


def _columns_said(path: Path, header: Sequence[str], places: Mapping[str, int], covariates: Sequence[str]) -> list[str]:
    named = {column: header[place] for column, place in places.items() if column in FIELDS}
    renamed = [f"{column} from {name}" for column, name in named.items() if name.lower() != column]
    used = {header[place] for place in places.values()} | set(covariates)
    unused = [name for name in header if name and name not in used]
    lines = []
    if renamed:
        lines.append(f"{path}: {', '.join(renamed)}")
    if unused:
        lines.append(f"{path}: columns not used: {few(unused, 10)}; --covariates keeps them")
    return lines
