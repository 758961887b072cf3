"""Anomaly inference: what it writes, whom it refuses, and that an image's result is its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

from pipeline_lib.inference import anomaly
from pipeline_lib.inference.anomaly import infer_anomaly, reconstruct
from pipeline_lib.inference.baselines import asymmetry_map, intensity_map
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


def test_asymmetry_sees_the_bright_side_and_only_it() -> None:
    image = np.zeros((1, 1, 8, 8), np.float32)
    mask = np.ones_like(image, dtype=bool)
    image[0, 0, 2, 1] = image[0, 0, 5, 2] = image[0, 0, 5, 5] = 1
    z = intensity_map(image, mask)
    score = asymmetry_map(z, 1)
    assert score[0, 0, 2, 1] == score.max()
    np.testing.assert_allclose(score[0, 0, 5, 2], z[0, 0, 5, 2])
    assert score[0, 0, 2, 6] == score.min()
    assert asymmetry_map(z, None) is not score
    np.testing.assert_array_equal(asymmetry_map(z, None), z)


def test_lesions_are_dark_on_t1_and_outside_the_brain_nothing_scores() -> None:
    image = np.random.default_rng(0).uniform(-1, 1, (2, 1, 8, 8)).astype(np.float32)
    mask = np.zeros_like(image, dtype=bool)
    mask[:, :, 2:6, 2:6] = True
    bright = intensity_map(image, mask)
    np.testing.assert_array_equal(intensity_map(image, mask, modality="T1w"), -bright)
    assert not bright[~mask].any()
    np.testing.assert_allclose([bright[n][mask[n]].mean() for n in range(2)], 0, atol=1e-6)
    np.testing.assert_allclose([bright[n][mask[n]].std() for n in range(2)], 1, atol=1e-5)
