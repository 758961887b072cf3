"""Sampling: the same noise where it should be, the right classes, and pictures that open."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline_lib.dataset.conditions import Conditions
from pipeline_lib.errors import UserError
from pipeline_lib.files import sha256_file
from pipeline_lib.inference.chunks import read_index
from pipeline_lib.inference.denoise import load_denoiser
from pipeline_lib.inference.generation import sample_generation
from pipeline_lib.inference.restore import reconstruct
from pipeline_lib.inference.sampling import Wanted, draw_samples, held_out_people, kept_averages, wanted_samples
from pipeline_lib.inference.synthesis import _same_noise, sample_synthesis

TOLD = pd.DataFrame({"group": ["A", "B"], "age": [20.0, 80.0], "slice": [0.0, 10.0]})


def test_generation_samples_checkpoints_from_the_same_noise(
    make_recipe: Callable, make_denoiser: Callable, tmp_path: Path
) -> None:
    recipe = make_recipe("generation", checkpoints=2)
    diffusion = make_denoiser(recipe, ["z"], channels=1, steps=(10, 20, 30))
    sample_generation(recipe, diffusion, [], tmp_path / "out")
    steps = sorted(path.name for path in (tmp_path / "out").glob("step-*"))
    assert steps == ["step-00000010", "step-00000030"]
    first = np.load(tmp_path / "out/step-00000010/samples.npy")
    final = np.load(tmp_path / "out/samples.npy")
    assert first.shape == final.shape == (5, 1, 16, 16)
    assert not np.allclose(first, final)
    # Networks differ by little and start from the same noise, so samples of one number are alike.
    apart = ((first[:, None] - final[None]) ** 2).mean(axis=(2, 3, 4))
    assert (apart.argmin(axis=1) == np.arange(5)).all()


@pytest.mark.parametrize("task", ["generation", "synthesis"])
def test_a_checkpoint_that_is_the_finished_model_is_not_sampled_again(
    task: str,
    make_recipe: Callable,
    make_denoiser: Callable,
    make_chunk: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = make_recipe(task, condition=["group"], checkpoints=2).model_copy(update={"autoencoder": None})
    people = [make_chunk("test-anat-0001", list("ab"))]
    diffusion = make_denoiser(recipe, ["z"], channels=1, steps=(10, 20))
    last = diffusion / "checkpoints" / "step-00000020.safetensors"
    last.write_bytes((diffusion / "model.safetensors").read_bytes())
    sample = {"generation": sample_generation, "synthesis": sample_synthesis}[task]
    loaded: list[str] = []
    module = f"pipeline_lib.inference.{task}.load_denoiser"
    monkeypatch.setattr(module, lambda recipe, path: loaded.append(path.name) or load_denoiser(recipe, path))
    sample(recipe, diffusion, people, tmp_path / "out")
    assert loaded == ["diffusion", "step-00000010.safetensors"]
    again = np.load(tmp_path / "out/step-00000020/samples.npy")
    np.testing.assert_array_equal(again, np.load(tmp_path / "out/samples.npy"))


def test_generation_is_reproducible_and_animated(
    make_recipe: Callable, make_denoiser: Callable, tmp_path: Path
) -> None:
    recipe = make_recipe("generation")
    diffusion = make_denoiser(recipe, ["z"], channels=1)
    for name in ("one", "two"):
        sample_generation(recipe, diffusion, [], tmp_path / name)
    for name in ("samples.npy", "reverse.gif", "reverse.png", "grid.png", "samples.tsv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    with Image.open(tmp_path / "one/reverse.gif") as animation:
        assert animation.n_frames == 4
        assert animation.width >= 96


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_samples_do_not_depend_on_the_batch_size(sampler: str, make_recipe: Callable, make_denoiser: Callable) -> None:
    recipe = make_recipe("generation", sampler=sampler)
    diffusion = make_denoiser(recipe, ["z"], channels=1)
    wanted = wanted_samples(recipe, Conditions(), pd.DataFrame())
    drawn = [
        draw_samples(load_denoiser(recipe_of, diffusion), (1, 16, 16), wanted)
        for recipe_of in (make_recipe("generation", sampler=sampler, batch_size=size) for size in (1, 5))
    ]
    np.testing.assert_allclose(drawn[0], drawn[1], atol=1e-3)


def test_generation_is_told_what_held_out_people_have(make_recipe: Callable, make_chunk: Callable) -> None:
    """Group, age and slice jointly, each person and slice as often as there are."""
    chunk = make_chunk("test-anat-0001", list("abcd"))
    recipe = make_recipe("generation", condition=["group", "age", "slice"], count=16)
    people = held_out_people(recipe, [chunk])
    wanted = wanted_samples(recipe, Conditions.fitted(recipe.denoiser.condition, TOLD), people)
    found = wanted.table[["group", "age", "slice"]].value_counts().to_dict()
    assert found == {
        (group, age, place): 2 for group, age in zip("ABAB", (30, 35, 40, 45), strict=True) for place in (0, 5)
    }
    assert set(wanted.cells) == {"A", "B"}
    assert wanted.table["seed"].nunique() == wanted.table["id"].nunique() == 16
    assert wanted.condition is not None
    np.testing.assert_allclose(wanted.condition[:, 1], (wanted.table["age"].to_numpy(float) - 50) / 30, rtol=1e-5)


def test_values_are_varied_and_the_rest_follows_each_groups_people(make_recipe: Callable, make_chunk: Callable) -> None:
    chunk = make_chunk("test-anat-0001", list("abcd"))
    recipe = make_recipe("synthesis", condition=["group", "age", "slice"], count=4, conditions={"slice": [0, 10]})
    conditions = Conditions.fitted(recipe.denoiser.condition, TOLD)
    wanted = wanted_samples(recipe, conditions, held_out_people(recipe, [chunk]))
    table = wanted.table
    assert list(wanted.cells) == ["A, slice 0", "A, slice 10", "B, slice 0", "B, slice 10"]
    for (group, place), rows in table.groupby(["group", "slice"]):
        assert sorted(rows["age"]) == ([30, 30, 40, 40] if group == "A" else [35, 35, 45, 45])
        first = table["seed"][:4] if place == 0 else table["seed"][4:8]
        assert rows["seed"].tolist() == first.tolist(), "the same noise for each group at a slice"
    assert table["seed"].nunique() == 8, "another noise at another slice"
    assert table["id"][5] == "syn-A-slice-10-0002"
    with pytest.raises(UserError, match="no held-out image to draw age after"):
        wanted_samples(recipe, conditions, pd.DataFrame())
    fixed = make_recipe("synthesis", condition=["group", "age"], count=1, conditions={"age": [25, 70]})
    assert len(wanted_samples(fixed, Conditions.fitted(["group", "age"], TOLD), pd.DataFrame()).table) == 4


@pytest.mark.parametrize(("groups", "slices", "sets"), [(2, 3, 3), (2, 26, 6), (14, 0, 1), (1, 4, 0)])
def test_what_the_same_noise_gives_is_compared_however_many_combinations_there_are(
    groups: int, slices: int, sets: int
) -> None:
    levels = range(slices) if slices else [None]
    rows = [
        {"cell": f"{group}, {level}", "seed": 10 * (level or 0) + number}
        for group in range(groups)
        for level in levels
        for number in range(2)
    ]
    wanted = Wanted(pd.DataFrame(rows), (), None)
    found = _same_noise(wanted, {cell: np.zeros((2, 1, 4, 4), np.float32) for cell in wanted.cells})
    assert len(found) == sets
    assert all(2 <= len(cells) <= 12 for cells in found)


@pytest.mark.parametrize("latent", [True, False])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_synthesis_draws_each_group_from_the_same_noise(
    dimensions: int, latent: bool, make_recipe: Callable, make_denoiser: Callable, make_autoencoder: Callable,
    make_chunk: Callable, tmp_path: Path,
) -> None:  # fmt: skip
    told = ["group", "slice"] if dimensions == 2 else ["group"]
    values = {"slice": [0, 7.5]} if dimensions == 2 else {}
    recipe = make_recipe(
        "synthesis", dimensions=dimensions, condition=told, guidance=2.0, count=3, conditions=values, others="every"
    )
    diffusion = make_denoiser(recipe, ["z"], channels=3 if latent else 1, steps=(10,))
    autoencoder = make_autoencoder("image", ["z"], dimensions=dimensions) if latent else None
    if not latent:
        recipe = recipe.model_copy(update={"autoencoder": None})
    people = [make_chunk("test-anat-0001", list("ab"), dimensions=dimensions)]
    sample_synthesis(recipe, diffusion, people, tmp_path / "out", autoencoder)
    table = pd.read_csv(tmp_path / "out/samples.tsv", sep="\t")
    images = np.load(tmp_path / "out/samples.npy")
    combinations = 4 if dimensions == 2 else 2
    assert images.shape == (3 * combinations, 1, *[16] * dimensions)
    early = np.load(tmp_path / "out/step-00000010/samples.npy")
    assert early.shape == images.shape
    assert not np.allclose(early, images), "another network's, from the same noise"
    assert np.abs(images).max() <= 1
    assert table["group"].tolist() == ["A"] * len(table[table["group"] == "A"]) + ["B"] * (len(table) // 2)
    assert table["seed"].tolist() == table["seed"][: len(table) // 2].tolist() * 2
    assert table["seed"].nunique() == len(table) // 2, "another noise at another slice"
    assert not np.allclose(images[:3], images[-3:])
    expected = {"grid.png", "conditions.png", "reverse.gif", "reverse.png", "png", "nifti"}
    assert expected <= {path.name for path in (tmp_path / "out").iterdir()}

    for number, (image, entry) in enumerate(zip(images, table.to_dict("records"), strict=True)):
        path = tmp_path / "out/nifti" / f"{entry['id']}_desc-synthetic_FLAIR.nii.gz"
        about = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
        assert about["Synthetic"] is True
        assert about["Conditions"] == {name: entry[name] for name in told}
        assert (about["Guidance"], about["Seed"]) == (2.0, entry["seed"])
        assert about["Model"]["sha256"] == sha256_file(diffusion / "model.safetensors")
        assert about["SpatialReference"] == "MNI152"
        volume = nibabel.load(path)
        assert volume.header["sform_code"] == 4
        expected_affine = np.diag([2.0, 2, 2, 1])
        expected_affine[2, 3] = entry.get("slice", 0)
        np.testing.assert_allclose(volume.affine, expected_affine)
        np.testing.assert_allclose(volume.get_fdata().reshape(image.shape[1:]), (image[0] + 1) / 2, atol=1e-6)
        with Image.open(tmp_path / "out/png" / f"{entry['id']}.png") as picture:
            assert picture.text["Synthetic"] == "True"
            if dimensions == 2:
                np.testing.assert_allclose(np.asarray(picture) / 255, (images[number, 0] + 1) / 2, atol=1 / 255)


def test_a_volume_that_nobody_shares_a_grid_with_says_so(
    make_recipe: Callable, make_denoiser: Callable, make_autoencoder: Callable, tmp_path: Path
) -> None:
    recipe = make_recipe("synthesis", dimensions=3, condition=["group"], count=1)
    model, autoencoder = make_denoiser(recipe, ["z"], channels=3), make_autoencoder("image", ["z"], dimensions=3)
    sample_synthesis(recipe, model, [], tmp_path / "out", autoencoder)
    path = next((tmp_path / "out/nifti").glob("*.json"))
    assert "origin in the middle" in json.loads(path.read_text())["SpatialReference"]


def test_samples_are_told_apart_by_each_of_their_conditions(make_recipe: Callable, make_denoiser: Callable) -> None:
    """The same noise, one value changed at a time."""
    recipe = make_recipe(
        "generation", condition=["group", "age"], count=1, conditions={"group": ["A", "B"], "age": [30, 60]}
    )
    denoiser = load_denoiser(recipe, make_denoiser(recipe, ["z"], channels=1))
    images = draw_samples(denoiser, (1, 16, 16), wanted_samples(recipe, denoiser.conditions, pd.DataFrame()))
    for one in range(4):
        for other in range(one):
            assert not np.allclose(images[one], images[other], atol=1e-4)


def test_anomaly_maps_are_told_each_images_own_conditions(
    make_recipe: Callable, make_denoiser: Callable, make_chunk: Callable
) -> None:
    """Changing the age of one image changes its reconstruction and no other; its slice is told, too."""
    recipe = make_recipe("anomaly", condition=["age", "slice"])
    denoiser = load_denoiser(recipe, make_denoiser(recipe, ["z"], channels=1))
    chunk = make_chunk("test-anat-0001", list("ab"))
    images, index = np.load(chunk / "data.npy"), read_index(chunk)
    older = index.copy()
    older.loc[1, "age"] = 75.0
    before, after = (reconstruct(denoiser, images, rows) for rows in (index, older))
    np.testing.assert_allclose(np.delete(before, 1, axis=0), np.delete(after, 1, axis=0), atol=1e-5)
    assert not np.allclose(before[1], after[1], atol=1e-4)
    told = denoiser.told(index)
    assert told is not None
    np.testing.assert_allclose(told[:, 1], [-1, 0, -1, 0], atol=1e-6)


def test_kept_averages_are_spread_evenly_with_first_and_last(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for step in range(10):
        (tmp_path / "checkpoints" / f"step-{step:08d}.safetensors").touch()
    assert [int(path.stem[5:]) for path in kept_averages(tmp_path, 4)] == [0, 3, 6, 9]
    assert len(kept_averages(tmp_path, 20)) == 10
    assert kept_averages(tmp_path / "none", 4) == []
