"""A person withdraws: what is theirs in results and state is found, named and removed, and never read again.

Removed are whole folders of stages, so that the next run makes them anew without the person: all folders of the person's
chunks, every stage that names the person or knows a hash of them (tables, pages, models), the scans kept between runs,
and the progress of trainings, which cannot be asked whom it saw. The ledger keeps a hash, so that rows of the person that
come back are left out.
"""

from __future__ import annotations

import csv
import io
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline_lib.cohort.delimited import read_text
from pipeline_lib.cohort.ledger import WITHDRAWN, Ledger, write_ledger
from pipeline_lib.cohort.sheet import LABEL, Problem, Sheet, row_lines
from pipeline_lib.config.schema import STATE
from pipeline_lib.errors import UserError
from pipeline_lib.files import pseudonym, read_json, read_table, write_text

KEPT_SCANS = ("ingest", "preprocess")
SIDECAR = "provenance.json"
TEXT = {".json", ".tsv", ".csv", ".html", ".log", ".txt", ".yaml", ".md", ".svg"}
SEARCHED = 1_000_000
"""Bytes at the beginning of a file that is no text which are searched: headers, not arrays."""


@dataclass(frozen=True)
class Withdrawal:
    """What is a person's.

    Attributes:
        ids: the participants that are the person.
        remove: files and folders to remove.
        models: folders of models that were trained on the person, among them.
        rows: lines of the sheet, counted from 1.
        ledger: what is left of it.
    """

    ids: tuple[str, ...]
    remove: tuple[Path, ...]
    models: tuple[Path, ...]
    rows: tuple[int, ...]
    ledger: Ledger


def find_withdrawal(participant: str, subjects: Path, ledger: Ledger, results: Path, state: Path = STATE) -> Withdrawal:
    """Find what is to go where a person withdraws.

    Raises:
        UserError: neither the sheet nor the ledger knows the id.
    """
    participant = participant.removeprefix("sub-")
    if not LABEL.fullmatch(participant):
        raise UserError(f"{participant!r} is no id of a participant: letters and digits, as in the sheet")
    lines = row_lines(subjects) if subjects.exists() else {}
    aliases = {alias for person, alias in lines.values() if person == participant and alias}
    aliases |= {person for person, alias in lines.values() if alias and alias in {participant, *aliases}}
    ids = tuple(sorted({participant} | aliases))
    rows = tuple(sorted(line for line, (person, _) in lines.items() if person in ids))
    placed = [row for row in ledger.rows if row.participant in ids]
    if not rows and not placed:
        known = "; withdrawn before" if pseudonym("person", participant) in ledger.withdrawn else ""
        raise UserError(f"{participant}: neither {subjects} nor the ledger has a person of this id{known}")
    chunks = {row.chunk for row in placed}
    marks = _marks(ids, {row.scan for row in placed}, results, chunks)
    theirs = _made_from(set(_theirs(results, chunks, marks, ids)), results) | set(_kept(state, marks))
    models = {path for path in theirs if path.is_dir() and _knows(path / "model.json", ids)}
    rest = tuple(row for row in ledger.rows if row.participant not in ids)
    withdrawn = ledger.withdrawn | {pseudonym("person", each) for each in ids}
    return Withdrawal(
        ids, tuple(sorted(theirs)), tuple(sorted(models)), rows, replace(ledger, rows=rest, withdrawn=withdrawn)
    )


def carry_out(withdrawal: Withdrawal, subjects: Path, splits: Path) -> None:
    """Remove it all: the ledger first, so that nothing that is removed can be made again."""
    write_ledger(splits, withdrawal.ledger)
    if withdrawal.rows:
        lines = enumerate(io.StringIO(read_text(subjects), newline=None), start=1)
        write_text(subjects, "".join(line for number, line in lines if number not in withdrawal.rows))
    for path in withdrawal.remove:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def without_withdrawn(sheet: Sheet, ledger: Ledger) -> Sheet:
    """The sheet without the rows of people who withdrew."""
    if not ledger.withdrawn:
        return sheet
    gone = [scan for scan in sheet.scans if pseudonym("person", scan.participant) in ledger.withdrawn]
    problems = [
        Problem(scan.row, "participant", "this person withdrew; remove the row", sheet.path, WITHDRAWN) for scan in gone
    ]
    kept = tuple(scan for scan in sheet.scans if pseudonym("person", scan.participant) not in ledger.withdrawn)
    return replace(
        sheet,
        scans=kept,
        excluded=(*sheet.excluded, *zip(gone, problems, strict=True)),
        problems=(*sheet.problems, *problems),
    )


def _marks(ids: Sequence[str], scans: set[str], results: Path, chunks: set[str]) -> re.Pattern[bytes]:
    """What the person is known by in files: ids of scans, names and checksums of their files, and the hashes of all."""
    words = {f"sub-{each}" for each in ids} | {pseudonym("person", each) for each in ids}
    for status in [results / stage / chunk / "status.tsv" for stage in KEPT_SCANS for chunk in chunks]:
        for row in read_table(status) if status.is_file() else ():
            if row["scan"] in scans:
                content = {row.get("sha256", ""), row.get("voxels_sha256", "")} - {""}
                words |= content | {pseudonym("scan", each) for each in content} | {row.get("source", "")}
    listed = "|".join(re.escape(word) for word in sorted(words) if word)
    return re.compile(f"(?<![A-Za-z0-9])(?:{listed})(?![A-Za-z0-9])".encode())


def _theirs(results: Path, chunks: set[str], marks: re.Pattern[bytes], ids: Sequence[str]) -> Iterator[Path]:
    """Stages below ``results`` that hold or name the person."""
    done: set[Path] = set()
    for path in sorted(results.rglob("*")):
        if path.is_dir() and path.name in chunks:
            done.add(path)
            yield path
        elif path.is_file() and done.isdisjoint(path.parents) and (_names(path, marks) or _lists(path, ids)):
            stage = _stage_of(path, results)
            done.add(stage)
            yield stage
            beside = stage.with_suffix(f".{SIDECAR}")
            if stage.is_file() and beside.is_file():
                yield beside


def _names(path: Path, marks: re.Pattern[bytes]) -> bool:
    if marks.search(str(path).encode("utf-8", "surrogateescape")):
        return True
    with open(path, "rb") as file:
        return marks.search(file.read(-1 if path.suffix in TEXT else SEARCHED)) is not None


def _made_from(removed: set[Path], results: Path) -> set[Path]:
    """With every stage that was made from one of these: a page shows pictures of people and need not name them."""
    made = {
        sidecar: {Path(each).resolve() for each in read_json(sidecar).get("inputs", ())}
        for sidecar in results.rglob(f"*{SIDECAR}")
    }
    removed, gone = set(removed), {path.resolve() for path in removed}
    while found := {sidecar for sidecar, inputs in made.items() if not gone.isdisjoint(inputs)}:
        for sidecar in found:
            del made[sidecar]
            beside = sidecar.name.removesuffix(SIDECAR)  # of a single file: index. of index.html
            theirs = set(sidecar.parent.glob(f"{beside}*")) if beside else {sidecar.parent}
            removed |= theirs
            gone |= {path.resolve() for path in theirs}
    return removed


def _lists(path: Path, ids: Sequence[str]) -> bool:
    """Whether a table has a row of the person, who stands there by the bare id: anywhere else it may be any number."""
    if path.suffix != ".tsv":
        return False
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        return any(row.get("participant") in ids for row in csv.DictReader(file, delimiter="\t"))


def _stage_of(path: Path, results: Path) -> Path:
    """The folder of the stage that wrote a file; the file itself where it stands alone."""
    inside = [folder for folder in path.parents if results in folder.parents and (folder / SIDECAR).is_file()]
    return inside[0] if inside else path


def _kept(state: Path, marks: re.Pattern[bytes]) -> Iterator[Path]:
    """Scans of the person that are kept between runs, the cache of hashes, and the progress of trainings."""
    for result in state.glob("scans/*/*/*"):
        if any(_names(path, marks) for path in result.rglob("*") if path.is_file()):
            yield result
    for path in sorted(state.iterdir()) if state.is_dir() else ():
        if path.name != "scans":
            yield path


def _knows(model: Path, ids: Sequence[str]) -> bool:
    return model.is_file() and not {pseudonym("person", each) for each in ids}.isdisjoint(
        read_json(model).get("people", ())
    )
