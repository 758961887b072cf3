"""A stage's function is called with the inputs of its rule, as its annotations say."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from tiny_chunks import PAIRED, packed

from pipeline_lib.files import read_json
from pipeline_lib.stage import run

CALLS: list[dict[str, object]] = []


def stage_of_a_task(
    recipe: object, model: Path, chunks: list[Path], roles: Mapping[str, Path], out: Path, extra: Path | None = None
) -> None:
    CALLS.append({"recipe": recipe, "model": model, "chunks": chunks, "roles": roles, "out": out, "extra": extra})


HERE = f"{__name__}:stage_of_a_task"


@pytest.fixture(autouse=True)
def _no_calls_yet() -> None:
    CALLS.clear()


def test_one_path_a_list_and_a_mapping() -> None:
    inputs = {"model": [Path("m")], "chunks": [Path("a")], "roles": [Path("x/source"), Path("x/target")]}
    run(HERE, "options", inputs, Path("out"))
    (call,) = CALLS
    assert call == {
        "recipe": "options", "model": Path("m"), "chunks": [Path("a")], "out": Path("out"), "extra": None,
        "roles": {"source": Path("x/source"), "target": Path("x/target")},
    }  # fmt: skip


def test_an_input_that_may_be_missing_is_one_path_where_there_is_one() -> None:
    run(HERE, "options", {"model": [Path("m")], "chunks": [], "roles": [], "extra": [Path("e")]}, Path("out"))
    assert CALLS[0]["extra"] == Path("e")


def test_an_input_of_which_there_is_none_is_none_or_empty() -> None:
    run(HERE, "options", {"model": [Path("m")], "chunks": [], "roles": [], "extra": []}, Path("out"))
    assert (CALLS[0]["extra"], CALLS[0]["chunks"], CALLS[0]["roles"]) == (None, [], {})


def test_two_folders_for_one_path_are_an_error() -> None:
    with pytest.raises(ValueError, match="too many values"):
        run(HERE, "options", {"model": [Path("m"), Path("n")], "chunks": [], "roles": []}, Path("out"))


def test_the_sidecar_names_the_folders_of_the_inputs_and_not_what_the_rule_calls_them(
    tmp_path: Path, repository: Path
) -> None:
    chunk = packed(tmp_path, "train-dmri-0001", [("a", "CN"), ("b", "AD")], PAIRED)
    options = {"task": "translation", "data": PAIRED.model_dump(mode="json")}
    words = ["workflow/scripts/run_stage.py", "floor", "--input", "train", chunk, "--options", json.dumps(options)]
    subprocess.run([sys.executable, *words, "--out", tmp_path / "floor"], cwd=repository, check=True, capture_output=True,
                   env={"PYTHONPATH": str(repository)})  # fmt: skip
    assert read_json(tmp_path / "floor" / "provenance.json")["inputs"] == [str(chunk)]
