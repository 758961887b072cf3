"""Scores in standard deviations of their place: against moments by hand, with few people, and through the stages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.errors import UserError
from pipeline_lib.inference.anomaly import infer_anomaly
from pipeline_lib.inference.chunks import read_index
from pipeline_lib.inference.denoise import load_denoiser
from pipeline_lib.inference.mapping import mapped
from pipeline_lib.inference.places import LEAST_DEVIATION, PRIOR_IMAGES, SIGMA, Places, levels_of
from pipeline_lib.inference.standards import measure_standards, read_places, read_standards

ALIKE = np.full(800, "FLAIR", dtype=object)


def test_many_images_of_known_moments_give_them_back() -> None:
    random = np.random.default_rng(0)
    left, right = (2.0, 3.0), (-1.0, 4.0)  # mean and deviation of two halves, far wider than the smoothing
    scores = np.empty((400, 1, 40, 20), np.float32)
    for half, (mean, deviation) in ((slice(0, 20), left), (slice(20, 40), right)):
        scores[:, :, half] = random.normal(mean, deviation, scores[:, :, half].shape)
    places = Places.of(scores, np.ones_like(scores, bool), np.zeros(400), ALIKE[:400])
    overall = scores.mean(), scores.var() + scores.mean() ** 2
    for row, (mean, deviation) in ((8, left), (31, right)):
        share = PRIOR_IMAGES / (400 + PRIOR_IMAGES)
        wanted = (1 - share) * mean + share * overall[0]
        square = (1 - share) * (mean**2 + deviation**2) + share * overall[1]
        assert places.mean[0, row, 10] == pytest.approx(wanted, abs=0.05)
        assert places.deviation[0, row, 10] == pytest.approx(np.sqrt(square - wanted**2), rel=0.03)
    standardised = places(scores, np.ones_like(scores, bool), np.zeros(400), ALIKE[:400])
    assert standardised[:, :, 8].mean() == pytest.approx(0, abs=0.05)
    assert standardised[:, :, 31].std() == pytest.approx(1, abs=0.05)


def test_moments_are_those_of_a_gaussian_neighbourhood() -> None:
    random = np.random.default_rng(1)
    scores = random.normal(size=(3, 1, 12, 10)).astype(np.float32)
    mask = random.uniform(size=scores.shape) > 0.3
    places = Places.of(scores, mask, [5.0, 5.0, 5.0], ALIKE[:3])
    weights = np.zeros((12, 10))
    weights[6, 4] = 1
    around = gaussian_filter(weights, SIGMA, mode="constant") * gaussian_filter([0.0] * 9 + [1.0] + [0.0] * 9, 1)[9]
    each = np.broadcast_to(around, (3, 12, 10))[mask[:, 0]]
    values, every = scores[mask].astype(float), scores[mask].astype(float)
    total = each.sum() + PRIOR_IMAGES
    mean = ((each * values).sum() + PRIOR_IMAGES * every.mean()) / total
    square = ((each * values**2).sum() + PRIOR_IMAGES * (every**2).mean()) / total
    assert places.mean[0, 6, 4] == pytest.approx(mean, rel=1e-4)
    assert places.deviation[0, 6, 4] == pytest.approx(np.sqrt(square - mean**2), rel=1e-4)


def test_few_people_that_agree_do_not_blow_a_score_up() -> None:
    scores = np.zeros((2, 1, 30, 30), np.float32)
    scores[:, :, 20:] = np.random.default_rng(0).normal(0, 2, (2, 1, 10, 30))
    mask = np.ones_like(scores, bool)
    places = Places.of(scores, mask, np.zeros(2), ALIKE[:2])
    least = LEAST_DEVIATION * float(scores.std())
    assert places.deviation.min() >= least * 0.999
    one = np.full((1, 1, 30, 30), 1.0, np.float32)
    assert np.abs(places(one, mask[:1], [0.0], ALIKE[:1])).max() <= (1 + np.abs(places.mean).max()) / least
    unseen = np.zeros_like(mask)
    unseen[:, :, :5, :5] = True
    far = Places.of(np.where(unseen, 3, scores), unseen | (np.arange(30) > 25), np.zeros(2), ALIKE[:2])
    assert np.isfinite(far.mean).all()
    assert np.isfinite(far.deviation).all(), "also where no brain was ever seen"


def test_each_level_of_slices_has_its_own_moments() -> None:
    levels = np.repeat([0.0, 30.0, 60.0, 90.0], 200)
    scores = np.random.default_rng(0).normal(levels[:, None, None, None] / 10, 1, (800, 1, 8, 8)).astype(np.float32)
    mask = np.ones_like(scores, bool)
    places = Places.of(scores, mask, levels, ALIKE)
    assert places.levels.tolist() == [0, 30, 60, 90]
    assert (np.diff(places.mean[:, 4, 4]) > 1).all()
    one = np.zeros((1, 1, 8, 8), np.float32)
    np.testing.assert_array_equal(places(one, mask[:1], [57.0], ALIKE[:1]), places(one, mask[:1], [60.0], ALIKE[:1]))
    hidden = places(one, np.zeros_like(one, bool), [0.0], ALIKE[:1])
    assert not hidden.any()


def test_a_contrast_that_was_never_seen_has_no_places() -> None:
    scores = np.random.default_rng(0).normal(size=(2, 1, 8, 8)).astype(np.float32)
    mask = np.ones_like(scores, bool)
    places = Places.of(scores, mask, np.zeros(2), ALIKE[:2])
    with pytest.raises(UserError, match="no healthy image of T1w among the standards by place, which are of FLAIR"):
        places(scores, mask, np.zeros(2), ["FLAIR", "T1w"])


def test_each_contrast_has_its_own_moments() -> None:
    contrasts = np.array(["FLAIR", "T1w"] * 200, dtype=object)
    means = np.where(contrasts == "T1w", -4.0, 4.0)
    scores = np.random.default_rng(0).normal(means[:, None, None, None], 1, (400, 1, 8, 8)).astype(np.float32)
    mask = np.ones_like(scores, bool)
    places = Places.of(scores, mask, np.zeros(400), contrasts)
    found = places(scores, mask, np.zeros(400), contrasts)
    for name in ("FLAIR", "T1w"):
        assert found[contrasts == name].mean() == pytest.approx(0, abs=0.1)
        assert found[contrasts == name].std() == pytest.approx(1, abs=0.1)


def test_pictures_and_volumes_have_no_levels() -> None:
    index = pd.DataFrame({"slice": [1, 2, ""], "affine": ["", "", "[[1]]"]})
    assert levels_of(index).tolist() == [0, 0, 0]
    assert levels_of(pd.DataFrame({"slice": ["-4", "6.5"], "affine": ["x", "x"]})).tolist() == [-4, 6.5]


def by_place(recipe: RecipeOptions, **weights: float) -> RecipeOptions:
    score: dict[str, Any] = {"levels": [1, 0.8], "residual": "signed", "weights": {"residual_by_place": 1.0, **weights}}
    evaluation = {"smoothing": "box", "smoothing_mm": 6, "score": score}
    return RecipeOptions.model_validate({**recipe.model_dump(exclude_unset=True), "evaluation": evaluation})


def test_the_map_stands_in_deviations_of_healthy_training_images(
    make_recipe: Callable, make_chunk: Callable, make_denoiser: Callable, tmp_path: Path
) -> None:
    recipe = by_place(make_recipe("anomaly"))
    diffusion = make_denoiser(recipe, ["z"], channels=1)
    train, test = make_chunk("train-anat-0001", ["x", "y", "z"], seed=1), make_chunk("test-anat-0001", ["a"], seed=2)
    standards = tmp_path / "standards"
    measure_standards(recipe, diffusion, [train], standards)
    assert read_standards(standards) == {}, "a single part has its own units"
    infer_anomaly(recipe, diffusion, standards, test, tmp_path / "out")

    denoiser = load_denoiser(recipe, diffusion)
    healthy, found = (mapped(recipe, denoiser, chunk, read_index(chunk)) for chunk in (train, test))
    places = Places.of(healthy.parts["residual_by_place"], healthy.mask, levels_of(read_index(train)), ALIKE[:6])
    wanted = places(found.parts["residual_by_place"], found.mask, levels_of(read_index(test)), ALIKE[:2])
    np.testing.assert_allclose(np.load(tmp_path / "out" / "maps.npy"), wanted, rtol=1e-4, atol=1e-4)
    assert len(places.levels) == 2

    (standards / "places.npz").unlink()
    with pytest.raises(UserError, match="places.npz is missing"):
        read_places(recipe, standards)


def test_beside_other_parts_it_has_a_unit_as_they_have(
    make_recipe: Callable, make_chunk: Callable, make_denoiser: Callable, tmp_path: Path
) -> None:
    recipe = by_place(make_recipe("anomaly"), intensity=2.0)
    diffusion = make_denoiser(recipe, ["z"], channels=1)
    train = make_chunk("train-anat-0001", ["x", "y", "z"], seed=1)
    measure_standards(recipe, diffusion, [train], tmp_path / "standards")
    units = read_standards(tmp_path / "standards")
    found = mapped(
        recipe,
        load_denoiser(recipe, diffusion),
        train,
        read_index(train),
        read_places(recipe, tmp_path / "standards"),
    )
    for name, part in found.parts.items():
        assert units[name].mean == pytest.approx(float(part[found.mask].mean()), abs=1e-4)
        assert units[name].deviation == pytest.approx(float(part[found.mask].std()), rel=1e-4)
