"""One process at a time trains in a folder of progress.

The lock is the operating system's (POSIX, `fcntl.lockf`): it ends with the process, however that ends, and holds between
machines on NFS. It is not inherited by the processes that load data, so none of them keeps it after a SIGKILL.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from pipeline_lib.errors import UserError
from pipeline_lib.stage import leads_others

log = logging.getLogger("pipeline")
LOCK = "lock"


@contextmanager
def owner(state: Path) -> Iterator[None]:
    """Keep every other process out of ``state``, which is made where it is missing.

    Of several processes of one training the first holds the lock for all of them, so this is to be entered before
    the others are started.

    Raises:
        UserError: another process holds it; says which, on which machine, since when.
    """
    if not leads_others():
        yield
        return
    state.mkdir(parents=True, exist_ok=True)
    # The file is opened here and nowhere else in this process: closing it a second time would end the lock.
    with os.fdopen(os.open(state / LOCK, os.O_RDWR | os.O_CREAT, 0o666), "r+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise UserError(f"{state}: {_holder(file.read())} trains here; wait until it is done, or stop it") from None
        except OSError as error:
            log.warning("%s cannot be locked here (%s): see that no other process trains in it", state, error.strerror)
        me = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        _write(file, json.dumps(me))
        try:
            yield
        finally:
            _write(file, "")


def _write(file: TextIO, text: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(text)
    file.flush()


def _holder(text: str) -> str:
    """Who wrote the lock; its words are missing for the moment between taking it and writing them."""
    try:
        held = json.loads(text)
        return f"process {held['pid']} on {held['host']} (since {held['since']})"
    except (ValueError, KeyError, TypeError):
        return "another process"
