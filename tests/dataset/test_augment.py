"""Augmentation, against SciPy's own interpolation and closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from pipeline_lib.config.load import load_config
from pipeline_lib.config.schema import AugmentOptions, RecipeOptions
from pipeline_lib.dataset.augment import Augmentation, augmentation, rotation
from pipeline_lib.errors import UserError

ALL = {"flip": True, "rotate": 6.0, "scale": 0.07, "shift": 0.04, "gamma": 0.2}


def blobs(*spatial: int, seed: int = 0) -> torch.Tensor:
    """A smooth image in [-1, 1] (1, *spatial), background -1 at the border."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(spatial), 3)
    window = np.ones(spatial)
    for axis, n in enumerate(spatial):
        shape = [n if a == axis else 1 for a in range(len(spatial))]
        window = window * np.clip(np.sin(np.pi * (np.arange(n) + 0.5) / n) * 2 - 0.6, 0, 1).reshape(shape)
    unit = window * (noise - noise.min()) / np.ptp(noise)
    return torch.from_numpy((unit * 2 - 1).astype(np.float32))[None]


@pytest.mark.parametrize("spatial", [(40, 32), (24, 28, 20)])
def test_one_interpolation_does_what_scipy_does(spatial: tuple[int, ...]) -> None:
    image = blobs(*spatial)
    augment = Augmentation(seed=5, rotate=10, scale=0.1, shift=0.05)
    moved = augment({"image": image}, position=3, index=7, left_right=None)["image"]
    _, matrix, shift, _ = augment._drawn(np.random.default_rng((5, 3, 7)), spatial)
    middle = (np.array(spatial) - 1) / 2
    offset = middle - matrix @ (middle + shift)
    wanted = ndimage.affine_transform(image[0].numpy() + 1, matrix, offset, order=1, mode="constant") - 1
    np.testing.assert_allclose(moved[0].numpy(), wanted, atol=2e-4)
    assert np.abs(moved[0].numpy() - image[0].numpy()).max() > 0.1


@pytest.mark.parametrize("angles", [[0.3], [0.1, -0.2, 0.4]])
def test_a_rotation_keeps_lengths_and_sides(angles: list[float]) -> None:
    turn = rotation(np.array(angles))
    np.testing.assert_allclose(turn @ turn.T, np.eye(len(turn)), atol=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1)
    if len(angles) == 1:
        assert turn[1, 0] == pytest.approx(np.sin(0.3))


def test_what_is_drawn_fills_the_ranges_and_no_more() -> None:
    augment = Augmentation(seed=0, **ALL)
    drawn = [augment._drawn(np.random.default_rng((0, draw, 0)), (112, 96)) for draw in range(2000)]
    matrices = np.array([matrix for _, matrix, _, _ in drawn])
    angles = np.degrees(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    scales = 1 / np.sqrt(np.linalg.det(matrices))
    shifts = np.array([shift for _, _, shift, _ in drawn]) / (112, 96)
    exponents = np.log2([exponent for *_, exponent in drawn])
    for values, middle, most in ((angles, 0, 6), (scales, 1, 0.07), (shifts, 0, 0.04), (exponents, 0, 0.2)):
        assert np.abs(values - middle).max() <= most + 1e-9
        assert np.abs(values - middle).max() > 0.98 * most
        assert np.std(values) == pytest.approx(most / np.sqrt(3), rel=0.05), "uniform"
    assert np.mean([flip for flip, *_ in drawn]) == pytest.approx(0.5, abs=0.05)


def test_every_array_moves_alike_and_masks_stay_masks() -> None:
    image = blobs(40, 32)
    mask = (image > -0.2).float()
    sample = {
        "image": image,
        "target": torch.cat([image] * 2),
        "mask": mask,
        "group": torch.tensor(1),
    }
    moved = Augmentation(seed=1, **ALL)(sample, position=2, index=0, left_right=1)
    assert torch.equal(moved["target"][:1], moved["image"]), "no gamma where there is a target"
    assert torch.equal(moved["target"][0], moved["target"][1])
    assert set(moved["mask"].unique().tolist()) <= {0.0, 1.0}
    assert (moved["mask"] - (moved["image"] > -0.2).float()).abs().mean() < 0.02
    assert moved["group"] is sample["group"]
    assert torch.equal(sample["image"], image), "the sample itself is left alone"


def test_a_flip_alone_is_exact_and_only_along_left_and_right() -> None:
    image = blobs(16, 12)
    augment = Augmentation(seed=0, flip=True)
    seen = [augment({"image": image}, position=draw, index=0, left_right=1)["image"] for draw in range(20)]
    assert {torch.equal(each, image.flip(2)) for each in seen} == {True, False}
    assert all(torch.equal(each, image) or torch.equal(each, image.flip(2)) for each in seen)
    assert all(
        torch.equal(augment({"image": image}, position=draw, index=0, left_right=None)["image"], image)
        for draw in range(20)
    )


def test_gamma_bends_the_middle_and_leaves_the_ends() -> None:
    image = torch.tensor([[[-1.0, -0.5, 0.0, 1.0]]])
    changed = Augmentation(seed=3, gamma=1.0)({"image": image}, position=0, index=0, left_right=None)["image"][0, 0]
    assert (changed[0], changed[3]) == (-1, 1)
    exponents = torch.log2(torch.log((changed[1:3] + 1) / 2) / torch.log((image[0, 0, 1:3] + 1) / 2))
    assert exponents[0] == pytest.approx(float(exponents[1]), abs=1e-4)
    assert 0 < abs(float(exponents[0])) <= 1


def test_a_part_switched_off_leaves_the_others_as_they_were() -> None:
    spatial = (40, 32)
    every, fewer = Augmentation(seed=1, **ALL), Augmentation(seed=1, **(ALL | {"flip": False, "rotate": 0.0}))
    for draw in range(5):
        one, two = (each._drawn(np.random.default_rng((1, draw, 0)), spatial) for each in (every, fewer))
        np.testing.assert_array_equal(one[2], two[2])
        assert one[3] == two[3]


def test_nothing_asked_for_is_no_augmentation() -> None:
    assert augmentation(AugmentOptions(flip=False, rotate=0, scale=0, shift=0, gamma=0), 3) is None
    assert augmentation(AugmentOptions(shift=0.04), 3) == Augmentation(seed=3, shift=0.04)


def recipe(**values: Any) -> RecipeOptions:
    return load_config({"recipes": {"it": values}}).recipes["it"]


@pytest.mark.parametrize(
    ("values", "chosen"),
    [
        ({"task": "anomaly"}, ALL),
        ({"task": "generation", "denoiser": {"training": {"augment": True}}}, ALL | {"gamma": 0}),
        ({"task": "generation", "denoiser": {"training": {"augment": {"rotate": 2}}}}, ALL | {"rotate": 2, "gamma": 0}),
        ({"task": "generation", "denoiser": {"training": {"augment": False}}}, dict.fromkeys(ALL, 0)),
        ({"task": "generation", "data": {"modality": "image"}}, dict.fromkeys(ALL, 0)),
        ({"task": "synthesis", "autoencoder": {}}, dict.fromkeys(ALL)),
    ],
)
def test_the_task_fills_in_what_is_not_said(values: dict[str, Any], chosen: dict[str, Any]) -> None:
    options = recipe(**values)
    assert options.denoiser.training.augment.model_dump() == chosen
    assert RecipeOptions.model_validate_json(options.model_dump_json()) == options, "a stage reads what was planned"


def test_an_autoencoder_is_augmented_and_a_pair_keeps_its_sides() -> None:
    assert recipe(task="synthesis", autoencoder={}).autoencoder.training.augment.flip
    data = {"modality": "dwi", "target": "noddi", "dimensions": 3, "size": [32, 32, 32]}
    pair = recipe(task="translation", data=data, autoencoder={"kind": "vqgan"}).autoencoder.training.augment
    assert (pair.flip, pair.rotate, pair.gamma) == (False, 6, 0)


@pytest.mark.parametrize("augment", [True, {"rotate": 3}])
def test_augmenting_latents_is_refused_in_one_line(augment: Any) -> None:
    with pytest.raises(
        UserError, match=r"denoiser\.training\.augment: read only where the denoiser learns images"
    ) as refused:
        recipe(task="synthesis", autoencoder={}, denoiser={"training": {"augment": augment}})
    assert "\n" not in str(refused.value)


def test_the_published_affine_can_be_written() -> None:
    published = {"flip": False, "rotate": 2, "scale": 0.02, "shift": 0.02, "gamma": 0}
    options = recipe(task="anomaly", denoiser={"training": {"augment": published}}).denoiser.training.augment
    drawn = augmentation(options, 0)
    assert drawn == Augmentation(seed=0, rotate=2, scale=0.02, shift=0.02)
