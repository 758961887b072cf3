"""Tables that people send: text with tabs, commas or semicolons, in whatever encoding a spreadsheet gave it."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

from pipeline_lib.errors import UserError

DELIMITERS = "\t;,"
LARGEST = 500_000_000
"""Bytes; a table of people or scans is far smaller."""
WORKBOOKS = {b"PK\x03\x04": "an Excel or OpenDocument workbook", b"\xd0\xcf\x11\xe0": "an Excel workbook"}
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}
PREAMBLE = re.compile(r"\s*#|sep=.$", re.IGNORECASE)
"""Lines before the names of the columns: comments, and Excel's ``sep=;``."""
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True)
class Table:
    """A header and its rows, each with the number of its line; rows that cannot be read each have a fault.

    Attributes:
        faults: line and what is wrong with it.
        notes: what is true of the whole file and worth saying, e.g. its encoding.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    faults: tuple[tuple[int, str], ...]
    delimiter: str
    notes: tuple[str, ...]


def read_delimited(path: Path) -> Table:
    """Read a table whose first line names its columns; blank lines, ``#`` comments and ``sep=;`` before it are passed over.

    Raises:
        UserError: no such file, no regular file, no text, a workbook or compressed, or too large.
    """
    text, notes = _decoded(path, _bytes(path))
    lines = [line.rstrip("\n") for line in io.StringIO(text, newline=None)]
    start = next((n for n, line in enumerate(lines) if line.strip() and not PREAMBLE.match(line)), len(lines))
    if start == len(lines):
        return Table((), (), (), "\t", notes)
    if CONTROL.search(lines[start]):
        raise UserError(f"{path}: is no table of text; save it as TSV, UTF-8")
    delimiter = next((each for each in DELIMITERS if each in lines[start]), "\t")
    found = _whole(lines[start:], delimiter)
    if found is None:
        found = _line_by_line(lines[start:], delimiter)
    records, faults = found
    header = tuple(name.strip() for name in records[0][1]) if records and records[0][0] == 0 else ()
    if not header:
        raise UserError(f"{path}: row {start + 1}, the names of the columns, has a stray quotation mark; remove it")
    rows: list[tuple[int, tuple[str, ...]]] = []
    for number, record in records[1:]:
        stray = next((value for value in record if CONTROL.search(value)), None)
        if stray is not None:
            faults.append((number, f"{_shown(stray)} holds a control character; remove it"))
        elif any(value.strip() for value in record):
            rows.append((number, tuple(record)))
    line = start + 1
    return Table(
        header,
        tuple((line + number, record) for number, record in rows),
        tuple((line + number, fault) for number, fault in sorted(faults)),
        delimiter,
        notes,
    )


def read_text(path: Path) -> str:
    """The text of such a file, whatever its encoding.

    Raises:
        UserError: as `read_delimited`.
    """
    return _decoded(path, _bytes(path))[0]


def _shown(value: str) -> str:
    return repr(value if len(value) < 60 else f"{value[:60]}...")


def _bytes(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: is no file; name a table of text")
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path}: is larger than {LARGEST // 1_000_000} MB, which no table of people or scans is")
        return path.read_bytes()
    except ValueError:  # a NUL in the path
        raise UserError(f"{str(path)!r}: is no path of a file") from None
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; correct the path") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None


def _decoded(path: Path, content: bytes) -> tuple[str, tuple[str, ...]]:
    for start, name in WORKBOOKS.items():
        if content.startswith(start):
            raise UserError(f"{path}: is {name}; save it as text, tabs between columns (TSV, UTF-8)")
    for start, name in COMPRESSED.items():
        if content.startswith(start):
            raise UserError(f"{path}: is compressed ({name}); decompress it")
    if (encoding := _wide(content)) is not None:
        try:
            return content.decode(encoding).removeprefix("\ufeff"), ()
        except UnicodeDecodeError:
            raise UserError(f"{path}: is damaged {encoding.upper()} text; save it as UTF-8") from None
    try:
        return content.decode("utf-8-sig"), ()
    except UnicodeDecodeError:
        note = f"{path}: is not UTF-8 and was read as Windows-1252 (Latin-1); save it as UTF-8 if letters look wrong"
        return content.decode("cp1252", errors="replace").replace("\ufffd", "?"), (note,)


def _wide(content: bytes) -> str | None:
    """UTF-32 and UTF-16 by their marks, UTF-16 also by every second byte being zero."""
    if content.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "utf-32"
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    beginning = content[:400]
    half = len(beginning) // 2
    if half < 4:
        return None
    if beginning[1::2].count(0) > 0.8 * half and not beginning[::2].count(0):
        return "utf-16-le"
    return "utf-16-be" if beginning[::2].count(0) > 0.8 * half and not beginning[1::2].count(0) else None


_Found = tuple[list[tuple[int, list[str]]], list[tuple[int, str]]]


def _whole(lines: list[str], delimiter: str) -> _Found | None:
    """The records where the quoting is right everywhere; None where it is not, or one cell swallows several rows."""
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=delimiter, strict=True)
    records: list[tuple[int, list[str]]] = []
    try:
        for record in reader:
            if any("\n" in value and delimiter in value for value in record):
                return None
            records.append((reader.line_num - 1, record))
    except csv.Error:
        return None
    return records, []


def _line_by_line(lines: list[str], delimiter: str) -> _Found:
    records: list[tuple[int, list[str]]] = []
    faults: list[tuple[int, str]] = []
    for number, line in enumerate(lines):
        try:
            records += [(number, record) for record in csv.reader([line], delimiter=delimiter, strict=True)]
        except csv.Error:
            faults.append((number, f"{_shown(line)} has a stray or unclosed quotation mark; remove it"))
    return records, faults
