"""A trained network: what each condition changes, alone and together, and what its strip shows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.dataset.conditions import Conditions
from pipeline_lib.diffusion.guidance import guided, null_condition
from pipeline_lib.files import read_json, write_json
from pipeline_lib.inference.denoise import Denoiser, load_denoiser
from pipeline_lib.training.denoiser import DenoiserStep, process_of, train_denoiser

SIDE = 8
HORIZONTAL = "bar"
SHAPES = {HORIZONTAL: (slice(3, 5), slice(1, 7)), "post": (slice(1, 7), slice(3, 5))}
"""Of a group, in the background of 0: where its pixels are bright."""


def shapes_of_ages(folder: Path, people: int = 60) -> Path:
    """A chunk in which the group is the shape of an image and the age its brightness: .1 at 20 to .9 at 80 years."""
    folder.mkdir()
    rng = np.random.default_rng(len(folder.name))
    rows, images = [], []
    for person in range(people):
        group, age = list(SHAPES)[person % 2], float(rng.uniform(20, 80))
        image = np.full((1, SIDE, SIDE), -1.0, np.float32)
        image[(0, *SHAPES[group])] = brightness(age)
        images.append(image)
        rows.append({"scan": f"s{person}", "participant": f"p{person}", "session": "", "group": group, "age": age,
                     "sex": "", "site": "", "covariates": "", "sha256": "", "slice": "", "has_lesion": "false",
                     "affine": ""})  # fmt: skip
    np.save(folder / "data.npy", np.stack(images))
    np.save(folder / "mask.npy", np.ones((people, 1, SIDE, SIDE), np.uint8))
    pd.DataFrame(rows).to_csv(folder / "index.tsv", sep="\t", index=False)
    write_json(folder / "layout.json", {"dimensions": 2, "size": [SIDE, SIDE], "left_right": None})
    write_json(folder / "prepared.json", {"preprocess": None, "data": {"size": [SIDE, SIDE]}})
    return folder


def brightness(age: float) -> float:
    return -0.8 + 1.6 * (age - 20) / 60


RECIPE = RecipeOptions.model_validate(
    {
        "task": "generation",
        "data": {"size": [SIDE, SIDE]},
        "diffusion": {"timesteps": 100, "prediction": "x0"},
        "denoiser": {
            "channels": [16, 32],
            "blocks": 1,
            "attention": [False, True],
            "condition": ["group", "age"],
            "drop_condition": 0.2,
            "training": {
                "steps": 350,
                "batch_size": 16,
                "learning_rate": 3e-3,
                "warmup": 20,
                "ema": 0.98,
                "augment": False,
                "validate_every": 250,
            },
        },
        "sampling": {"steps": 10, "guidance": 1.0},
    }
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conditions")
    chunks = [shapes_of_ages(folder / name) for name in ("train-anat-0001", "validation-anat-01")]
    torch.set_num_threads(1)
    train_denoiser(RECIPE, chunks[:1], chunks[1:], folder / "out", folder / "state", {})
    return folder / "out"


def drawn(denoiser: Denoiser, asked: list[dict[str, str | float]]) -> np.ndarray:
    """Samples (N, side, side), all from the same eight noises in turn."""
    streams = denoiser.streams([n % 8 for n in range(len(asked))])
    noise = streams((len(asked), 1, SIDE, SIDE))
    images = denoiser.denoise(noise, condition=denoiser.told(pd.DataFrame(asked)), streams=streams)
    return images[:, 0].numpy()


def inside(images: np.ndarray, group: str) -> np.ndarray:
    """Mean of each image in a group's shape, where it is not the other's too."""
    mine, other = np.zeros((SIDE, SIDE), bool), np.zeros((SIDE, SIDE), bool)
    mine[SHAPES[group]] = True
    other[SHAPES[next(name for name in SHAPES if name != group)]] = True
    return images[:, mine & ~other].mean(axis=1)


def test_two_conditions_together_have_effects_of_their_own(trained: Path) -> None:
    """Age changes the brightness and not the shape, the group the shape and not the brightness."""
    denoiser = load_denoiser(RECIPE, trained)
    for group in SHAPES:
        other = next(name for name in SHAPES if name != group)
        for age in (30.0, 50.0, 70.0):
            images = drawn(denoiser, [{"group": group, "age": age}] * 8)
            assert inside(images, group).mean() == pytest.approx(brightness(age), abs=0.12)
            assert inside(images, other).mean() < -0.9


def test_one_condition_may_be_left_open(trained: Path) -> None:
    """Without an age the shape is still the group's, without a group the brightness still the age's, in either shape."""
    denoiser = load_denoiser(RECIPE, trained)
    for group in SHAPES:
        images = drawn(denoiser, [{"group": group}] * 8)
        other = next(name for name in SHAPES if name != group)
        assert (inside(images, group) - inside(images, other)).min() > 0.4
    young, old = (
        np.stack([inside(drawn(denoiser, [{"age": age}] * 8), group) for group in SHAPES]) for age in (25.0, 75.0)
    )
    assert (old.max(axis=0) - young.max(axis=0)).mean() > 0.5
    assert {int(shape) for shape in old.argmax(axis=0)} == {0, 1}


def test_null_is_what_hidden_conditions_are(trained: Path) -> None:
    """A missing value, a hidden one and no condition at all are one for the network, and guidance 0 is all of them."""
    denoiser = load_denoiser(RECIPE, trained)
    x, t = torch.randn(3, 1, SIDE, SIDE), torch.tensor([5, 50, 90])
    missing = denoiser.conditions.encode(pd.DataFrame({"group": ["", "?", ""], "age": [float("nan")] * 3}))
    with torch.no_grad():
        plain = denoiser.network(x, t)
        assert torch.equal(denoiser.network(x, t, missing), plain)
        known = denoiser.conditions.encode(pd.DataFrame({"group": [*SHAPES, HORIZONTAL], "age": [30.0] * 3}))
        assert torch.equal(denoiser.network(x, t, null_condition(known)), plain)
        assert torch.equal(guided(denoiser.network, known, 0.0)(x, t), plain)
        assert not torch.allclose(denoiser.network(x, t, known), plain, atol=1e-3)


def test_the_model_keeps_its_encoding_and_says_what_its_strip_shows(trained: Path) -> None:
    conditions = Conditions.of(read_json(trained / "model.json"))
    assert conditions.names == ("group", "age")
    assert conditions[0].categories == tuple(sorted(SHAPES))
    assert 20 <= conditions[1].quantiles[0] < conditions[1].quantiles[-1] <= 80
    strip = pd.read_csv(trained / "strip.tsv", sep="\t")
    assert strip["group"].tolist() == ["bar", "bar", "post", "post"] * 2
    assert strip["age"].nunique() == 2


def test_the_strip_shows_what_it_asks_for(trained: Path) -> None:
    """Each of its pictures has the shape of its group and the brightness of its age."""
    denoiser = load_denoiser(RECIPE, trained)
    shown, process = {"image": torch.zeros(1, 1, SIDE, SIDE)}, process_of(RECIPE, RECIPE.data.size)
    network = denoiser.network
    step = DenoiserStep(network, RECIPE, process, None, None, shown, denoiser.conditions)  # type: ignore[arg-type]
    strip = pd.read_csv(trained / "strip.tsv", sep="\t")
    images = step.strip(network)[:, 0].numpy()
    assert len(images) == len(strip) == 8
    for image, asked in zip(images, strip.to_dict("records"), strict=True):
        assert inside(image[None], asked["group"])[0] == pytest.approx(brightness(asked["age"]), abs=0.3)


def test_what_the_model_keeps_is_plain_json(trained: Path) -> None:
    kept = json.loads((trained / "model.json").read_text())["conditions"]
    assert [entry["kind"] for entry in kept] == ["category", "number"]
