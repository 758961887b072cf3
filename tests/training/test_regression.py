"""The regression of a translation and the diffusion of what it leaves, on pairs whose relation is known."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file
from tiny_chunks import PAIRED, packed

from pipeline_lib.bundles.regression import Regression
from pipeline_lib.config.schema import AugmentOptions, RecipeOptions
from pipeline_lib.dataset.augment import Augmentation
from pipeline_lib.dataset.packed import PackedDataset
from pipeline_lib.dataset.patches import PatchDataset
from pipeline_lib.files import read_json
from pipeline_lib.inference.translation import apply_floor, fit_floor, infer_translation
from pipeline_lib.training.denoiser import train_denoiser
from pipeline_lib.training.regression import train_regression
from pipeline_lib.training.residual import regress, residual_scale

TRAINING = {
    "steps": 40, "batch_size": 2, "learning_rate": 5e-3, "warmup": 2, "validate_every": 20, "checkpoint_every": 20,
    "augment": False,
}  # fmt: skip
DATA = PAIRED.model_copy(update={"size": [16, 16, 12], "voxel_size": 12.0})
NETWORK = {"channels": [8, 8], "blocks": 1, "fold": 2}


def recipe_of(**training: Any) -> RecipeOptions:
    return RecipeOptions.model_validate(
        {
            "task": "translation",
            "data": DATA.model_dump(),
            "regression": {**NETWORK, "patch": 8, "training": TRAINING | training},
            "diffusion": {"timesteps": 20, "prediction": "x0", "loss_weight": "v"},
            "denoiser": {
                **NETWORK, "attention": [False, True], "head_channels": 4, "training": TRAINING | {"steps": 4},
            },
            "sampling": {"steps": 3, "count": 3},
        }
    )  # fmt: skip


@pytest.fixture
def chunks(tmp_path: Path) -> dict[str, Path]:
    """Pairs whose target goes up and down with the source, which no linear fit does."""
    people = {"train": ["a", "b", "c"], "validation": ["v"], "test": ["x", "y"]}
    made = {}
    for split, names in people.items():
        made[split] = packed(tmp_path, f"{split}-dmri-0001", [(name, "A") for name in names], DATA)
        source = np.load(made[split] / "data.npy")
        mask = np.load(made[split] / "mask.npy") > 0
        np.save(made[split] / "target.npy", np.where(mask, 0.8 * np.cos(6 * source[:, ::-1]), -1).astype(np.float32))
    return made


@pytest.fixture
def regressed(chunks: dict[str, Path], tmp_path: Path) -> Callable[..., tuple[RecipeOptions, Path, Path]]:
    def make(**training: Any) -> tuple[RecipeOptions, Path, Path]:
        recipe, floor, out = recipe_of(**training), tmp_path / "floor", tmp_path / "regression"
        fit_floor(recipe, [chunks["train"]], floor)
        train_regression(recipe, [chunks["train"]], [chunks["validation"]], floor, out, tmp_path / "state")
        return recipe, floor, out

    return make


def predicted(chunk: Path, model: Path) -> np.ndarray:
    source, mask = (torch.from_numpy(np.load(chunk / f"{name}.npy")) for name in ("data", "mask"))
    return Regression(model, torch.device("cpu")).predict(source, mask).numpy()


def test_an_untrained_regression_is_the_floor(regressed: Callable, chunks: dict[str, Path]) -> None:
    _, floor, model = regressed(steps=1, learning_rate=1e-12)
    source, mask = (np.load(chunks["test"] / f"{name}.npy") for name in ("data", "mask"))
    expected = apply_floor(read_json(floor / "coefficients.json"), source, mask > 0)
    np.testing.assert_allclose(predicted(chunks["test"], model), expected, atol=1e-5)


def test_error_of_the_floor_is_its_mean_square(regressed: Callable, chunks: dict[str, Path]) -> None:
    _, floor, _ = regressed(steps=1)
    fitted = read_json(floor / "coefficients.json")
    source, target, mask = (np.load(chunks["train"] / f"{name}.npy") for name in ("data", "target", "mask"))
    inside = mask[:, 0] > 0
    linear = np.moveaxis(source, 1, -1)[inside] @ np.array(fitted["weights"]).T + fitted["intercept"]
    errors = ((linear - np.moveaxis(target, 1, -1)[inside]) ** 2).mean(0)
    np.testing.assert_allclose(fitted["error"], errors, rtol=1e-4)
    tissue = np.moveaxis(source, 1, -1)[inside]
    np.testing.assert_allclose(fitted["centre"], tissue.mean(0), rtol=1e-4)
    np.testing.assert_allclose(fitted["spread"], tissue.std(0), rtol=1e-4)


def test_training_goes_from_the_floor_downwards(regressed: Callable, chunks: dict[str, Path]) -> None:
    _, floor, model = regressed(steps=80)
    history = pd.read_csv(model / "history.csv")
    validated = history["validation_loss"].dropna()
    assert validated.iloc[-1] < validated.iloc[0]
    assert (model / "strip.png").is_file()
    info = read_json(model / "model.json")
    assert (info["kind"], info["role"], info["train_people"]) == ("regressor", "regression", 3)
    outside = np.load(chunks["test"] / "mask.npy").repeat(3, axis=1) == 0
    maps = predicted(chunks["test"], model)
    assert (maps[outside] == -1).all()
    assert np.abs(maps).max() <= 1
    source, target, mask = (np.load(chunks["test"] / f"{name}.npy") for name in ("data", "target", "mask"))
    linear = apply_floor(read_json(floor / "coefficients.json"), source, mask > 0)
    errors = [((each - target)[~outside] ** 2).mean() for each in (maps, linear)]
    assert errors[0] < 0.9 * errors[1]


def test_a_stopped_training_goes_on_bit_for_bit(
    regressed: Callable, chunks: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, floor, model = regressed(steps=8, checkpoint_every=4)
    kept = sorted((tmp_path / "state").glob("step-*"))
    for path in kept:
        if "00000008" in path.name:
            path.unlink()
    train_regression(recipe, [chunks["train"]], [chunks["validation"]], floor, tmp_path / "again", tmp_path / "state")
    one, other = (load_file(folder / "model.safetensors") for folder in (model, tmp_path / "again"))
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name])


def test_the_residual_has_unit_variance(regressed: Callable, chunks: dict[str, Path], tmp_path: Path) -> None:
    _, _, model = regressed(steps=4)
    files = regress(Regression(model, torch.device("cpu")), PackedDataset([chunks["train"]]), tmp_path / "kept")
    scale = residual_scale(PackedDataset([chunks["train"]], regressed=files))
    left = np.load(chunks["train"] / "target.npy") - predicted(chunks["train"], model)
    inside = np.load(chunks["train"] / "mask.npy")[:, 0] > 0
    np.testing.assert_allclose(scale, 1 / np.sqrt((np.moveaxis(left, 1, -1)[inside] ** 2).mean(0)), rtol=1e-4)


def test_draws_are_the_regression_and_a_residual(regressed: Callable, chunks: dict[str, Path], tmp_path: Path) -> None:
    recipe, floor, model = regressed(steps=4)
    diffusion = tmp_path / "diffusion"
    splits = [chunks["train"]], [chunks["validation"]]
    train_denoiser(recipe, *splits, diffusion, tmp_path / "denoiser-state", {}, regression=model)
    info = read_json(diffusion / "model.json")
    assert (info["architecture"]["in_channels"], info["architecture"]["out_channels"]) == (3 + 3 + 3, 3)
    assert (diffusion / "strip.png").is_file()
    out = tmp_path / "inference" / "test-dmri-0001"
    infer_translation(recipe, diffusion, {}, model, floor, chunks["test"], None, out)
    arrays = {path.stem: np.load(path) for path in out.glob("*.npy")}
    assert set(arrays) == {"prediction", "draw", "spread", "floor", "regression"}, "no ceiling without an autoencoder"
    np.testing.assert_allclose(arrays["regression"], predicted(chunks["test"], model), atol=1e-6)
    outside = np.load(chunks["test"] / "mask.npy").repeat(3, axis=1) == 0
    for name in ("prediction", "draw"):
        assert np.abs(arrays[name]).max() <= 1
        assert (arrays[name][outside] == -1).all()
    assert arrays["spread"][~outside].mean() > 0
    assert not arrays["spread"][outside].any()
    names = {path.name for path in (out / "nifti").glob("*.nii.gz")}
    assert names == {
        f"sub-{who}_desc-{what}_noddi.nii.gz" for who in "xy" for what in ("predicted", "error", "uncertainty")
    }

    one = recipe.model_copy(update={"sampling": recipe.sampling.model_copy(update={"count": 1, "batch_size": 1})})
    infer_translation(one, diffusion, {}, model, floor, chunks["test"], None, tmp_path / "one" / "test-dmri-0001")
    single = np.load(tmp_path / "one" / "test-dmri-0001" / "prediction.npy")
    np.testing.assert_allclose(single, arrays["draw"], atol=1e-5, err_msg="the first draw does not depend on how many")


def with_patches(recipe: RecipeOptions, **training: Any) -> RecipeOptions:
    whole = recipe.model_dump()
    whole["denoiser"] |= {"patch": 8, "attention": [False, False], "detail": 4}
    whole["denoiser"]["training"] |= training
    return RecipeOptions.model_validate(whole)


def test_what_the_regression_makes_is_computed_once_and_cut(
    regressed: Callable, chunks: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, model = regressed(steps=4)
    regression, images = Regression(model, torch.device("cpu")), PackedDataset([chunks["train"]])
    files = regress(regression, images, tmp_path / "kept")
    cut = {"patch": 8, "seed": 0, "augment": Augmentation(0, flip=True)}
    patches = PatchDataset([chunks["train"]], regressed=files, **cut)
    maps = torch.from_numpy(predicted(chunks["train"], model))
    for position in range(6):
        patch = patches.draw(1, position)
        assert patch["regression"].shape == (3, 8, 8, 8)
        found = [
            (maps[1] if not flip else maps[1].flip(1))[(slice(None), *(slice(at, at + 8) for at in corner))]
            for flip in (False, True)
            for corner in itertools.product(range(9), range(9), range(5))
        ]
        assert min(float((patch["regression"] - each).abs().max()) for each in found) < 1e-5
    monkeypatch.setattr(Regression, "predict", lambda *_: pytest.fail("it was computed again"))
    assert regress(regression, images, tmp_path / "kept") == files


def test_the_regression_stays_beside_its_target_however_images_are_moved(
    regressed: Callable, chunks: dict[str, Path], tmp_path: Path
) -> None:
    _, _, model = regressed(steps=4)
    files = regress(Regression(model, torch.device("cpu")), PackedDataset([chunks["train"]]), tmp_path / "kept")
    target = np.load(chunks["train"] / "target.npy")
    maps = np.lib.format.open_memmap(files[0], mode="r+")
    maps[:] = target
    moved = Augmentation(0, flip=True, rotate=10, scale=0.1, shift=0.1)
    images = PackedDataset([chunks["train"]], augment=moved, regressed=files)
    for position in range(4):
        sample = images.draw(0, position)
        torch.testing.assert_close(sample["regression"], sample["target"])


def test_other_weights_or_images_are_kept_apart(regressed: Callable, chunks: dict[str, Path], tmp_path: Path) -> None:
    _, _, model = regressed(steps=4)
    regression = Regression(model, torch.device("cpu"))
    first = regress(regression, PackedDataset([chunks["train"]]), tmp_path / "kept")
    nobody = regress(regression, PackedDataset([chunks["train"]], only_groups=["B"]), tmp_path / "kept")
    regression.digest = "of other weights"
    other = regress(regression, PackedDataset([chunks["train"]]), tmp_path / "kept")
    assert len({*first, *nobody, *other}) == 3
    assert not list((tmp_path / "kept").glob(".partial*"))


def test_a_denoiser_of_patches_draws_whole_images(regressed: Callable, chunks: dict[str, Path], tmp_path: Path) -> None:
    recipe, floor, model = regressed(steps=4)
    recipe = with_patches(recipe)
    diffusion, state = tmp_path / "diffusion", tmp_path / "denoiser-state"
    train_denoiser(recipe, [chunks["train"]], [chunks["validation"]], diffusion, state, {}, regression=model)
    assert not (state / "regression").exists(), "only kept while training lasts"
    assert read_json(diffusion / "model.json")["architecture"]["local"]
    infer_translation(recipe, diffusion, {}, model, floor, chunks["test"], None, tmp_path / "out" / "test-dmri-0001")
    assert np.load(tmp_path / "out" / "test-dmri-0001" / "draw.npy").shape == (2, 3, 16, 16, 12)


def test_a_denoiser_of_patches_goes_on_bit_for_bit(
    regressed: Callable, chunks: dict[str, Path], tmp_path: Path
) -> None:
    recipe, _, model = regressed(steps=4)
    recipe = with_patches(recipe, steps=8, checkpoint_every=4, augment=AugmentOptions(flip=True))
    state, splits = tmp_path / "denoiser-state", ([chunks["train"]], [chunks["validation"]])
    train_denoiser(recipe, *splits, tmp_path / "one", state, {}, regression=model)
    for path in state.glob("step-00000008*"):
        path.unlink()
    train_denoiser(recipe, *splits, tmp_path / "other", state, {}, regression=model)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "other"))
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name])


@pytest.mark.parametrize(
    ("denoiser", "regression", "said"),
    [
        ({"patch": 8}, True, "attention"),
        ({"patch": 6, "attention": [False, False]}, True, "not a multiple of 4"),
        ({"patch": 8, "attention": [False, False]}, False, "diffusion of what a regression leaves"),
    ],
)
def test_patches_that_cannot_be_are_refused(denoiser: dict[str, Any], regression: bool, said: str) -> None:
    whole = recipe_of().model_dump(exclude_unset=True)
    whole["denoiser"] |= denoiser
    if not regression:
        whole |= {"regression": None, "autoencoder": {}}
    with pytest.raises(ValueError, match=said):
        RecipeOptions.model_validate(whole)
