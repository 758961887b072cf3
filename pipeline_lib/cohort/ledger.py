"""The ledger: which split and chunk each scan is in. It only grows.

People, never scans, are placed: all the scans of a person, under whatever ids (see
:func:`pipeline_lib.cohort.sheet.people`), share one split. A row once written is never changed,
so a new person moves nobody and reruns nothing of the others.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline_lib.cohort.chunks import ChunkName, is_chunk
from pipeline_lib.errors import UserError
from pipeline_lib.files import atomic_path

WITHDRAWN = "withdrawn"
"""The ``how`` of a row that keeps a withdrawn person out: its participant is a hash (`files.pseudonym`)."""
COLUMNS = ("scan", "participant", "split", "chunk", "how")


@dataclass(frozen=True)
class Placement:
    """One scan's place.

    ``how`` says who decided: ``sheet`` (the split column), ``hash``, ``from_test`` (moved from
    test into validation), or ``person`` (an earlier scan of the same person).
    """

    scan: str
    participant: str
    split: str
    chunk: str
    how: str


@dataclass(frozen=True)
class Ledger:
    """All placements, in the order in which they were made, and the hashed ids of people who withdrew."""

    rows: tuple[Placement, ...] = ()
    withdrawn: frozenset[str] = frozenset()

    @cached_property
    def by_scan(self) -> Mapping[str, Placement]:
        """Scan id to its placement."""
        return {row.scan: row for row in self.rows}

    @cached_property
    def chunk_scans(self) -> Mapping[str, tuple[str, ...]]:
        """Chunk name to the ids of its scans."""
        chunks: dict[str, list[str]] = defaultdict(list)
        for row in self.rows:
            chunks[row.chunk].append(row.scan)
        return {name: tuple(scans) for name, scans in chunks.items()}

    @cached_property
    def splits(self) -> Mapping[str, str]:
        """Participant to split."""
        return {row.participant: row.split for row in self.rows}

    def chunks(self, split: str, family: str) -> tuple[str, ...]:
        """Names of the chunks of a split and family, in order."""
        names = sorted(map(ChunkName.parse, self.chunk_scans))
        return tuple(str(name) for name in names if (name.split, name.family) == (split, family))


def read_ledger(path: Path | str) -> Ledger:
    """Read a ledger; a file that does not exist is an empty one.

    Raises:
        UserError: the file is not a ledger, or was edited so that it contradicts itself.
    """
    path = Path(path)
    if not path.exists():
        return Ledger()
    if not path.is_file():
        raise UserError(f"{path}: is no file; name the ledger, or a file that is to become it")
    try:
        with open(path, encoding="utf-8-sig", newline=None) as file:
            header, *lines = [line for line in csv.reader(file, delimiter="\t") if line] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error}); restore it from version control") from None
    if tuple(header) != COLUMNS:
        raise UserError(
            f"{path}: columns are {', '.join(header)}; a ledger has {', '.join(COLUMNS)}, separated by tabs"
        )
    faults = []
    rows: list[Placement] = []
    withdrawn: set[str] = set()
    seen: set[str] = set()
    split_of: dict[str, str] = {}
    for number, line in enumerate(lines, start=2):
        if len(line) != len(COLUMNS):
            faults.append(f"row {number}: {len(line)} values for {len(COLUMNS)} columns")
            continue
        row = Placement(*line)
        if row.how == WITHDRAWN:
            withdrawn.add(row.participant)
            continue
        if not is_chunk(row.chunk) or ChunkName.parse(row.chunk).split != row.split:
            faults.append(f"row {number}: chunk {row.chunk!r} is not of split {row.split!r}")
        if row.scan in seen:
            faults.append(f"row {number}: {row.scan} is listed twice")
        if split_of.setdefault(row.participant, row.split) != row.split:
            both = f"{split_of[row.participant]} and {row.split}"
            faults.append(f"row {number}: {row.participant} is in {both}")
        seen.add(row.scan)
        rows.append(row)
    if faults:
        raise UserError(f"{path}: {shortened(faults)}; restore these rows, or remove them to have them placed anew")
    return Ledger(tuple(rows), frozenset(withdrawn))


def write_ledger(path: Path | str, ledger: Ledger) -> None:
    """Write a ledger atomically."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((r.scan, r.participant, r.split, r.chunk, r.how) for r in ledger.rows)
        writer.writerows(("", person, "", "", WITHDRAWN) for person in sorted(ledger.withdrawn))


def shortened(faults: Sequence[str]) -> str:
    """The first ten faults, and how many more."""
    return "; ".join(faults[:10]) + (f"; and {len(faults) - 10} more" if len(faults) > 10 else "")
