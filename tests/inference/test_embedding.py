"""Embedding: few points are placed, groups that differ are told apart, people do not leak between folds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.files import read_json
from pipeline_lib.inference.embedding import embed, project, separability
from pipeline_lib.inference.synthesis import sample_synthesis
from pipeline_lib.training.latents import encode_chunk


def cohort(people: int, images: int) -> pd.DataFrame:
    return pd.DataFrame([{"participant": f"p{n}", "group": "AB"[n % 2]} for n in range(people) for _ in range(images)])


def test_a_group_difference_is_found() -> None:
    index = cohort(20, 3)
    features = np.random.default_rng(0).normal(size=(60, 30))
    features[index["group"] == "B", 0] += 6
    found = separability(features, index, seed=0)
    assert found["balanced_accuracy"] > 0.9
    assert found["chance"] == 0.5


def test_knowing_the_person_does_not_help() -> None:
    index = cohort(20, 6)
    rng = np.random.default_rng(1)
    own = {person: rng.normal(size=30) * 5 for person in index["participant"].unique()}
    features = np.stack([own[person] + rng.normal(size=30) * 0.1 for person in index["participant"]])
    accuracies = [separability(features, index, seed)["balanced_accuracy"] for seed in range(5)]
    assert np.mean(accuracies) < 0.75, "by slice this would be 1"


@pytest.mark.parametrize(
    ("index", "reason"),
    [(cohort(1, 4), "two groups"), (cohort(3, 2), "two people"), (cohort(4, 1).assign(group=""), "two groups")],
)
def test_what_cannot_be_classified_is_said(index: pd.DataFrame, reason: str) -> None:
    found = separability(np.random.default_rng(0).normal(size=(len(index), 4)), index, seed=0)
    assert found["balanced_accuracy"] is None
    assert reason in found["note"]


@pytest.mark.parametrize("number", [1, 2, 3, 5, 6, 9, 40])
def test_any_number_of_points_is_placed(number: int) -> None:
    features = np.random.default_rng(0).normal(size=(number, 12)).astype(np.float32)
    points, method = project(features, seed=0)
    assert points.shape == (number, 2)
    assert np.isfinite(points).all()
    assert ("UMAP" in method) == (number >= 6)


def test_embedding_of_latents_and_samples(
    make_recipe: Callable, make_chunk: Callable, make_denoiser: Callable, make_autoencoder: Callable, tmp_path: Path
) -> None:
    recipe = make_recipe("synthesis", condition="group", count=2)
    autoencoder = make_autoencoder("image", ["z"])
    latents = []
    for split, people in (("train", "abcdef"), ("test", "ghij")):
        name = f"{split}-anat-0001"
        encode_chunk({"image": autoencoder}, make_chunk(name, list(people)), tmp_path / "latents" / name)
        latents.append(tmp_path / "latents" / name)
    sample_synthesis(recipe, make_denoiser(recipe, ["z"], channels=3), autoencoder, tmp_path / "samples")
    embed(recipe, autoencoder, latents, tmp_path / "samples", tmp_path / "out")
    table = pd.read_csv(tmp_path / "out/embedding.tsv", sep="\t", keep_default_na=False)
    assert table["split"].value_counts().to_dict() == {"train": 12, "test": 8, "sample": 4}
    result = read_json(tmp_path / "out/embedding.json")
    assert result["n_points"] == 24
    assert result["n_people"] == 10
    assert 0 <= result["balanced_accuracy"] <= 1
    assert 0 <= result["samples_classified_as_their_group"] <= 1
    embed(recipe, autoencoder, latents, tmp_path / "samples", tmp_path / "again")
    assert (tmp_path / "again/embedding.tsv").read_bytes() == (tmp_path / "out/embedding.tsv").read_bytes()
