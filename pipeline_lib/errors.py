"""The one error a user is meant to read, and that it can be printed."""

import io
import os
import sys
from collections.abc import Callable


class UserError(Exception):
    """Something the user can mend: which file, which row, what is wrong, what to do.

    The message is shown alone, without a traceback, so it must say all of that in one line.
    """


def print_anything() -> None:
    """Let a command print whatever a file or its name holds: what the terminal cannot show is written as its code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def run_command(main: Callable[[], int | None]) -> None:
    """Exit with what ``main`` returns; a reader of its output that stops early, as ``head`` does, ends it without a word.

    Where it could not return, the status is that of other programs then (128 and the number of SIGPIPE).
    """
    status: int | str | None = 141
    try:
        try:
            status = main()
        except SystemExit as ended:
            status = ended.code
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)
