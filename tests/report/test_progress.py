"""A run by stages: what is done, what runs, what waits, and the time left, from the logs of its jobs."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from pipeline_lib.errors import UserError
from pipeline_lib.files import read_json, write_json
from pipeline_lib.report.live import follow
from pipeline_lib.report.progress import JOBS, Job, note_end, note_jobs, read_run

NOW = 1_000_000.0
STARTED = NOW - 500


def log(results: Path, name: str, *lines: str, began: float = STARTED, written: float = NOW - 5) -> None:
    path = results / "logs" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    when = datetime.fromtimestamp(began).strftime("%Y-%m-%d %H:%M:%S")
    path.write_text("".join(f"{when},000 {line}\n" for line in lines))
    os.utime(path, (written, written))


def begin(results: Path, *jobs: Job) -> None:
    note_jobs(results, jobs)
    write_json(results / JOBS, read_json(results / JOBS) | {"started": STARTED})


def jobs(stage: str, count: int, recipe: str = "") -> list[Job]:
    return [Job(stage, recipe, f"chunk {n}", f"logs/{stage}/{recipe}{n}.log") for n in range(count)]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    begin(tmp_path, *jobs("ingest", 6), *jobs("dataset", 2, "one"), Job("train_denoiser", "one", "", "logs/t/one.log"))
    for n, seconds in enumerate((20, 40)):
        log(tmp_path, f"ingest/{n}.log", f"INFO ingest: done in {seconds}.0 s: results/ingest/{n}")
    for n, since in enumerate((10, 12), start=2):
        log(tmp_path, f"ingest/{n}.log", "INFO ingest: 3 scans", began=NOW - since)
    log(tmp_path, "ingest/4.log", "INFO ingest: 3 scans", "ERROR ERROR ingest: disk full")
    old = "INFO ingest: done in 900.0 s: results/ingest/5"
    log(tmp_path, "ingest/5.log", old, written=STARTED - 1000)
    line = "INFO train_denoiser one: step 40/200, loss 0.5, 2.5 s/step, 7 min left"
    log(tmp_path, "t/one.log", line, began=NOW - 100)
    return tmp_path


def test_every_stage_says_what_is_done_runs_waits_and_failed(results: Path) -> None:
    run = read_run(results, NOW)
    assert run is not None
    told = {stage.name: (stage.done, len(stage.running), stage.waiting, stage.failed) for stage in run.stages}
    assert told == {"ingest": (2, 2, 1, 1), "dataset": (0, 0, 2, 0), "train_denoiser": (0, 1, 0, 0)}
    assert (run.done, run.jobs, run.failed, run.ended, run.silent) == (2, 9, 1, "", 5.0)
    assert run.stages[0].running == ("chunk 2, for 10 s", "chunk 3, for 12 s")


def test_time_left_is_of_finished_jobs_of_the_stage_and_of_a_trainings_pace(results: Path) -> None:
    run = read_run(results, NOW)
    assert run is not None
    ingest, dataset, training = run.stages
    assert ingest.each == 30, "the mean of 20 and 40 s"
    assert ingest.left == ((30 - 10) + (30 - 12) + 900) / 2, "what waits took 900 s the time before; two run at once"
    assert (dataset.left, dataset.time_left) == (None, "not known yet")
    assert training.left == 160 * 2.5
    assert training.time_left == "about 7 min"


def test_a_stage_of_one_recipe_is_estimated_by_the_same_stage_of_another(tmp_path: Path) -> None:
    begin(tmp_path, *jobs("dataset", 1, "one"), *jobs("dataset", 3, "two"))
    log(tmp_path, "dataset/one0.log", "INFO dataset: done in 10.0 s: results/one/dataset")
    run = read_run(tmp_path, NOW)
    assert run is not None
    assert [stage.left for stage in run.stages] == [0, 30]


def test_a_page_of_a_run_is_written_until_it_has_ended(results: Path) -> None:
    pages, out = [], results / "live.html"

    def rest(_: float) -> None:
        pages.append(out.read_text())
        note_end(results, "stopped by an error")

    follow(results, out, every=7, rest=rest)
    assert len(pages) == 1
    assert "2 of 9" in pages[0]
    assert "not known yet" in pages[0]
    assert '<meta http-equiv="refresh" content="7">' in pages[0]
    assert "stopped by an error" in out.read_text()
    assert 'http-equiv="refresh"' not in out.read_text()


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    note_end(tmp_path, "done")
    with pytest.raises(UserError, match="no run has started here yet"):
        follow(tmp_path, tmp_path / "live.html", every=1)


def test_a_page_written_once_does_not_ask_to_be_ended(results: Path) -> None:
    command = [sys.executable, "-m", "pipeline_lib.report", "live", str(results), "--once"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said == f"written: {results / 'report' / 'live.html'}\n"
