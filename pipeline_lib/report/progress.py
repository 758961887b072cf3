"""How far a run is, stage by stage: what is done, what runs, what waits, and how long it may yet take.

A run notes its jobs in ``logs/jobs.json`` when it starts, and when it ended; how each job fares is in the job's own log.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from pipeline_lib.files import read_json, write_json
from pipeline_lib.report.stages import duration

JOBS = Path("logs", "jobs.json")
"""Where in the results a run notes its jobs."""
DONE = re.compile(r": done in ([\d.]+) s: ")
STEP = re.compile(r": step (?P<step>\d+)/(?P<steps>\d+), loss \S+, (?P<pace>\S+) s/step, ")
WHEN = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
State = Literal["waits", "runs", "done", "failed"]


@dataclass(frozen=True)
class Job:
    """A job of a run: its rule and recipe, which part of the stage it is (a chunk, a role), its log below the results."""

    stage: str
    recipe: str
    part: str
    log: str


@dataclass(frozen=True)
class Fared:
    """How a job fares.

    Attributes:
        took: seconds that it took, of one that waits or runs those of the time before; None where none are known.
        since: seconds for which it runs.
        left: seconds left by its own count of steps; None where it has none.
    """

    job: Job
    state: State
    took: float | None = None
    since: float = 0.0
    left: float | None = None


@dataclass(frozen=True)
class StageProgress:
    """The jobs of a rule and recipe together; ``left`` and ``each`` are None where nothing of the kind has ended yet."""

    name: str
    recipe: str
    done: int
    waiting: int
    failed: int
    running: tuple[str, ...]
    each: float | None
    left: float | None

    @property
    def jobs(self) -> int:
        """All of them."""
        return self.done + self.waiting + self.failed + len(self.running)

    @property
    def time_each(self) -> str:
        """A finished job's mean time, in words."""
        return duration(self.each)

    @property
    def time_left(self) -> str:
        """In words; empty where nothing is left."""
        if not self.waiting and not self.running:
            return ""
        return "not known yet" if self.left is None else f"about {duration(self.left)}"


@dataclass(frozen=True)
class Run:
    """A run by stages, in the order in which they follow; ``ended`` is empty while it runs."""

    stages: tuple[StageProgress, ...]
    started: str
    ended: str
    silent: float

    @property
    def jobs(self) -> int:
        """All jobs of the run."""
        return sum(stage.jobs for stage in self.stages)

    @property
    def done(self) -> int:
        """Those that are done."""
        return sum(stage.done for stage in self.stages)

    @property
    def failed(self) -> int:
        """Those that failed."""
        return sum(stage.failed for stage in self.stages)


def note_jobs(results: Path, jobs: Sequence[Job]) -> None:
    """Note what a run that starts now will do."""
    write_json(
        results / JOBS, {"started": time.time(), "ended": None, "outcome": "", "jobs": [asdict(job) for job in jobs]}
    )


def note_end(results: Path, outcome: str) -> None:
    """Note that the run ended, and how."""
    if (results / JOBS).is_file():
        write_json(results / JOBS, read_json(results / JOBS) | {"ended": time.time(), "outcome": outcome})


def read_run(results: Path, now: float | None = None) -> Run | None:
    """How far the last run is; None where it noted nothing, or had nothing to do."""
    if not (results / JOBS).is_file():
        return None
    noted, now = read_json(results / JOBS), time.time() if now is None else now
    fared = [_fared(results, Job(**job), noted["started"], now) for job in noted["jobs"]]
    if not fared:
        return None
    stages: dict[tuple[str, str], list[Fared]] = defaultdict(list)
    for each in fared:
        stages[each.job.stage, each.job.recipe].append(each)
    logs = [results / each.job.log for each in fared if each.state != "waits"]
    last = max((log.stat().st_mtime for log in logs), default=noted["started"])
    ended = f"{noted['outcome']} {_clock(noted['ended'])}" if noted["ended"] else ""
    return Run(
        tuple(_stage(*key, members, fared) for key, members in stages.items()),
        _clock(noted["started"]),
        ended,
        max(0.0, now - last),
    )


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


def _fared(results: Path, job: Job, started: float, now: float) -> Fared:
    path = results / job.log
    if not path.is_file():
        return Fared(job, "waits")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    took = next((float(found[1]) for line in reversed(lines) if (found := DONE.search(line))), None)
    if path.stat().st_mtime < started - 1:  # of an earlier run
        return Fared(job, "waits", took)
    if took is not None:
        return Fared(job, "done", took)
    if any(" ERROR " in line for line in lines):
        return Fared(job, "failed")
    first = next((found[0] for line in lines if (found := WHEN.match(line))), None)
    began = datetime.fromisoformat(first).timestamp() if first else path.stat().st_mtime
    step = next((found for line in reversed(lines) if (found := STEP.search(line))), None)
    left = (int(step["steps"]) - int(step["step"])) * float(step["pace"]) if step else None
    return Fared(job, "runs", None, max(0.0, now - began), left)


def _stage(name: str, recipe: str, members: Sequence[Fared], everything: Sequence[Fared]) -> StageProgress:
    each = _mean(members) or _mean([one for one in everything if one.job.stage == name])
    running = [one for one in members if one.state == "runs"]
    waiting = [one for one in members if one.state == "waits"]
    lefts = [one.left if one.left is not None else _or_none(each, one.since) for one in running]
    lefts += [one.took if one.took is not None else each for one in waiting]
    known = [left for left in lefts if left is not None]
    return StageProgress(
        name,
        recipe,
        sum(one.state == "done" for one in members),
        len(waiting),
        sum(one.state == "failed" for one in members),
        tuple(f"{one.job.part or 'one job'}, for {duration(one.since)}" for one in running),
        each,
        sum(known) / max(1, len(running)) if len(known) == len(lefts) else None,
    )


def _mean(members: Sequence[Fared]) -> float | None:
    """Of those done in this run, else of those of the run before."""
    for states in (("done",), ("waits",)):
        times = [one.took for one in members if one.state in states and one.took is not None]
        if times:
            return sum(times) / len(times)
    return None


def _or_none(each: float | None, since: float) -> float | None:
    return None if each is None else max(0.0, each - since)


def parts_of(wildcards: Mapping[str, str]) -> str:
    """What tells a job from the others of its stage: its wildcards but the recipe."""
    return ", ".join(str(value) for name, value in wildcards.items() if name != "recipe")
