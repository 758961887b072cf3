"""Evaluation of generated sets: the floor stands beside every distance, copies are found, groups are kept apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.errors import UserError
from pipeline_lib.files import read_json
from pipeline_lib.metrics.compare_sets import FLOOR
from pipeline_lib.metrics.evaluate_generation import evaluate_generation
from pipeline_lib.metrics.evaluate_synthesis import evaluate_synthesis

PEOPLE = [f"t{n}" for n in range(12)]
OTHERS = [f"h{n}" for n in range(8)]


def recipe(task: str, dimensions: int = 2, **sampling: Any) -> RecipeOptions:
    values: dict[str, Any] = {
        "task": task,
        "data": {"dimensions": dimensions, "size": [64] * dimensions},
        "sampling": sampling,
        "evaluation": {"bootstrap": 20},
    }
    if task == "synthesis":
        values["autoencoder"] = {"channels": [8, 8]}
    return RecipeOptions.model_validate(values)


def rows_of(folder: Path, name: str, **about: str) -> list[dict[str, Any]]:
    rows = read_json(folder / "metrics.json")
    return [r for r in rows if r["name"] == name and all(r[key] == value for key, value in about.items())]


@pytest.fixture
def generated(make_images: Callable, make_model: Callable, tmp_path: Path) -> dict[str, Any]:
    """A training set, held-out people, and samples at two steps of which the first are far off."""
    train = make_images("train-anat-0001", PEOPLE, seed=1)
    held_out = make_images("test-anat-0001", OTHERS, seed=2)
    samples = tmp_path / "samples"
    good = np.load(make_images("other", PEOPLE[:5], seed=3) / "data.npy")
    bad = np.load(make_images("worse", PEOPLE[:5], seed=4, shift=0.5) / "data.npy")
    for name, images in (("step-00000010", bad), ("step-00000020", good), (".", good)):
        (samples / name).mkdir(parents=True, exist_ok=True)
        np.save(samples / name / "samples.npy", images)
    return {"diffusion": make_model(PEOPLE), "samples": samples, "train": [train], "held_out": [held_out]}


def test_distances_fall_with_training_and_stand_beside_the_floor(generated: dict[str, Any], tmp_path: Path) -> None:
    evaluate_generation(recipe("generation"), **generated, out=tmp_path / "out")
    for name in ("FID", "KID"):
        steps = {row["method"]: row for row in rows_of(tmp_path / "out", name) if "step" in row["method"]}
        assert steps["diffusion, step 10"]["value"] > 2 * steps["diffusion, step 20"]["value"]
        (floor,) = rows_of(tmp_path / "out", name, method=FLOOR)
        (final,) = rows_of(tmp_path / "out", name, method="diffusion")
        assert floor["n_images"] == final["n_images"] == 10
        assert "random-conv-64 (seed 0)" in final["note"]
        assert "N = 10 against 24 training images of 12 people" in final["note"]
        assert floor["low"] <= floor["value"] <= floor["high"]
    assert (tmp_path / "out/checkpoints.png").is_file()


def test_a_copied_training_image_is_named(generated: dict[str, Any], tmp_path: Path) -> None:
    final = np.load(generated["samples"] / "samples.npy")
    final[4] = np.load(generated["train"][0] / "data.npy")[9]
    np.save(generated["samples"] / "samples.npy", final)
    evaluate_generation(recipe("generation"), **generated, out=tmp_path / "out")
    closest = pd.read_csv(tmp_path / "out/nearest.tsv", sep="\t").iloc[0]
    assert (closest["sample"], closest["nearest_scan"], closest["slice"]) == ("sample 5", "t4_FLAIR", 1)
    assert closest["suspected_copy"]
    (share,) = rows_of(tmp_path / "out", "share of suspected copies")
    assert share["value"] == pytest.approx(0.1)


def test_held_out_people_who_were_in_training_are_refused(
    generated: dict[str, Any], make_model: Callable, tmp_path: Path
) -> None:
    generated["diffusion"] = make_model([*PEOPLE, "h3"])
    with pytest.raises(UserError, match="h3_FLAIR"):
        evaluate_generation(recipe("generation"), **generated, out=tmp_path / "out")
    evaluate_generation(recipe("generation", allow_trained_people=True), **generated, out=tmp_path / "out")
    assert all("people the model was trained on" in row["note"] for row in read_json(tmp_path / "out/metrics.json"))


def test_without_held_out_people_it_says_so(generated: dict[str, Any], tmp_path: Path) -> None:
    generated["held_out"] = []
    with pytest.raises(UserError, match="no real image to compare"):
        evaluate_generation(recipe("generation"), **generated, out=tmp_path / "out")


@pytest.mark.parametrize("dimensions", [2, 3])
def test_synthesis_by_group(dimensions: int, make_images: Callable, make_model: Callable, tmp_path: Path) -> None:
    train = make_images("train-anat-0001", PEOPLE, seed=1, dimensions=dimensions)
    held_out = make_images("test-anat-0001", OTHERS, seed=2, dimensions=dimensions)
    samples = tmp_path / "samples"
    samples.mkdir()
    np.save(samples / "samples.npy", np.load(make_images("s", PEOPLE[:6], seed=3, dimensions=dimensions) / "data.npy"))
    names = [f"syn-{group}-{n + 1:04d}" for group in "AB" for n in range(6)]
    table = pd.DataFrame({"id": names, "group": [name[4] for name in names], "seed": range(12)})
    table.to_csv(samples / "samples.tsv", sep="\t", index=False)
    out = tmp_path / "out"
    evaluate_synthesis(recipe("synthesis", dimensions), make_model(PEOPLE), samples, [train], [held_out], out)
    for group, number in (("all", 12), ("A", 6), ("B", 6)):
        (row,) = rows_of(out, "FID", group=group, method="latent diffusion")
        (floor,) = rows_of(out, "FID", group=group, method=FLOOR)
        assert row["n_images"] == floor["n_images"] == number
    assert len(pd.read_csv(out / "per_subject.tsv", sep="\t")) == 8
    assert {"nearest.png", "groups.png", "metrics.tsv"} <= {path.name for path in out.iterdir()}


def test_a_group_without_held_out_people_is_said_to_have_no_number(
    make_images: Callable, make_model: Callable, tmp_path: Path
) -> None:
    train, held_out = make_images("train-anat-0001", PEOPLE, seed=1), make_images("test-anat-0001", ["h0"], seed=2)
    samples = tmp_path / "samples"
    samples.mkdir()
    np.save(samples / "samples.npy", np.load(train / "data.npy")[:8] * 0.5)
    table = pd.DataFrame({"id": [f"s{n}" for n in range(8)], "group": "B", "seed": 0})
    table.to_csv(samples / "samples.tsv", sep="\t", index=False)
    out = tmp_path / "out"
    evaluate_synthesis(recipe("synthesis"), make_model(PEOPLE), samples, [train], [held_out], out)
    (row,) = rows_of(out, "FID", group="B")
    assert row["value"] is None
    assert "4 images or more" in row["note"]
