"""How fast a folder of small pictures becomes packed training images, with what memory and how many files.

python benchmarks/pictures.py EMOJI_FOLDER --count 100000 >> docs/loading.md

The pictures of the folder are repeated until there are as many as asked for. Sheet, plan and the scripts of the rules
ingest, preprocess and dataset then run as the workflow runs them, one after the other on one core.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipeline_lib.cohort.rows import rows_of
from pipeline_lib.plan import Plan

REPOSITORY = Path(__file__).resolve().parents[1]
CURVE = REPOSITORY / "docs" / "images" / "pictures.png"
SIDE = 64


@dataclass(frozen=True)
class Job:
    """One step: what it took on the clock and of the CPU, s, and its largest process, MB."""

    name: str
    pictures: int
    wall: float
    cpu: float
    memory: float


def repeat(source: Path, count: int, out: Path) -> None:
    """``count`` files in the class folders of ``source``, its pictures again and again."""
    for number, path in enumerate(islice(cycle(sorted(source.glob("*/*.png"))), count)):
        folder = out / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:06d}.png").write_bytes(path.read_bytes())


def run(name: str, pictures: int, *command: object) -> Job:
    """Run a command of this Python and measure it."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *map(str, command)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{name} failed: {' '.join(map(str, command))}")
    return Job(name, pictures, time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def measured(name: str, pictures: int, work: Callable[[], None]) -> Job:
    """The same of a call."""
    started, before = time.perf_counter(), time.process_time()
    work()
    return Job(name, pictures, time.perf_counter() - started, time.process_time() - before, 0)


def jobs(pictures: Path, count: int, work: Path) -> Iterator[Job]:
    """From the folder to packed chunks, step by step."""
    sheet, scripts = work.parent / "subjects.tsv", REPOSITORY / "workflow" / "scripts"
    command = ["-m", "pipeline_lib.cohort", "from-pictures", pictures, "--sheet", sheet, "--whose", "picture"]
    yield run("sheet", count, *command)
    data = {"modality": "image", "size": [SIDE, SIDE], "channels": 3}
    cohort = {
        "subjects": str(sheet),
        "splits": str(work.parent / "splits.tsv"),
        "root": str(pictures),
        "results": str(work),
    }
    recipe = {"task": "generation", "data": data}
    plans: list[Plan] = []

    def make_plan() -> None:
        plans.append(Plan({"cohort": cohort, "recipes": {"pictures": recipe}}))
        plans[0].save_ledger()
        plans[0].save_rows()

    yield measured("plan", count, make_plan)
    plan = plans[0]
    for chunk in plan.chunks():
        number = len(plan.scans(chunk))
        ingested, preprocessed, packed = (work / stage / chunk for stage in ("ingest", "preprocess", "dataset"))
        given = [rows_of(cohort["results"], chunk), "--key", plan.rows_key(chunk), "--root", pictures]
        yield run("ingest", number, scripts / "ingest.py", *given, *_out(work, ingested))
        yield run("preprocess", number, scripts / "preprocess.py", "--ingested", ingested, *_out(work, preprocessed))
        options = ["--options", plan.options("dataset", "pictures")]
        yield run(
            "dataset", number, scripts / "dataset.py", "--preprocessed", preprocessed, *options, *_out(work, packed)
        )


def _out(work: Path, out: Path) -> list[object]:
    return ["--out", out, "--log", work / "logs" / f"{out.parent.name}-{out.name}.log", "--threads", "1"]


def draw(done: list[Job]) -> None:
    """Pictures packed over time, and the largest process of each chunk."""
    seconds = np.cumsum([job.wall for job in done])
    ends = [n for n, job in enumerate(done) if job.name == "dataset"]
    packed = np.cumsum([done[n].pictures for n in ends])
    largest = [max(job.memory for job in done[n - 2 : n + 1]) for n in ends]
    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([0, *seconds[ends]], [0, *packed], marker="o")
    left.set(xlabel="seconds, sheet and plan included", ylabel="pictures packed", ylim=(0, None))
    right.plot(packed, largest, marker="o")
    right.set(xlabel="pictures packed", ylabel="largest process of the chunk, MB", ylim=(0, None))
    FigureCanvasAgg(figure)
    figure.savefig(CURVE, dpi=110)


def main() -> None:
    """Print the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="class folders of PNG files")
    parser.add_argument("--count", type=int, default=100_000, help="pictures, the folder's repeated")
    arguments = parser.parse_args()
    os.environ["PYTHONPATH"] = str(REPOSITORY)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        repeat(arguments.folder, arguments.count, work / "pictures")
        os.chdir(work)
        (work / "results").mkdir()
        done = list(jobs(work / "pictures", arguments.count, work / "results"))
        written = [path for path in (work / "results").rglob("*") if path.is_file()]
        written += [path for path in (work / "state").rglob("*") if path.is_file()]
        packed = sum(np.load(path, mmap_mode="r").shape[0] for path in work.glob("results/dataset/*/data.npy"))
    draw(done)
    count = arguments.count
    wall, cpu = sum(job.wall for job in done), sum(job.cpu for job in done)
    print(f"""
## Pictures by the hundred thousand

Made by `python benchmarks/pictures.py EMOJI_FOLDER --count {count} >> docs/loading.md`: {count:,} PNG files of
{SIDE} x {SIDE} in class folders, from the folder to {packed:,} packed images, with sheet, plan and every start of Python,
on one core. **{count / wall:,.0f} pictures a second** on the clock ({count / cpu:,.0f} a second of CPU; other work shared the
machine), {len(written)} files: **{10_000 * len(written) / count:.0f} files a 10,000 pictures**.

| step | times | s | of them CPU | pictures a second | largest process, MB |
|---|---:|---:|---:|---:|---:|""")
    for step in dict.fromkeys(job.name for job in done):
        own = [job for job in done if job.name == step]
        seconds, used = sum(job.wall for job in own), sum(job.cpu for job in own)
        memory = max(job.memory for job in own)
        rate = sum(job.pictures for job in own) / seconds
        print(
            f"| {step} | {len(own)} | {seconds:.1f} | {used:.1f} | {rate:,.0f} | {f'{memory:,.0f}' if memory else ''} |"
        )
    print(f"\n![Pictures packed over time, and memory](images/{CURVE.name})")
    print(json.dumps({"chunks": [job.pictures for job in done if job.name == "dataset"]}), file=sys.stderr)


if __name__ == "__main__":
    main()
