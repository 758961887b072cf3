"""The stages as a graph with their times, and what was made anew since the last report."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pipeline_lib.files import write_json
from pipeline_lib.report.live import SILENT, follow, read_trainings
from pipeline_lib.report.stages import changes, graph, stages_of


def made(
    results: Path, path: str, stage: str, *inputs: str, code: str = "c", options: str = "o", at: int = 1000
) -> None:
    sidecar = results / path / "provenance.json"
    sidecar.parent.mkdir(parents=True, exist_ok=True)
    below = [f"somewhere/else/{results.name}/{each}" for each in inputs]
    write_json(sidecar, {"stage": stage, "code": code, "options_sha256": options, "inputs": below})
    os.utime(sidecar, (at, at))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    made(folder, "ingest/train-anat-0001", "ingest")
    made(folder, "preprocess/train-anat-0001", "preprocess", "ingest/train-anat-0001")
    made(folder, "one/dataset/train-anat-0001", "dataset", "preprocess/train-anat-0001")
    made(folder, "one/diffusion", "train_denoiser", "one/dataset/train-anat-0001")
    made(folder, "one/evaluation", "evaluate_anomaly", "one/diffusion", "one/dataset/train-anat-0001")
    made(folder, "report/scans/train-anat-0001", "report_scans", "preprocess/train-anat-0001")
    for path, seconds in (
        ("ingest/train-anat-0001", 12.5),
        ("train_denoiser/one", 7300),
        ("dataset/one/train-anat-0001", 3),
    ):
        file = folder / "benchmarks" / f"{path}.tsv"
        file.parent.mkdir(parents=True)
        file.write_text(f"s\tmax_rss\n1\t5\n{seconds}\t200.5\n")
    return folder


def test_stages_stand_in_the_order_of_the_way_with_their_times(results: Path) -> None:
    drawn = graph(stages_of(results), results)
    assert drawn is not None
    places = {(node.stage, node.recipe): node for node in drawn.nodes}
    assert set(places) == {
        ("ingest", ""), ("preprocess", ""), ("dataset", "one"), ("train_denoiser", "one"), ("evaluate_anomaly", "one"),
    }  # fmt: skip
    order = [places[key].x for key in sorted(places, key=lambda key: places[key].x)]
    assert len(set(order)) == 5
    assert places["train_denoiser", "one"].time == "2.0 h"
    assert places["train_denoiser", "one"].memory == 200.5
    assert places["dataset", "one"].seconds == 3
    assert places["preprocess", ""].seconds is None
    assert len(drawn.edges) == 4, "evaluation follows from the dataset by way of the training"


def test_results_under_another_name_keep_their_order(results: Path) -> None:
    moved = results.rename(results.with_name("kept for the paper"))
    drawn = graph(stages_of(moved), moved)
    assert drawn is not None
    assert len(drawn.edges) == 4


def test_the_first_report_has_nothing_to_compare_with(results: Path, tmp_path: Path) -> None:
    assert changes(stages_of(results), tmp_path / "kept.json") is None
    assert changes(stages_of(results), tmp_path / "kept.json") == []


def test_what_was_made_anew_is_named_with_its_reason(results: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    changes(stages_of(results), kept)
    made(results, "preprocess/train-anat-0001", "preprocess", "ingest/train-anat-0001", code="d", at=2000)
    made(results, "one/dataset/train-anat-0001", "dataset", "preprocess/train-anat-0001", at=2001)
    made(results, "one/diffusion", "train_denoiser", "one/dataset/train-anat-0001", options="p", at=2002)
    made(results, "two/diffusion", "train_denoiser", "one/dataset/train-anat-0001", at=2003)
    said = changes(stages_of(results), kept)
    assert said is not None
    assert {(change.stage, change.recipe): change.why for change in said} == {
        ("preprocess", ""): "its code changed",
        ("dataset", "one"): "its inputs were made anew",
        ("train_denoiser", "one"): "its options changed",
        ("train_denoiser", "two"): "there was none",
    }
    assert changes(stages_of(results), kept) == said, "a report that is only written again says the same"
    assert json.loads(kept.read_text())["changes"]


def log(results: Path, name: str, *lines: str, age: float = 0) -> None:
    path = results / "logs" / f"{name}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"2026-01-01 10:00:{n:02d},123 {line}\n" for n, line in enumerate(lines)))
    os.utime(path, (1_000_000 - age, 1_000_000 - age))


def steps(name: str, *losses: float) -> list[str]:
    return [
        f"INFO {name}: step {10 * n}/40, loss {loss:.4f}, 0.17 s/step, {40 - 10 * n} s left"
        for n, loss in enumerate(losses, start=1)
    ]


def test_a_page_tells_trainings_that_run_from_those_that_ended(tmp_path: Path) -> None:
    log(tmp_path, "train_denoiser/one", *steps("train_denoiser one", 1.0, 0.5), age=5)
    log(tmp_path, "train_denoiser/two", *steps("train_denoiser two", 1.0), age=SILENT + 60)
    done = "INFO train_vae: done in 12.0 s: results/x"
    log(tmp_path, "train_vae/three-image", *steps("train_vae three", 1, 0.9, 0.8, 0.7), done, age=9999)
    log(tmp_path, "train_vqgan/four", *steps("train_vqgan four", 1), "ERROR train_vqgan: loss is <nan>", age=9999)
    found = {training.name: training for training in read_trainings(tmp_path, now=1_000_000)}
    assert {name: training.state for name, training in found.items()} == {
        "train_denoiser one": "runs",
        "train_denoiser two": "silent",
        "train_vqgan four": "failed",
        "train_vae three-image": "done",
    }
    assert next(iter(found)) == "train_denoiser one"
    one = found["train_denoiser one"]
    assert (one.step, one.steps, one.share, one.loss, one.left) == (20, 40, 0.5, "0.5000", "20 s left")
    assert one.curve is not None
    assert found["train_vqgan four"].said == "train_vqgan: loss is <nan>"


def test_the_page_is_written_until_no_training_runs(tmp_path: Path) -> None:
    name = "train_denoiser one"
    path = tmp_path / "logs" / "train_denoiser" / "one.log"
    path.parent.mkdir(parents=True)
    path.write_text("".join(f"2026-01-01 10:00:00,1 {line}\n" for line in steps(name, 1.0, 0.5)))
    out, pages = tmp_path / "live.html", []

    def rest(_: float) -> None:
        pages.append(out.read_text())
        with open(path, "a") as file:
            file.write("2026-01-01 10:00:09,1 INFO train_denoiser: done in 9 s: results/one/diffusion\n")

    follow(tmp_path, out, every=7, rest=rest)
    assert len(pages) == 1
    assert '<meta http-equiv="refresh" content="7">' in pages[0]
    assert 'http-equiv="refresh"' not in out.read_text()
    assert ">done<" in out.read_text()
