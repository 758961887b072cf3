"""A chunk of scans done one by one in a pool of processes: a bad scan is a row, never a crash."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.context import BaseContext
from pathlib import Path

from pipeline_lib.errors import UserError
from pipeline_lib.files import atomic_directory, read_json, write_json
from pipeline_lib.imaging.status import write_status

log = logging.getLogger("pipeline")
RESULT = "result.json"
DISK = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE))
"""Faults of the machine, not of a scan: they stop the chunk, and excluded no one."""
KILLED = "its process was killed, probably out of memory; give the job more memory"
PROBE = bytes(1 << 20)
"""What a folder must have room for before a fault is taken to be the scan's."""


@dataclass(frozen=True)
class Item:
    """One scan: the row it starts with, the key of what it depends on, and what the work function is given."""

    row: Mapping[str, str]
    key: str
    given: object


@dataclass
class Done:
    """What a work function says of a scan.

    Attributes:
        outputs: name to path relative to the scan's folder.
        figures: columns added to the status row.
        fault: empty, or why the scan is excluded though its outputs exist (quality).
    """

    outputs: dict[str, str] = field(default_factory=dict)
    figures: dict[str, str] = field(default_factory=dict)
    fault: str = ""


Work = Callable[[object, Path], Done]


def run_chunk(stage: str, items: Sequence[Item], work: Work, out: Path, *, workers: int, cache: Path | None) -> None:
    """Do ``work`` on every scan and write ``out``: ``status.tsv``, ``scans/``, ``logs/``.

    Args:
        stage: name for the status rows and the log.
        work: called in another process with ``given`` and an empty folder to write to. It raises
            UserError for a fault of the scan.
        workers: processes; one that is killed fails only the scan it was working on.
        cache: folder that keeps finished scans, so that a chunk that was killed, or is tried again,
            repeats none of them.
    """
    with atomic_directory(out) as folder:
        (folder / "scans").mkdir()
        (folder / "logs").mkdir()
        rows: dict[str, dict[str, str]] = {}
        waiting = []
        for item in items:
            kept = _kept(cache, item)
            if kept is None:
                waiting.append(item)
            else:
                rows[item.row["scan"]] = _finish(item, stage, kept, folder)
        for item, place in _results(stage, waiting, work, folder, workers, cache):
            rows[item.row["scan"]] = _finish(item, stage, place, folder)
            row = rows[item.row["scan"]]
            verdict = f"ok ({row['seconds']} s)" if row["ok"] == "true" else f"excluded: {row['reason']}"
            log.info("%s %d/%d %s %s", stage, len(rows), len(items), row["scan"], verdict)
        shutil.rmtree(folder / ".work", ignore_errors=True)
        write_status(folder / "status.tsv", [rows[item.row["scan"]] for item in items])


def processes() -> BaseContext:
    """Forked on Linux, where the libraries are then imported once; elsewhere forking is not safe."""
    return get_context("fork" if sys.platform == "linux" else "spawn")


def _results(
    stage: str, items: Sequence[Item], work: Work, folder: Path, workers: int, cache: Path | None
) -> Iterator[tuple[Item, Path]]:
    alone: list[Item] = []
    with ProcessPoolExecutor(max_workers=workers, mp_context=processes()) as pool:
        futures = {pool.submit(_work_on, stage, work, item, _place(folder, cache, item)): item for item in items}
        for future in as_completed(futures):
            try:
                yield futures[future], future.result()
            except BrokenProcessPool:
                alone.append(futures[future])
            except OSError:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    for item in alone:  # one of these killed its process: each now has a pool of its own
        place = _place(folder, cache, item)
        try:
            with ProcessPoolExecutor(max_workers=1, mp_context=processes()) as pool:
                yield item, pool.submit(_work_on, stage, work, item, place).result()
        except BrokenProcessPool:
            _record(place, stage, KILLED, 0.0)
            yield item, place


def _work_on(stage: str, work: Work, item: Item, place: Path) -> Path:
    """The folder of a scan, with what became of it.

    Raises:
        OSError: the disk is full, or cannot be written to; ``filename`` is what could not be written.
    """
    started = time.monotonic()
    if place.exists():
        shutil.rmtree(place)
    try:
        place.mkdir(parents=True)
        _do(stage, work, item, place, started)
    except OSError as error:
        raise OSError(error.errno, error.strerror, error.filename or str(place)) from None
    return place


def _do(stage: str, work: Work, item: Item, place: Path, started: float) -> None:
    try:
        done = work(item.given, place)
    except UserError as error:
        _record(place, stage, str(error), time.monotonic() - started)
    except Exception as error:  # noqa: BLE001 - whatever a scan does to a library must not stop the cohort
        _refuse_full_disk(error, place)
        _record(place, stage, unexpected(error), time.monotonic() - started)
        (place / "traceback.log").write_text(traceback.format_exc())
    else:
        result = {"outputs": done.outputs, "figures": done.figures, "fault": done.fault}
        failed = {"stage": "quality", "reason": done.fault} if done.fault else {}
        write_json(place / RESULT, result | failed | {"seconds": f"{time.monotonic() - started:.1f}"})


def unexpected(error: Exception) -> str:
    """The reason of a row whose work failed in a way that nobody foresaw."""
    return f"unexpected {type(error).__name__}: {' '.join(str(error).split())} (the traceback is in its log)"


def _refuse_full_disk(error: Exception, place: Path) -> None:
    """Raise ``error`` where it is the disk's; libraries call a full one by many names, so the disk is tried."""
    if isinstance(error, OSError) and error.errno in DISK:
        raise error
    probe = place / "probe"
    try:
        probe.write_bytes(PROBE)
    finally:
        probe.unlink(missing_ok=True)


def _record(place: Path, stage: str, reason: str, seconds: float) -> None:
    """Say why there is no result; what was written until then, the last file perhaps by half, goes."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    write_json(
        place / RESULT, {"outputs": {}, "figures": {}, "stage": stage, "reason": reason, "seconds": f"{seconds:.1f}"}
    )


def _place(folder: Path, cache: Path | None, item: Item) -> Path:
    return (cache or folder / ".work") / item.key


def _kept(cache: Path | None, item: Item) -> Path | None:
    """The folder of a scan that was finished before without a fault."""
    if cache is None or not (cache / item.key / RESULT).is_file():
        return None
    place = cache / item.key
    return None if "reason" in read_json(place / RESULT) else place


def _finish(item: Item, stage: str, place: Path, folder: Path) -> dict[str, str]:
    """Link a scan's files into the chunk and make its status row."""
    result = read_json(place / RESULT)
    logged = ""
    for path in sorted(place.rglob("*")):
        if path.name == "traceback.log":
            logged = f"logs/{item.row['scan']}.log"
            shutil.copyfile(path, folder / logged)
        elif path.is_file() and path.name != RESULT:
            target = folder / "scans" / path.relative_to(place)
            target.parent.mkdir(parents=True, exist_ok=True)
            link(path, target)
    outputs = {name: f"scans/{path}" for name, path in result["outputs"].items()}
    return {
        **item.row,
        "ok": "false" if "reason" in result else "true",
        "stage": result.get("stage", ""),
        "reason": result.get("reason", ""),
        "log": logged,
        "outputs": json.dumps(outputs, sort_keys=True),
        **result["figures"],
        "seconds": result["seconds"],
    }


def link(source: Path, target: Path) -> None:
    """Link a file into a chunk; a copy where the two lie on different disks."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise FileExistsError(f"{target.name} is written by two scans of the chunk") from None
    except OSError:  # another file system
        try:
            shutil.copyfile(source, target)
        except OSError as error:  # names its source, though what is full is where the copy goes
            raise OSError(error.errno, error.strerror, str(target)) from None
