"""A licence that is settled after a training stands in the model, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

from pipeline_lib.bundle_plan import terms
from pipeline_lib.bundles.licence import state_licence
from pipeline_lib.files import read_json, sha256_file, write_json


def test_licence_changed_later_is_in_the_model_and_its_sidecar_keeps_its_time(tmp_path: Path) -> None:
    folder = tmp_path / "diffusion"
    write_json(folder / "model.json", {"licence": "", "steps": 3})
    outputs = {"diffusion/model.json": sha256_file(folder / "model.json"), "diffusion/loss.png": "x"}
    write_json(folder / "provenance.json", {"outputs": outputs, "code": "c"})
    before = (folder / "provenance.json").stat().st_mtime_ns
    state_licence([folder, tmp_path / "unfinished"], "CC BY 4.0")
    assert read_json(folder / "model.json") == {"licence": "CC BY 4.0", "steps": 3}
    made = read_json(folder / "provenance.json")
    assert made["outputs"] == outputs | {"diffusion/model.json": sha256_file(folder / "model.json")}
    assert (folder / "provenance.json").stat().st_mtime_ns == before


def test_same_licence_leaves_the_files_alone(tmp_path: Path) -> None:
    write_json(tmp_path / "model.json", {"licence": "CC0"})
    write_json(tmp_path / "provenance.json", {"outputs": {}})
    before = (tmp_path / "model.json").stat().st_ino
    state_licence([tmp_path], "CC0")
    assert (tmp_path / "model.json").stat().st_ino == before


def test_terms_of_a_model_that_another_started_from_are_settled_in_both(tmp_path: Path) -> None:
    start = {"name": "coarse/diffusion", "weights": "a" * 16, "licence": "A"}
    for name, plan in (
        ("fine", {"licence": "A", "weights_sha256": "b" * 64, "started_from": start}),
        ("coarse", {"licence": "A", "weights_sha256": "a" * 64}),
    ):
        write_json(tmp_path / name / "model.json", plan)
        write_json(tmp_path / name / "provenance.json", {"outputs": {}})
    state_licence([tmp_path / "fine", tmp_path / "coarse"], "B")
    fine, coarse = (read_json(tmp_path / name / "model.json") for name in ("fine", "coarse"))
    assert fine["licence"] == coarse["licence"] == fine["started_from"]["licence"] == "B"


def test_terms_that_came_from_two_places_are_said_once_each() -> None:
    assert terms("X", {"licence": "X; started from Y"}) == "X; started from Y"
