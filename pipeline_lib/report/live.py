"""A page that shows a run while it goes on: every stage with the time left, and each training; a file that is written again.

Nothing but logs is read, so it runs wherever these can be seen, beside a run of a cluster too.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd

from pipeline_lib.config.schema import CohortOptions
from pipeline_lib.errors import UserError
from pipeline_lib.report.page import write_page
from pipeline_lib.report.plots import Plot, Series, plot
from pipeline_lib.report.progress import read_run
from pipeline_lib.report.tables import download

LINE = re.compile(
    r"^(?P<when>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d+ INFO .*?: step (?P<step>\d+)/(?P<steps>\d+), "
    r"loss (?P<loss>[-\d.einfa]+), (?P<pace>\S+) s/step, (?P<left>.+)$"
)
SILENT = 900
"""Seconds without a line after which a training may have been stopped; lines are a few minutes apart at most."""


@dataclass(frozen=True)
class Training:
    """What the log of a training says.

    Attributes:
        state: runs, silent, done, or failed.
        said: the last error, or how long since the last line.
    """

    name: str
    step: int
    steps: int
    loss: str
    pace: str
    left: str
    state: str
    said: str
    curve: Plot | None

    @property
    def share(self) -> float:
        """Done so far, of 1."""
        return self.step / self.steps if self.steps else 0.0


def follow(
    results: Path, out: Path, *, every: float, once: bool = False, rest: Callable[[float], None] = time.sleep
) -> None:
    """Write ``out`` again and again, until the run has ended and no training runs or, with ``once``, a single time.

    Args:
        results: folder of results, with ``logs/jobs.json`` of a run, or with ``logs/train_*/``.
        every: seconds between two versions; a browser that has the page open loads it again as often.
        rest: what waits.

    Raises:
        UserError: no run has noted its jobs there, and no training has written a log.
    """
    while True:
        run, trainings = read_run(results), read_trainings(results)
        if not run and not trainings:
            raise UserError(
                f"{results / 'logs'}: no run has started here yet; name the folder of results, as in the configuration"
            )
        open_trainings = [training for training in trainings if training.state in ("runs", "silent")]
        running = bool(open_trainings) if run is None else not run.ended
        write_page(
            out,
            "live.html",
            title="Progress",
            home="",
            cohort=CohortOptions(name="Progress"),
            run=run,
            silent=_ago(run.silent) if run and running and run.silent > SILENT else "",
            trainings=trainings,
            written=datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
            refresh=max(1, round(every)) if running and not once else 0,
        )
        if once or not running:
            return
        rest(every)


def read_trainings(results: Path, now: float | None = None) -> list[Training]:
    """Every training that has a log, those that run first."""
    found = [_read(path, time.time() if now is None else now) for path in sorted(results.glob("logs/train_*/*.log"))]
    order = ("runs", "silent", "failed", "done")
    return sorted(found, key=lambda training: order.index(training.state))


def _read(path: Path, now: float) -> Training:
    text = path.read_text(encoding="utf-8", errors="replace").splitlines()
    lines = [match for match in map(LINE.match, text) if match]
    name = f"{path.parent.name} {path.stem}"
    errors = [line.partition(" ERROR ")[2] for line in text if " ERROR " in line]
    since = now - path.stat().st_mtime
    done = any(": done in " in line for line in text[-3:])
    state = "failed" if errors else "done" if done else "silent" if since > SILENT else "runs"
    said = errors[-1] if errors else f"last line {_ago(since)}"
    if not lines:
        return Training(name, 0, 0, "", "", "", state, said, None)
    last = lines[-1]
    return Training(
        name,
        int(last["step"]),
        int(last["steps"]),
        last["loss"],
        last["pace"],
        "" if errors or done else last["left"],
        state,
        said,
        _curve(name, lines),
    )


def _curve(name: str, lines: list[re.Match[str]]) -> Plot | None:
    table = pd.DataFrame(
        {"when": [line["when"] for line in lines], "step": [int(line["step"]) for line in lines]}
        | {"loss": [float(line["loss"]) for line in lines]}
    )
    table = table.drop_duplicates("step", keep="last").sort_values("step").dropna()
    if len(table) < 2:
        return None
    losses = table["loss"].tolist()
    return plot(
        [Series("loss", table["step"].tolist(), losses)],
        title="Training loss", x_title="optimiser step", y_title="loss",
        alt=f"Training loss of {name} against optimiser steps, {losses[-1]:.4g} at the last.",
        log_y=min(losses) > 0, table=download(f"{name.replace(' ', '_')}_log.tsv", table),
    )  # fmt: skip


def _ago(seconds: float) -> str:
    return f"{max(0, seconds):.0f} s ago" if seconds < 120 else f"{seconds / 60:.0f} min ago"
