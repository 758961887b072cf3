"""The pictures of a chunk in one file: hundreds of thousands of pictures must not become as many files.

A stack is the pictures of one row of the sheet, uint8 ``(n, rows, columns, colours)``. The stacks of a chunk lie one
after the other in ``scans/pictures.npy``, uint8 of one dimension, and a status row names each by its place there, as
``scans/pictures.npy@4096:1x64x64x3``.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline_lib.errors import UserError
from pipeline_lib.files import BUFFER, atomic_directory
from pipeline_lib.imaging.chunk import DISK, KILLED, Item, processes, unexpected
from pipeline_lib.imaging.status import write_status

log = logging.getLogger("pipeline")
FILE = "scans/pictures.npy"
TRACEBACKS = "logs/tracebacks.log"
TOGETHER = 500
"""Rows of the sheet that a process reads before it tells of them."""
Stack = NDArray[np.uint8]


@dataclass(frozen=True)
class Place:
    """Where a stack lies in its chunk's file: its first byte and its shape."""

    start: int
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{FILE}@{self.start}:{'x'.join(map(str, self.shape))}"

    @classmethod
    def parse(cls, text: str) -> Place:
        """Read what a status row says.

        Raises:
            UserError: it is no place of a stack.
        """
        start, _, shape = text.removeprefix(f"{FILE}@").partition(":")
        try:
            return cls(int(start), tuple(int(length) for length in shape.split("x")))
        except ValueError:
            raise UserError(f"{text}: not a place in {FILE}; ingest the chunk again") from None


class Stacks:
    """The stacks of a chunk, mapped and opened once."""

    def __init__(self, chunk: Path) -> None:
        """``chunk`` is the folder of an ingested or preprocessed chunk."""
        self.path = chunk / FILE
        self._bytes: Stack | None = None

    def __getitem__(self, place: str) -> Stack:
        """The stack ``(n, rows, columns, colours)`` at the place that a status row names."""
        if self._bytes is None:
            self._bytes = np.asarray(np.load(self.path, mmap_mode="r", allow_pickle=False))
        where = Place.parse(place)
        return self._bytes[where.start : where.start + math.prod(where.shape)].reshape(where.shape)


def holds_pictures(chunk: Path) -> bool:
    """Whether an ingested or preprocessed chunk is one of pictures."""
    return (chunk / FILE).is_file()


@dataclass(frozen=True)
class Pictures:
    """What was read of one row of the sheet: stacks by name, and columns added to its status."""

    stacks: dict[str, Stack]
    figures: dict[str, str] = field(default_factory=dict)


Read = Callable[[Any], Pictures]


@dataclass
class _Told:
    """What a process says of one row."""

    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    figures: dict[str, str] = field(default_factory=dict)
    reason: str = ""
    trace: str = ""
    seconds: float = 0.0


def run_pictures(stage: str, items: Sequence[Item], read: Read, out: Path, *, workers: int) -> None:
    """Read the pictures of a chunk and write ``out``: ``status.tsv``, ``scans/pictures.npy``, ``logs/``.

    Nothing is kept of a chunk that is stopped: it is read again, at a thousand pictures and more a second.

    Args:
        stage: name for the status rows and the log.
        read: called in another process with a item's ``given``. It raises UserError for a fault of the pictures.
        workers: processes; one that is killed fails only the row it was working on.
    """
    blocks = [items[first : first + TOGETHER] for first in range(0, len(items), TOGETHER)]
    with atomic_directory(out) as folder:
        for name in ("scans", "logs", ".work"):
            (folder / name).mkdir()
        told: list[_Told] = []
        files: list[Path] = []
        for parts in _in_order(stage, blocks, read, folder / ".work", workers):
            for file, part in parts:
                told += part
                files.append(file)
            log.info("%s %d/%d, %d excluded", stage, len(told), len(items), sum(bool(each.reason) for each in told))
        _join(files, folder / FILE)
        shutil.rmtree(folder / ".work")
        write_status(folder / "status.tsv", list(_rows(stage, items, told)))
        _write_tracebacks(folder / TRACEBACKS, items, told)


def _in_order(
    stage: str, blocks: Sequence[Sequence[Item]], read: Read, scratch: Path, workers: int
) -> Iterator[list[tuple[Path, list[_Told]]]]:
    """Block by block, the files its stacks were written to and what is told of its rows."""
    waiting = list(enumerate(blocks))
    while waiting:
        with ProcessPoolExecutor(max_workers=workers, mp_context=processes()) as pool:
            files = [scratch / str(number) for number, _ in waiting]
            futures = [
                pool.submit(_read_block, stage, block, read, file)
                for file, (_, block) in zip(files, waiting, strict=True)
            ]
            done = 0
            try:
                for file, future in zip(files, futures, strict=True):
                    yield [(file, future.result())]
                    done += 1
            except BrokenProcessPool:
                log.warning("%s: a process was killed; its rows are read again one by one", stage)
            except OSError:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        waiting = waiting[done:]
        if waiting:  # this block, or one beside it, killed its process; a new pool does the rest
            number, block = waiting.pop(0)
            yield [_alone(stage, item, read, scratch / f"{number}-{n}") for n, item in enumerate(block)]


def _alone(stage: str, item: Item, read: Read, file: Path) -> tuple[Path, list[_Told]]:
    try:
        with ProcessPoolExecutor(max_workers=1, mp_context=processes()) as pool:
            return file, pool.submit(_read_block, stage, [item], read, file).result()
    except BrokenProcessPool:
        file.write_bytes(b"")
        return file, [_Told(reason=KILLED)]


def _read_block(stage: str, items: Sequence[Item], read: Read, file: Path) -> list[_Told]:
    """Write the stacks of some rows to ``file``, one after the other.

    Raises:
        OSError: the disk is full, or cannot be written to.
    """
    told = []
    with open(file, "wb", buffering=BUFFER) as written:
        for item in items:
            started = time.monotonic()
            each, pictures = _read_one(item, read)
            for name, stack in pictures.stacks.items():
                each.shapes[name] = stack.shape
                written.write(np.ascontiguousarray(stack, np.uint8).data)
            each.seconds = time.monotonic() - started
            told.append(each)
    return told


def _read_one(item: Item, read: Read) -> tuple[_Told, Pictures]:
    try:
        pictures = read(item.given)
    except UserError as error:
        return _Told(reason=str(error)), Pictures({})
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK:
            raise
        return _Told(reason=unexpected(error), trace=traceback.format_exc()), Pictures({})
    return _Told(figures=pictures.figures), pictures


def _join(files: Sequence[Path], out: Path) -> None:
    """One array of all bytes, in order."""
    size = sum(file.stat().st_size for file in files)
    with open(out, "wb") as joined:
        np.lib.format.write_array_header_1_0(joined, {"descr": "|u1", "fortran_order": False, "shape": (size,)})
        for file in files:
            with open(file, "rb") as part:
                shutil.copyfileobj(part, joined, BUFFER)
            file.unlink()


def _rows(stage: str, items: Sequence[Item], told: Sequence[_Told]) -> Iterator[dict[str, str]]:
    start = 0
    for item, each in zip(items, told, strict=True):
        outputs = {}
        for name, shape in each.shapes.items():
            outputs[name] = str(Place(start, shape))
            start += math.prod(shape)
        yield {
            **item.row,
            "ok": "false" if each.reason else "true",
            "stage": stage if each.reason else "",
            "reason": each.reason,
            "log": TRACEBACKS if each.trace else "",
            "outputs": json.dumps(outputs, sort_keys=True),
            **each.figures,
            "seconds": f"{each.seconds:.4f}",
        }


def _write_tracebacks(path: Path, items: Sequence[Item], told: Sequence[_Told]) -> None:
    """Each traceback once, with the rows that it stopped."""
    scans: dict[str, list[str]] = {}
    for item, each in zip(items, told, strict=True):
        if each.trace:
            scans.setdefault(each.trace, []).append(item.row["scan"])
    if scans:
        path.write_text("\n".join(f"{' '.join(names)}\n{trace}" for trace, names in scans.items()), encoding="utf-8")
