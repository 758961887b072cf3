"""Embedding: few points are placed, groups that differ are told apart, people do not leak between folds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline_lib.files import read_json
from pipeline_lib.inference.denoise import load_denoiser
from pipeline_lib.inference.embedding import bottleneck, embed, probe, project
from pipeline_lib.inference.synthesis import sample_synthesis
from pipeline_lib.training.latents import encode_chunk
from pipeline_lib.training.steps import seed_of


def cohort(people: int, images: int) -> pd.DataFrame:
    return pd.DataFrame([{"participant": f"p{n}", "group": "AB"[n % 2]} for n in range(people) for _ in range(images)])


def test_a_group_difference_is_found_and_not_by_chance() -> None:
    index = cohort(40, 3)
    features = np.random.default_rng(0).normal(size=(120, 30))
    features[index["group"] == "B", 0] += 6
    found = probe(features, index, "group", seed=0)
    assert found["auc"] > 0.9
    assert found["p_value"] < 0.005
    assert (found["people"], found["classes"]) == (40, "A, B")


def test_p_values_are_uniform_where_nothing_differs_but_people_are_known() -> None:
    """Every image shows its person plainly; by slice the AUC would be 1. Of 20 cohorts about 1 has p < .05."""
    index = cohort(16, 4)
    found = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        own = {person: rng.normal(size=10) * 5 for person in index["participant"].unique()}
        features = np.stack([own[person] + rng.normal(size=10) * 0.1 for person in index["participant"]])
        found.append(probe(features, index, "group", seed))
    p = np.array([one["p_value"] for one in found])
    assert (p < 0.05).sum() <= 4
    assert 0.3 < p.mean() < 0.7
    assert 0.35 < np.mean([one["auc"] for one in found]) < 0.65


def test_the_auc_is_that_of_scikit_learn_fold_by_fold() -> None:
    """Two classes, one of them rarer, no permutation: Ridge, then roc_auc_score of each fold."""
    index = cohort(25, 2)
    rng = np.random.default_rng(3)
    features = rng.normal(size=(50, 6))
    features[:, 0] += index["group"] == "A"
    means = pd.DataFrame(features).groupby(index["participant"]).mean().to_numpy()
    labels = index.groupby("participant")["group"].first().to_numpy(dtype=str)
    expected = []
    for fitted, tested in StratifiedKFold(5, shuffle=True, random_state=4).split(means, labels):
        model = make_pipeline(StandardScaler(), Ridge(alpha=6)).fit(means[fitted], labels[fitted] == "A")
        expected.append(roc_auc_score(labels[tested] == "A", model.predict(means[tested])))
    assert probe(features, index, "group", seed=4)["auc"] == pytest.approx(np.mean(expected))


def test_several_sites_are_told_one_against_the_rest() -> None:
    index = cohort(30, 2).assign(site=lambda rows: ["xyz"[int(person[1:]) % 3] for person in rows["participant"]])
    features = np.random.default_rng(0).normal(size=(60, 5))
    features[:, 0] += index["site"].map({"x": 0, "y": 8, "z": 16})
    assert probe(features, index, "site", seed=0)["auc"] > 0.7
    assert probe(features[:, 1:], index, "site", seed=0)["auc"] < 0.75


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        (cohort(1, 4), "two classes"),
        (cohort(3, 2), "two people or more in each; B has one"),
        (cohort(4, 1).assign(group=""), "two classes"),
    ],
)
def test_what_cannot_be_classified_is_said(index: pd.DataFrame, reason: str) -> None:
    found = probe(np.random.default_rng(0).normal(size=(len(index), 4)), index, "group", seed=0)
    assert found["auc"] is None
    assert reason in found["note"]


@pytest.mark.parametrize("number", [1, 2, 3, 5, 6, 9, 40])
def test_any_number_of_points_is_placed(number: int) -> None:
    features = np.random.default_rng(0).normal(size=(number, 12)).astype(np.float32)
    points, method = project(features, seed=0)
    assert points.shape == (number, 2)
    assert np.isfinite(points).all()
    assert ("UMAP" in method) == (number >= 6)


@pytest.mark.parametrize("latent", [True, False])
def test_embedding_of_real_images_and_samples(
    latent: bool, make_recipe: Callable, make_chunk: Callable, make_denoiser: Callable, make_autoencoder: Callable,
    tmp_path: Path,
) -> None:  # fmt: skip
    recipe = make_recipe("synthesis", condition=["group", "age"], count=2)
    autoencoder = make_autoencoder("image", ["z"]) if latent else None
    if not latent:
        recipe = recipe.model_copy(update={"autoencoder": None})
    chunks = []
    for split, people in (("train", "abcdef"), ("test", "ghij")):
        name = f"{split}-anat-0001"
        chunks.append(make_chunk(name, list(people)))
        if autoencoder is not None:
            encode_chunk({"image": autoencoder}, chunks[-1], tmp_path / "latents" / name)
            chunks[-1] = tmp_path / "latents" / name
    diffusion = make_denoiser(recipe, ["z"], channels=3 if latent else 1)
    sample_synthesis(recipe, diffusion, chunks[1:], tmp_path / "samples", autoencoder)
    for out in ("out", "again"):
        embed(recipe, diffusion, chunks, tmp_path / out, autoencoder, tmp_path / "samples")
    table = pd.read_csv(tmp_path / "out/embedding.tsv", sep="\t", keep_default_na=False)
    assert table["split"].value_counts().to_dict() == {"train": 12, "test": 8, "sample": 4}
    spaces = ["latents", "bottleneck"] if latent else ["bottleneck"]
    assert all(np.isfinite(table[f"{space}_x"]).all() for space in spaces)
    probes = pd.read_csv(tmp_path / "out/probes.tsv", sep="\t")
    assert probes["space"].tolist() == [space for space in spaces for _ in range(2)]
    by_group = probes[probes["label"] == "group"]
    assert by_group["people"].tolist() == [10] * len(spaces)
    assert by_group["auc"].between(0, 1).all()
    assert probes[probes["label"] == "site"]["note"].str.contains("two classes").all()
    result = read_json(tmp_path / "out/embedding.json")
    assert result["n_points"] == 24
    assert result["noise"]["share_of_signal"] == pytest.approx(0.9, abs=0.05)
    assert all(0 <= share <= 1 for share in result["samples_classified_as_their_group"].values())
    for name in ("embedding.tsv", "probes.tsv", "embedding.png"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_the_bottleneck_is_told_nothing_of_an_image(make_recipe: Callable, make_denoiser: Callable) -> None:
    """The same image under two labels has the same features, those of the network without a condition."""
    recipe = make_recipe("generation", condition=["group"])
    denoiser = load_denoiser(recipe, make_denoiser(recipe, ["z"], channels=1))
    image = torch.rand(1, 1, 16, 16).expand(2, -1, -1, -1)
    index = pd.DataFrame({"scan": ["s", "s"], "slice": [1.0, 1.0], "group": ["A", "B"]})
    features, t = bottleneck(denoiser, image, index, seed=0)
    np.testing.assert_array_equal(features[0], features[1])
    noise = denoiser.streams([seed_of(0, "s", 1.0)])((1, 1, 16, 16))
    noisy = denoiser.process.forward_diffusion(image[:1], noise, torch.tensor([t]))
    with torch.no_grad():
        bottom = denoiser.network.bottleneck(noisy, torch.tensor([t]))
    assert bottom.shape == (1, 8, 8, 8)
    expected = bottom.unflatten(3, (2, 4)).unflatten(2, (2, 4)).mean(dim=(3, 5)).flatten(1)
    np.testing.assert_allclose(features[:1], expected.numpy(), rtol=1e-4, atol=1e-6)
