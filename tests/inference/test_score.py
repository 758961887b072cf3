"""Scores of several parts: each part by hand, its unit from healthy training images, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from skimage.metrics import structural_similarity

from pipeline_lib.config.schema import EvaluationOptions, RecipeOptions
from pipeline_lib.errors import UserError
from pipeline_lib.inference.anomaly import infer_anomaly
from pipeline_lib.inference.baselines import excess_map, intensity_map
from pipeline_lib.inference.chunks import read_index
from pipeline_lib.inference.denoise import Denoiser, load_denoiser
from pipeline_lib.inference.mapping import mapped
from pipeline_lib.inference.restore import restore
from pipeline_lib.inference.score import combined, difference, smoothed
from pipeline_lib.inference.standards import measure_standards, read_standards
from pipeline_lib.metrics.smoothing import smooth

WEIGHTS = {"residual": 1, "residual_asymmetry": 0.5, "intensity": 2, "intensity_asymmetry": 1}


def scored(recipe: RecipeOptions, **score: Any) -> RecipeOptions:
    values = recipe.model_dump(exclude_unset=True)
    evaluation = {"smoothing": "box", "smoothing_mm": 6, "score": {"levels": [1, 0.8, 0.5], "draws": 2} | score}
    return RecipeOptions.model_validate({**values, "evaluation": evaluation})


def test_a_mark_alone_goes_from_0_to_1_and_keeps_the_order_of_its_logits() -> None:
    logits = np.random.default_rng(0).normal(-4, 3, (2, 1, 8, 8)).astype(np.float32)
    mask = np.zeros(logits.shape, bool)
    mask[..., 2:6, 2:6] = True
    contrasts = np.full(2, "T1w", dtype=object)
    found = combined({"segmentation": logits}, mask, {"segmentation": 1}, {}, contrasts)
    np.testing.assert_allclose(found[mask], torch.sigmoid(torch.from_numpy(logits[mask])).numpy(), rtol=1e-5)
    assert not found[~mask].any()
    assert found[mask].min() > 0
    np.testing.assert_array_equal(np.argsort(found[mask]), np.argsort(logits[mask]))
    residual = np.where(mask, logits, 0)
    np.testing.assert_array_equal(combined({"residual": residual}, mask, {"residual": 1}, {}, contrasts), residual)


def test_an_image_does_not_depend_on_its_chunk(
    make_recipe: Callable, make_chunk: Callable, make_denoiser: Callable
) -> None:
    recipe = scored(make_recipe("anomaly"))
    denoiser = load_denoiser(recipe, make_denoiser(recipe, ["z"], channels=1))
    chunk = make_chunk("test-anat-0001", ["a", "b", "c"])
    images, index = np.load(chunk / "data.npy"), pd.read_csv(chunk / "index.tsv", sep="\t")
    together = restore(denoiser, recipe.evaluation.score, images, index)
    alone = restore(denoiser, recipe.evaluation.score, images[4:5], index.iloc[4:5])
    np.testing.assert_allclose(together.reconstruction[4:5], alone.reconstruction, atol=1e-4)
    np.testing.assert_allclose(together.residual[4:5], alone.residual, atol=1e-4)


def test_each_level_sees_its_own_share_of_noise_and_a_level_of_1_none(
    make_recipe: Callable, make_chunk: Callable, make_denoiser: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = scored(make_recipe("anomaly"), levels=[1, 0.8, 0.3], draws=1)
    denoiser = load_denoiser(recipe, make_denoiser(recipe, ["z"], channels=1))
    chunk = make_chunk("test-anat-0001", ["a"])
    images, index = np.load(chunk / "data.npy"), read_index(chunk)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def once(self: Denoiser, x: torch.Tensor, t: torch.Tensor, condition: object) -> tuple[torch.Tensor, None]:
        seen.append((x, t))
        return x, None

    monkeypatch.setattr(Denoiser, "restore_once", once)
    restore(denoiser, recipe.evaluation.score, images, index)
    (x, t) = seen[0]
    abar = denoiser.process.schedule.exact
    for place, level in enumerate((1, 0.8, 0.3)):
        time = int(t[place * 2])
        assert abs(float(abar[time]) - level) == pytest.approx(float((abar - level).abs().min()))
        added = x[place * 2 : place * 2 + 2] - abar[time].sqrt().float() * torch.from_numpy(images)
        if level == 1:
            torch.testing.assert_close(x[:2], torch.from_numpy(images))
        else:
            assert float(added.var()) == pytest.approx(float(1 - abar[time]), rel=0.25)


def test_structure_is_compared_where_intensity_is_not() -> None:
    images = np.random.default_rng(0).uniform(-1, 1, (2, 2, 24, 20)).astype(np.float32)
    blurred = smooth(images, np.ones_like(images, bool), 1.0)
    found = difference(images, blurred, "ssim", dark=False)
    (one, whole) = structural_similarity(images[1, 0], blurred[1, 0], win_size=7, data_range=2, full=True)
    (_, other) = structural_similarity(images[1, 1], blurred[1, 1], win_size=7, data_range=2, full=True)
    np.testing.assert_allclose(found[1, 0], 1 - (whole + other) / 2, atol=1e-5)
    assert found.shape == (2, 1, 24, 20)
    assert one < 0.9
    np.testing.assert_allclose(difference(images, images, "ssim", dark=False), 0, atol=1e-5)


def test_the_rim_of_the_brain_has_the_lowest_score_of_what_lies_deeper() -> None:
    mask = np.zeros((1, 1, 20, 20), bool)
    mask[0, 0, 4:16, 4:16] = True
    maps = np.random.default_rng(0).normal(size=mask.shape).astype(np.float32)
    options = EvaluationOptions(smoothing_mm=0, erosion_mm=5)
    found = smoothed(maps, mask, options, voxel=2)
    deep = np.zeros_like(mask)
    deep[0, 0, 6:14, 6:14] = True
    np.testing.assert_array_equal(found[deep], maps[deep])
    assert (found[mask & ~deep] == maps[deep].min()).all()
    assert (found[~mask] == 0).all()
    assert np.isfinite(smoothed(maps, mask, EvaluationOptions(erosion_mm=50), voxel=2)).all(), "nothing lies so deep"


def test_residuals_count_in_the_direction_of_lesions() -> None:
    images, healthy = np.array([[[[1.0, -1.0]]]]), np.zeros((1, 1, 1, 2))
    assert difference(images, healthy, "signed", dark=False).ravel().tolist() == [1, -1]
    assert difference(images, healthy, "signed", dark=True).ravel().tolist() == [-1, 1]
    assert difference(2 * images, healthy, "squared", dark=False).ravel().tolist() == [4, 4]
    assert difference(2 * images, healthy, "l1", dark=True).ravel().tolist() == [2, 2]


def test_parts_are_added_in_units_of_healthy_training_images(
    make_recipe: Callable, make_chunk: Callable, make_denoiser: Callable, tmp_path: Path
) -> None:
    recipe = scored(make_recipe("anomaly"), residual="signed", weights=WEIGHTS)
    diffusion = make_denoiser(recipe, ["z"], channels=1)
    train, test = make_chunk("train-anat-0001", ["x", "y", "z"], seed=1), make_chunk("test-anat-0001", ["a"], seed=2)
    measure_standards(recipe, diffusion, [train], tmp_path / "standards")
    infer_anomaly(recipe, diffusion, tmp_path / "standards", test, tmp_path / "out")

    denoiser = load_denoiser(recipe, diffusion)

    def by_hand(chunk: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
        images, inside = np.load(chunk / "data.npy"), np.load(chunk / "mask.npy") > 0
        restored = restore(denoiser, recipe.evaluation.score, images, read_index(chunk))
        parts = {}
        for name, raw in (("residual", restored.residual), ("intensity", intensity_map(images, inside))):
            parts[name] = smooth(raw, inside, 3, "box")
            parts[f"{name}_asymmetry"] = excess_map(parts[name], inside, 1)
        return parts, inside

    (healthy, free), (parts, inside) = by_hand(train), by_hand(test)
    wanted = sum(
        weight * (parts[name] - healthy[name][free].mean()) / healthy[name][free].std()
        for name, weight in WEIGHTS.items()
    )
    maps = np.load(tmp_path / "out" / "maps.npy")
    np.testing.assert_allclose(maps[inside], np.asarray(wanted)[inside], rtol=1e-3, atol=1e-3)
    assert not maps[~inside].any()


def test_a_score_of_one_part_needs_no_unit(
    make_recipe: Callable, make_chunk: Callable, make_denoiser: Callable, tmp_path: Path
) -> None:
    recipe = scored(make_recipe("anomaly"))
    diffusion = make_denoiser(recipe, ["z"], channels=1)
    measure_standards(recipe, diffusion, [make_chunk("train-anat-0001", ["x"])], tmp_path / "standards")
    assert read_standards(tmp_path / "standards") == {}
    test = make_chunk("test-anat-0001", ["a"])
    infer_anomaly(recipe, diffusion, tmp_path / "standards", test, tmp_path / "out")
    found = mapped(recipe, load_denoiser(recipe, diffusion), test, read_index(test))
    np.testing.assert_allclose(np.load(tmp_path / "out" / "maps.npy"), found.parts["residual"], atol=1e-5)


def test_what_cannot_be_scored_is_refused(
    make_recipe: Callable, make_chunk: Callable, make_denoiser: Callable, tmp_path: Path
) -> None:
    recipe = scored(make_recipe("anomaly"), weights=WEIGHTS)
    diffusion = make_denoiser(recipe, ["z"], channels=1)
    sagittal = make_chunk("test-anat-0001", ["a"])
    layout = (sagittal / "layout.json").read_text().replace('"left_right": 1', '"left_right": null')
    (sagittal / "layout.json").write_text(layout)
    with pytest.raises(UserError, match="residual_asymmetry: these images do not show left and right"):
        mapped(recipe, load_denoiser(recipe, diffusion), sagittal, read_index(sagittal))
    with pytest.raises(UserError, match="no training image without a lesion"):
        measure_standards(recipe, diffusion, [], tmp_path / "standards")
