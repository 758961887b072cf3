"""Tables that travel inside a page: small ones as a link to save, large ones packed for the page's script to show."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import re
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Column:
    """A column of a table that a reader searches and sorts; ``link`` names the column that holds where a cell leads."""

    name: str
    title: str
    number: bool = False
    link: str = ""


@dataclass(frozen=True)
class Sheets:
    """Small square pictures on sheets, so many side by side and on each, as ``data:`` addresses."""

    addresses: tuple[str, ...]
    pixels: int
    across: int
    on_each: int


@dataclass(frozen=True)
class Explorer:
    """A table shown a page at a time.

    Attributes:
        file: what the table is called when it is saved.
        columns: those shown; the table may hold more.
        filters: names and titles of columns with a list to choose from, and its values.
        packed: the table, see `packed`.
        rated: the cohort whose ratings, kept by the reader's browser, are columns too; empty: none.
        sheets: small pictures of the rows, in whose order the column ``tile`` counts, see `Sheets`.
    """

    name: str
    file: str
    columns: tuple[Column, ...]
    filters: tuple[tuple[str, str, tuple[str, ...]], ...]
    rows: int
    packed: str
    rated: str = ""
    sheets: Sheets | None = None


@dataclass(frozen=True)
class Download:
    """A table as a link: the file's name, and its content as a ``data:`` address."""

    file: str
    address: str


def tsv(columns: Sequence[str], rows: Iterable[Mapping[str, str]]) -> str:
    """Rows as tab-separated text with a header, of which every line is a row: blanks of all kinds become a space."""
    lines = ["\t".join(columns)]
    lines += ["\t".join(re.sub(r"\s+", " ", row.get(name, "")) for name in columns) for row in rows]
    return "\n".join(lines) + "\n"


def packed(text: str) -> str:
    """Text compressed (gzip) and written in base64, as the pages' script unpacks it; the same text gives the same."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def download(file: str, table: pd.DataFrame) -> Download:
    """A small table as a link that saves it."""
    text = io.StringIO()
    table.to_csv(text, sep="\t", index=False, quoting=csv.QUOTE_MINIMAL)
    return Download(file, "data:text/tab-separated-values;charset=utf-8," + urllib.parse.quote(text.getvalue()))


def text_of(table: Download) -> str:
    """The table that a link saves."""
    return urllib.parse.unquote(table.address.partition(",")[2])
