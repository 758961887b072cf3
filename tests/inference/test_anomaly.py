"""Anomaly inference: what it writes, whom it refuses, and that an image's result is its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch

from pipeline_lib.inference import anomaly
from pipeline_lib.inference.anomaly import infer_anomaly, reconstruct
from pipeline_lib.inference.baselines import Standard, excess_map, intensity_map
from pipeline_lib.inference.denoise import load_denoiser
from pipeline_lib.inference.geometry import stack_slices


def test_maps_are_squared_errors_of_the_reconstruction(
    make_recipe: Callable, make_chunk: Callable, make_denoiser: Callable, tmp_path: Path
) -> None:
    recipe = make_recipe("anomaly")
    chunk = make_chunk("test-anat-0001", ["a", "b"])
    infer_anomaly(recipe, make_denoiser(recipe, ["z"], channels=1), chunk, tmp_path / "out")
    maps, reconstruction, images = (
        np.load(path) for path in (tmp_path / "out/maps.npy", tmp_path / "out/reconstruction.npy", chunk / "data.npy")
    )
    np.testing.assert_allclose(maps, (images - reconstruction) ** 2, atol=1e-6)
    assert maps.shape == (4, 1, 16, 16)
    assert len(pd.read_csv(tmp_path / "out/refused.tsv", sep="\t")) == 0


def test_a_scans_map_is_one_volume_with_every_slice_in_its_place(
    make_recipe: Callable, make_chunk: Callable, make_denoiser: Callable, tmp_path: Path
) -> None:
    recipe = make_recipe("anomaly")
    infer_anomaly(
        recipe, make_denoiser(recipe, ["z"], channels=1), make_chunk("test-anat-0001", ["a", "b"]), tmp_path / "out"
    )
    maps = np.load(tmp_path / "out/maps.npy")
    volume = nib.load(tmp_path / "out/nifti/b_FLAIR_desc-anomaly_map.nii.gz")
    np.testing.assert_allclose(volume.get_fdata(), np.moveaxis(maps[2:, 0], 0, -1), atol=1e-6)
    np.testing.assert_allclose(volume.affine, np.diag([2, 2, 5, 1]))


def test_slices_are_stacked_in_order_and_a_missing_one_is_zero() -> None:
    turn = np.array([[0, 2.0, 0, 1], [-2.0, 0, 0, 2], [0, 0, 1, 0], [0, 0, 0, 1]])
    affines = [turn + np.array([[0] * 4, [0] * 4, [0, 0, 0, depth], [0] * 4]) for depth in (10, -2, 4, 1)]
    volume, affine = stack_slices(np.arange(1.0, 5)[:, None, None] * np.ones((4, 3, 2)), affines)
    assert volume[0, 0].tolist() == [2, 4, 3, 0, 1]
    np.testing.assert_allclose(affine @ [1, 1, 4, 1], affines[0] @ [1, 1, 0, 1])


@pytest.mark.parametrize("trained", [["a"], ["a", "b"]])
def test_people_trained_on_are_refused_and_the_chunk_goes_on(
    trained: list[str], make_recipe: Callable, make_chunk: Callable, make_denoiser: Callable, tmp_path: Path
) -> None:
    recipe = make_recipe("anomaly")
    diffusion = make_denoiser(recipe, trained, channels=1)
    infer_anomaly(recipe, diffusion, make_chunk("test-anat-0001", ["a", "b"]), tmp_path / "out")
    kept, refused = (pd.read_csv(tmp_path / "out" / name, sep="\t") for name in ("index.tsv", "refused.tsv"))
    assert set(refused["participant"]) == set(trained)
    assert set(kept["participant"]) == {"a", "b"} - set(trained)
    assert len(np.load(tmp_path / "out/maps.npy")) == len(kept)
    assert kept["row"].tolist() == [2, 3][: len(kept)]


def test_the_same_scan_under_another_name_is_refused(
    make_recipe: Callable, make_chunk: Callable, make_denoiser: Callable, tmp_path: Path
) -> None:
    recipe = make_recipe("anomaly")
    diffusion = make_denoiser(recipe, ["a"], channels=1)
    chunk = make_chunk("test-anat-0001", ["other", "b"])
    index = (chunk / "index.tsv").read_text().replace("sha-other", "sha-a")
    (chunk / "index.tsv").write_text(index)
    infer_anomaly(recipe, diffusion, chunk, tmp_path / "out")
    assert set(pd.read_csv(tmp_path / "out/refused.tsv", sep="\t")["participant"]) == {"other"}


def test_allowed_people_are_kept(
    make_recipe: Callable, make_chunk: Callable, make_denoiser: Callable, tmp_path: Path
) -> None:
    recipe = make_recipe("anomaly", allow_trained_people=True)
    diffusion = make_denoiser(recipe, ["a"], channels=1)
    infer_anomaly(recipe, diffusion, make_chunk("test-anat-0001", ["a", "b"]), tmp_path / "out")
    assert len(np.load(tmp_path / "out/maps.npy")) == 4


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpm_solver"])
def test_an_image_does_not_depend_on_its_chunk(
    sampler: str, make_recipe: Callable, make_chunk: Callable, make_denoiser: Callable
) -> None:
    recipe = make_recipe("anomaly", sampler=sampler, start=0.5)
    denoiser = load_denoiser(recipe, make_denoiser(recipe, ["z"], channels=1))
    chunk = make_chunk("test-anat-0001", ["a", "b", "c"])
    images, index = np.load(chunk / "data.npy"), pd.read_csv(chunk / "index.tsv", sep="\t")
    together = reconstruct(denoiser, images, index)
    alone = reconstruct(denoiser, images[4:5], index.iloc[4:5])
    np.testing.assert_allclose(together[4:5], alone, atol=1e-3)


def test_a_perfect_denoiser_gives_the_scan_back(
    make_recipe: Callable, make_chunk: Callable, make_denoiser: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe("anomaly", start=0.5)
    denoiser = load_denoiser(recipe, make_denoiser(recipe, ["z"], channels=1))
    chunk = make_chunk("test-anat-0001", ["a"])
    images, index = np.load(chunk / "data.npy"), pd.read_csv(chunk / "index.tsv", sep="\t")
    clean = torch.from_numpy(images)

    def ideal(x: torch.Tensor, t: torch.Tensor, *_: object) -> torch.Tensor:
        abar = torch.tensor([denoiser.process.abar(int(step)) for step in t]).reshape(-1, 1, 1, 1)
        return (x - abar.sqrt() * clean) / (1 - abar).sqrt()

    monkeypatch.setattr(denoiser.network, "forward", ideal)
    np.testing.assert_allclose(anomaly.reconstruct(denoiser, images, index), images, atol=1e-4)


def test_excess_is_over_the_brightest_place_around_the_mirrored_one() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(2, 1, 12, 14)).astype(np.float32)
    mask = rng.random(scores.shape) < 0.9
    found = excess_map(scores, mask, left_right=1)
    for place in np.argwhere(mask):
        image, _, row, column = place
        mirrored = scores[image, 0, max(0, row - 2) : row + 3, :][:, max(0, 13 - column - 2) : 13 - column + 3]
        assert found[tuple(place)] == pytest.approx(scores[tuple(place)] - mirrored.max(), abs=1e-6)
    assert not found[~mask].any()


def test_a_score_is_standardised_on_healthy_brains() -> None:
    rng = np.random.default_rng(1)
    scores, mask = rng.normal(3, 2, size=(4, 1, 30, 30)), np.ones((4, 1, 30, 30), dtype=bool)
    standard = Standard.of(scores, mask)
    assert (standard.mean, standard.deviation) == (pytest.approx(scores.mean()), pytest.approx(scores.std()))
    np.testing.assert_allclose(standard(scores).std(), 1, rtol=1e-5)
    with pytest.raises(ValueError, match="no brain voxel"):
        Standard.of(scores, ~mask)


def test_lesions_are_dark_on_t1_and_outside_the_brain_nothing_scores() -> None:
    image = np.random.default_rng(0).uniform(-1, 1, (2, 1, 8, 8)).astype(np.float32)
    mask = np.zeros_like(image, dtype=bool)
    mask[:, :, 2:6, 2:6] = True
    bright = intensity_map(image, mask)
    np.testing.assert_array_equal(intensity_map(image, mask, modality="T1w"), -bright)
    assert not bright[~mask].any()
    for n in range(2):
        assert np.median(bright[n][mask[n]]) == pytest.approx(0, abs=1e-6)
        assert scipy.stats.median_abs_deviation(bright[n][mask[n]], scale="normal") == pytest.approx(1, rel=1e-4)
