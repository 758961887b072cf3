"""Counterfactuals: against the closed form of a Gaussian whose mean is the condition, and what is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from pipeline_lib.config.schema import SamplingOptions
from pipeline_lib.dataset.conditions import Conditions
from pipeline_lib.diffusion.process import make_process
from pipeline_lib.inference.counterfactual import _chosen, make_counterfactuals, values_of
from pipeline_lib.inference.denoise import Denoiser
from pipeline_lib.noise.gaussian import GaussianNoise

STEPS = 200
DEVIATION = 0.3
PROCESS = {"schedule": "cosine", "timesteps": 1000, "prediction": "x0"}


class Ideal(nn.Module):
    """E[x0 | x_t] of images that are normal with a standard deviation of .3 about a mean that is the condition."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(()))
        self.process = make_process(**PROCESS)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None, concat: Tensor | None = None) -> Tensor:
        assert condition is not None
        abar = torch.tensor([self.process.abar(int(each)) for each in t]).reshape(-1, 1, 1, 1).float()
        mean = condition[:, :1, None, None]
        gain = DEVIATION**2 * abar.sqrt() / (abar * DEVIATION**2 + 1 - abar)
        return mean + gain * (x - abar.sqrt() * mean)


def test_another_condition_moves_a_scan_by_the_difference_of_the_means() -> None:
    """The flow from noise to images is linear, x0 = mean + .3 noise, so that what a scan has of its own stays."""
    sampling = SamplingOptions(sampler="ddim", steps=STEPS)
    denoiser = Denoiser(Ideal(), {}, make_process(**PROCESS), GaussianNoise(), sampling, clip=False)
    own, other = torch.full((3, 1), 0.2), torch.full((3, 1), -0.4)
    scans = 0.2 + DEVIATION * torch.randn(3, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    noise = denoiser.invert(scans, own, corrections=1)
    assert float((noise - (scans - 0.2) / DEVIATION).abs().max()) < 0.05
    streams = denoiser.streams([0, 1, 2])
    returned = denoiser.denoise(noise, condition=own, streams=streams)
    changed = denoiser.denoise(noise, condition=other, streams=streams)
    assert float((returned - scans).abs().max()) < 5e-3
    assert float((changed - (scans - 0.6)).abs().max()) < 0.02


def test_scans_are_made_again_and_say_what_they_are(
    make_recipe: Callable, make_chunk: Callable, make_denoiser: Callable, tmp_path: Path
) -> None:
    values = {"autoencoder": None, "data": {"size": [16, 16], "modality": "FLAIR"}}
    recipe = make_recipe("synthesis", condition=["age", "slice"], counterfactuals=3, conditions={"age": [30, 70]})
    recipe = type(recipe).model_validate(recipe.model_dump() | values)
    chunk = make_chunk("test-anat-0001", list("abcde"))
    diffusion = make_denoiser(recipe, ["z"], channels=1)
    out = tmp_path / "out"
    make_counterfactuals(recipe, diffusion, [chunk], out)
    people = pd.read_csv(out / "counterfactuals_age.tsv", sep="\t")
    assert list(people["participant"]) == ["a", "c", "e"], "evenly over their ages"
    assert list(people["own"]) == [30, 40, 50]
    scans, returned, changed = (np.load(out / "age" / f"{name}.npy") for name in ("scans", "returned", "changed"))
    assert scans.shape == returned.shape == (3, 1, 16, 16)
    assert changed.shape == (3, 2, 1, 16, 16)
    errors = np.abs(returned - scans).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(people["mean_absolute_error"], errors, rtol=1e-5)
    # Somebody of 30 made again at 30 is the round trip.
    np.testing.assert_allclose(changed[0, 0], returned[0], atol=1e-5)
    assert json.loads((out / "counterfactuals.json").read_text()) == {"age": [30.0, 70.0]}

    image = nibabel.load(out / "nifti/a_FLAIR_age-70_desc-counterfactual_FLAIR.nii.gz")
    np.testing.assert_allclose(image.get_fdata().squeeze(), (changed[0, 1, 0] + 1) / 2, atol=1e-6)
    np.testing.assert_array_equal(image.affine, json.loads(pd.read_csv(chunk / "index.tsv", sep="\t")["affine"][0]))
    about = json.loads((out / "nifti/a_FLAIR_age-70_desc-difference_FLAIR.json").read_text())
    assert about["Synthetic"] is True
    assert (about["Conditions"], about["OwnCondition"], about["Sources"]) == ({"age": 70.0}, 30.0, ["a_FLAIR"])
    with Image.open(out / "png/a_FLAIR_age-70.png") as picture:
        assert picture.text["Synthetic"] == "True"
    assert (out / "counterfactuals_age.png").is_file()


def test_every_condition_but_the_slice_is_changed_in_turn(
    make_recipe: Callable, make_chunk: Callable, make_denoiser: Callable, tmp_path: Path
) -> None:
    recipe = make_recipe(
        "synthesis", condition=["group", "age", "slice"], counterfactuals=2, conditions={"age": [30, 70]}
    )
    values = {"autoencoder": None, "data": {"size": [16, 16], "modality": "FLAIR"}}
    recipe = type(recipe).model_validate(recipe.model_dump() | values)
    diffusion = make_denoiser(recipe, ["z"], channels=1)
    make_counterfactuals(recipe, diffusion, [make_chunk("test-anat-0001", list("abcde"))], tmp_path / "out")
    asked = json.loads((tmp_path / "out/counterfactuals.json").read_text())
    assert asked["age"] == [30.0, 70.0]
    assert set(asked) == {"age", "group"}
    for name, of in asked.items():
        assert np.load(tmp_path / "out" / name / "changed.npy").shape == (2, len(of), 1, 16, 16)
        assert len(pd.read_csv(tmp_path / "out" / f"counterfactuals_{name}.tsv", sep="\t")) == 2


def test_of_several_contrasts_each_image_is_named_after_its_own(
    make_recipe: Callable, make_chunk: Callable, make_denoiser: Callable, tmp_path: Path
) -> None:
    asked = {"age": [70], "modality": ["T1w", "FLAIR"]}
    recipe = make_recipe("synthesis", condition=["age", "modality", "slice"], counterfactuals=2, conditions=asked)
    data = {"size": [16, 16], "modality": ["T1w", "FLAIR"]}
    recipe = type(recipe).model_validate(recipe.model_dump() | {"autoencoder": None, "data": data})
    chunk = make_chunk("test-anat-0001", ["a", "b"])
    index = pd.read_csv(chunk / "index.tsv", sep="\t").assign(modality=["T1w", "T1w", "FLAIR", "FLAIR"])
    index["scan"] = index["participant"]
    index.to_csv(chunk / "index.tsv", sep="\t", index=False)
    make_counterfactuals(recipe, make_denoiser(recipe, ["z"], channels=1), [chunk], tmp_path / "out")
    made = {path.name for path in (tmp_path / "out" / "nifti").glob("*_desc-counterfactual_*.nii.gz")}
    assert made == {
        "a_age-70_desc-counterfactual_T1w.nii.gz",
        "b_age-70_desc-counterfactual_FLAIR.nii.gz",
        *(
            f"{person}_modality-{contrast}_desc-counterfactual_{contrast}.nii.gz"
            for person in "ab"
            for contrast in ("T1w", "FLAIR")
        ),
    }


def test_a_model_that_is_told_nothing_of_people_has_none(
    make_recipe: Callable, make_chunk: Callable, make_denoiser: Callable, tmp_path: Path
) -> None:
    recipe = make_recipe("generation", condition=["slice"])
    make_counterfactuals(
        recipe, make_denoiser(recipe, ["z"], channels=1), [make_chunk("test-anat-0001", ["a"])], tmp_path / "out"
    )
    assert json.loads((tmp_path / "out/counterfactuals.json").read_text()) == {}


def test_values_are_those_asked_for_or_spread_over_the_training_set(make_recipe: Callable) -> None:
    told = pd.DataFrame({"group": ["A", "B"] * 50, "age": np.linspace(20, 80, 100)})
    group, age = Conditions.fitted(["group", "age"], told)
    recipe = make_recipe("synthesis", condition=["group", "age"])
    assert values_of(group, recipe) == ("A", "B")
    assert values_of(age, recipe) == pytest.approx((26, 38, 50, 62, 74), abs=0.2)
    asked = make_recipe("synthesis", condition=["group", "age"], conditions={"age": [25, 60]})
    assert values_of(age, asked) == (25, 60)


def test_the_middle_slice_of_each_person_is_taken() -> None:
    told = pd.DataFrame({"age": [20.0, 80.0]})
    (age,) = Conditions.fitted(["age"], told)
    rows = [
        {"scan": person, "participant": person, "age": years, "slice": place}
        for person, years in (("a", 70.0), ("b", 30.0), ("c", float("nan")))
        for place in (-10, 0, 10, 20, 30)
    ]
    chosen = _chosen(pd.DataFrame(rows), age, 8)
    assert list(chosen["participant"]) == ["b", "a"]
    assert list(chosen["slice"]) == [10, 10]
