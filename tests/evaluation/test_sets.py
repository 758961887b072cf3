"""Evaluation of generated sets: the floor stands beside every distance, copies are found, groups are kept apart."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline_lib.bundle_plan import find_bundle
from pipeline_lib.bundles.bundle import load_bundle, save_bundle
from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.dataset.prepared import PREPARED
from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.features import feature_network
from pipeline_lib.evaluation.generation import evaluate_generation
from pipeline_lib.evaluation.sets import FLOOR, HELD_OUT, TRAINING
from pipeline_lib.evaluation.synthesis import evaluate_synthesis
from pipeline_lib.files import read_json, write_json
from pipeline_lib.metrics.distribution import extract
from pipeline_lib.models.autoencoder import KLAutoencoder

PEOPLE = [f"t{n}" for n in range(12)]
OTHERS = [f"h{n}" for n in range(8)]


def recipe(task: str, dimensions: int = 2, features: str = "random", **sampling: Any) -> RecipeOptions:
    values: dict[str, Any] = {
        "task": task,
        "data": {"dimensions": dimensions, "size": [64] * dimensions},
        "sampling": sampling,
        "evaluation": {"bootstrap": 20, "features": features},
    }
    if task == "synthesis":
        values["autoencoder"] = {"channels": [8, 8]}
    return RecipeOptions.model_validate(values)


def rows_of(folder: Path, name: str, **about: Any) -> list[dict[str, Any]]:
    rows = read_json(folder / "metrics.json")
    about = {"against": ""} | about
    return [r for r in rows if r["name"] == name and all(r[key] == value for key, value in about.items())]


def write_table_of(samples: Path, number: int) -> None:
    table = pd.DataFrame({"id": [f"syn-{n}" for n in range(number)], "group": "all", "seed": range(number)})
    table.to_csv(samples / "samples.tsv", sep="\t", index=False)


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
    write_table_of(samples, len(good))
    return {"diffusion": make_model(PEOPLE), "samples": samples, "train": [train], "held_out": [held_out]}


def test_distances_fall_with_training_and_stand_beside_the_floor(generated: dict[str, Any], tmp_path: Path) -> None:
    evaluate_generation(recipe("generation"), **generated, out=tmp_path / "out")
    for name in ("FID", "KID"):
        steps = {row["step"]: row for row in rows_of(tmp_path / "out", name, role="checkpoint")}
        assert steps[10]["value"] > 2 * steps[20]["value"]
        (floor,) = rows_of(tmp_path / "out", name, role="floor", method=FLOOR)
        (final,) = rows_of(tmp_path / "out", name, role="result")
        assert final["value"] == pytest.approx(steps[20]["value"])
        assert floor["images"] == final["images"] == 8
        assert "random-conv-64 (seed 0), standardised" in final["note"]
        assert "N = 8 against halves of 8 held-out people (16 images)" in final["note"]
        assert floor["low"] <= floor["value"] <= floor["high"]
    shares = {row["step"] for row in rows_of(tmp_path / "out", "share of suspected copies", role="checkpoint")}
    assert shares == {10, 20}, "at every kept checkpoint"


def test_copies_of_the_training_set_are_not_nearer_to_held_out_people_than_real_ones(
    generated: dict[str, Any], tmp_path: Path
) -> None:
    """They reach the reference, and the distance to training, where they are best, is not a goal."""
    copies = np.load(generated["train"][0] / "data.npy")[:16]
    np.save(generated["samples"] / "samples.npy", copies)
    write_table_of(generated["samples"], len(copies))
    evaluate_generation(recipe("generation"), **generated, out=tmp_path / "out")
    (result,) = rows_of(tmp_path / "out", "FID", role="result")
    (reference,) = rows_of(tmp_path / "out", "FID", method=TRAINING)
    (floor,) = rows_of(tmp_path / "out", "FID", role="floor")
    assert result["value"] == pytest.approx(reference["value"], rel=0.25)
    assert result["value"] > 0.7 * floor["value"]
    (near,) = rows_of(tmp_path / "out", "FID to training images", role="result")
    (others,) = rows_of(tmp_path / "out", "FID to training images", method=HELD_OUT)
    assert near["value"] < others["value"]
    assert near["direction"] == "neither"


def test_differences_to_the_floor_are_paired_over_the_same_halves(generated: dict[str, Any], tmp_path: Path) -> None:
    evaluate_generation(recipe("generation"), **generated, out=tmp_path / "out")
    for name in ("FID", "KID", "precision", "coverage"):
        (floor,) = rows_of(tmp_path / "out", name, role="floor")
        (final,) = rows_of(tmp_path / "out", name, role="result")
        (difference,) = rows_of(tmp_path / "out", name, against=FLOOR)
        assert difference["value"] == pytest.approx(final["value"] - floor["value"], abs=1e-9)
        assert difference["people"] == 8


def test_people_and_their_halves_of_one_distribution_are_no_different(
    make_images: Callable, make_model: Callable, tmp_path: Path
) -> None:
    """Samples that are real, new people: the interval of the difference to the floor holds 0."""
    train = make_images("train-anat-0001", [f"t{n}" for n in range(40)], seed=1)
    held_out = make_images("test-anat-0001", [f"h{n}" for n in range(40)], seed=2)
    (tmp_path / "samples").mkdir()
    new = np.load(make_images("new", [f"n{n}" for n in range(40)], seed=5) / "data.npy")
    np.save(tmp_path / "samples/samples.npy", new)
    write_table_of(tmp_path / "samples", len(new))
    out = tmp_path / "out"
    evaluate_generation(recipe("generation"), make_model([]), tmp_path / "samples", [train], [held_out], out)
    for name in ("FID", "KID"):
        (difference,) = rows_of(out, name, against=FLOOR)
        assert difference["low"] < 0 < difference["high"]


def test_a_flipped_training_image_is_named(generated: dict[str, Any], tmp_path: Path) -> None:
    final = np.load(generated["samples"] / "samples.npy")
    final[4] = np.load(generated["train"][0] / "data.npy")[9][:, :, ::-1]
    np.save(generated["samples"] / "samples.npy", final)
    evaluate_generation(recipe("generation"), **generated, out=tmp_path / "out")
    closest = pd.read_csv(tmp_path / "out/nearest.tsv", sep="\t").iloc[0]
    assert (closest["sample"], closest["nearest_scan"], closest["slice"]) == ("sample 5", "t4_FLAIR", 1)
    assert closest["suspected_copy"]
    (share,) = rows_of(tmp_path / "out", "share of suspected copies", role="result")
    (real,) = rows_of(tmp_path / "out", "share of suspected copies", method=HELD_OUT)
    assert share["value"] >= 0.1
    assert real["people"] == 8
    (ratio,) = rows_of(tmp_path / "out", "suspected copies, samples over held-out images")
    if found := re.search(r"([0-9.]+)% of 16 held-out images", ratio["note"]):  # images over images
        assert ratio["value"] == pytest.approx(100 * share["value"] / float(found[1]), rel=0.01)
    else:
        assert (ratio["value"], "no held-out image suspected" in ratio["note"]) == (None, True)


def test_a_feature_network_is_taken_from_a_file_and_named_by_its_hash(
    generated: dict[str, Any], tmp_path: Path
) -> None:
    class Means(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.avg_pool2d(images, 16).flatten(1)

    path = tmp_path / "means.pt"
    torch.jit.save(torch.jit.script(Means()), path)
    evaluate_generation(recipe("generation", features=str(path)), **generated, out=tmp_path / "out")
    (final,) = rows_of(tmp_path / "out", "FID", role="result")
    assert f"means (sha256 {hashlib.sha256(path.read_bytes()).hexdigest()[:12]});" in final["note"]
    images = np.load(generated["samples"] / "samples.npy").reshape(-1, 2, 16, 2, 16).mean((2, 4)).reshape(-1, 4)
    features = extract(
        feature_network(str(path), dimensions=2, channels=1), np.load(generated["samples"] / "samples.npy")
    )
    np.testing.assert_allclose(features, images, atol=1e-6)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_an_own_encoder_gives_features(dimensions: int, tmp_path: Path) -> None:
    architecture = {"dimensions": dimensions, "in_channels": 1, "channels": [8, 8], "latent_channels": 2, "blocks": 1}
    encoder = KLAutoencoder(**architecture)
    save_bundle(tmp_path / "vae", encoder, kind="autoencoder", architecture=architecture, info={"scale": [1.0, 2.0]})
    network = feature_network(str(tmp_path / "vae"), dimensions=dimensions, channels=1)
    images = np.random.default_rng(0).uniform(-1, 1, (3, 1, *[8] * dimensions)).astype(np.float32)
    with torch.no_grad():
        mean = encoder.eval().encode(torch.from_numpy(images))[0]
    scale = torch.tensor([1.0, 2.0]).reshape(1, 2, *[1] * dimensions)
    np.testing.assert_allclose(extract(network, images), (mean * scale).flatten(1), atol=1e-5)
    assert network.name.startswith("encoder vae (sha256 ")
    with pytest.raises(UserError, match=f"encodes {dimensions}D images"):
        feature_network(str(tmp_path / "vae"), dimensions=5 - dimensions, channels=1)


def test_a_segmenter_gives_features_of_its_bottleneck() -> None:
    network = feature_network("ventricles-t1", dimensions=2, channels=1)
    assert network.name.startswith("segmenter ventricles-t1 (sha256 ")
    images = np.random.default_rng(0).uniform(-1, 1, (3, 1, 48, 32)).astype(np.float32)
    module, _ = load_bundle("ventricles-t1")
    with torch.no_grad():
        maps = module.bottleneck(torch.from_numpy(images), torch.zeros(3))
    assert maps.shape[2:] == (3, 2), "folded by 4 and halved twice"
    expected = np.concatenate([maps.mean((2, 3)), maps.flatten(2).std(2, correction=0)], axis=1)
    np.testing.assert_allclose(extract(network, images), expected, atol=1e-5)
    assert np.isfinite(extract(network, images[:, :, :8, :8])).all(), "a bottleneck of one pixel"
    with pytest.raises(UserError, match="encodes 2D images"):
        feature_network("ventricles-t1", dimensions=3, channels=1)
    with pytest.raises(UserError, match="reads images of one channel"):
        feature_network("ventricles-t1", dimensions=2, channels=3)
    with pytest.raises(UserError, match="generator-t1 is a denoiser; give an autoencoder or a segmenter"):
        feature_network("generator-t1", dimensions=2, channels=1)
    with pytest.raises(UserError, match="brain is a brain extraction; give an autoencoder or a segmenter"):
        feature_network("brain", dimensions=3, channels=1)


def test_a_segmenter_gives_no_features_of_images_that_were_prepared_otherwise(
    generated: dict[str, Any], tmp_path: Path
) -> None:
    prepared = read_json(find_bundle("ventricles-t1") / "model.json")["prepared"]
    prepared["preprocess"]["voxel_size"] = 1.0
    for chunk in generated["held_out"]:
        write_json(chunk / PREPARED, prepared)
    with pytest.raises(
        UserError, match=r"evaluation.features: ventricles-t1 learned from images that were prepared otherwise"
    ):
        evaluate_generation(recipe("generation", features="ventricles-t1"), **generated, out=tmp_path / "out")


def test_a_feature_network_that_is_none_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("no network")
    for choice, said in ((str(tmp_path / "text.pt"), "no TorchScript file"), (str(tmp_path / "nowhere"), "not found")):
        with pytest.raises(UserError, match=said):
            feature_network(choice, dimensions=2, channels=1)


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
    (samples / "step-00000010").mkdir(parents=True)
    np.save(samples / "samples.npy", np.load(make_images("s", PEOPLE[:6], seed=3, dimensions=dimensions) / "data.npy"))
    np.save(samples / "step-00000010/samples.npy", np.load(train / "data.npy")[:12])
    names = [f"syn-{group}-{n + 1:04d}" for group in "AB" for n in range(6)]
    table = pd.DataFrame({"id": names, "group": [name[4] for name in names], "seed": range(12)})
    table.to_csv(samples / "samples.tsv", sep="\t", index=False)
    out = tmp_path / "out"
    evaluate_synthesis(recipe("synthesis", dimensions), make_model(PEOPLE), samples, [train], [held_out], out)
    for group, number in (("all", 8), ("A", 4), ("B", 4)):
        (row,) = rows_of(out, "FID", group=group, role="result")
        (floor,) = rows_of(out, "FID", group=group, role="floor")
        assert row["images"] == floor["images"] == number
    (early,) = rows_of(out, "share of suspected copies", role="checkpoint")
    assert (early["step"], early["value"]) == (10, 1.0), "training images, given back at a checkpoint"
    assert len(pd.read_csv(out / "per_subject.tsv", sep="\t")) == 8
    assert {"nearest.npz", "nearest.tsv", "metrics.tsv"} <= {path.name for path in out.iterdir()}


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
    assert "4 people" in row["note"]
