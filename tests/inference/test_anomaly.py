"""Anomaly inference: what it writes, whom it refuses, and that an image's result is its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import scipy.stats
import SimpleITK as sitk
import torch
from scipy import ndimage

from pipeline_lib.config.schema import EvaluationOptions
from pipeline_lib.files import read_json, write_json
from pipeline_lib.imaging.nifti import Volume, write_volume
from pipeline_lib.imaging.status import write_status
from pipeline_lib.inference.anomaly import infer_anomaly
from pipeline_lib.inference.baselines import Standard, excess_map, intensity_map
from pipeline_lib.inference.denoise import load_denoiser
from pipeline_lib.inference.geometry import stack_slices, write_nifti
from pipeline_lib.inference.maps import write_maps
from pipeline_lib.inference.native import write_native_maps
from pipeline_lib.inference.restore import reconstruct
from pipeline_lib.metrics.smoothing import smooth


def no_standards(folder: Path) -> Path:
    """Those of a score of one part."""
    write_json(folder / "standards" / "standards.json", {})
    return folder / "standards"


def test_maps_are_squared_errors_of_the_reconstruction(
    make_recipe: Callable, make_chunk: Callable, make_denoiser: Callable, tmp_path: Path
) -> None:
    recipe = make_recipe("anomaly")
    chunk = make_chunk("test-anat-0001", ["a", "b"])
    infer_anomaly(recipe, make_denoiser(recipe, ["z"], channels=1), no_standards(tmp_path), chunk, tmp_path / "out")
    maps, reconstruction, images = (
        np.load(path) for path in (tmp_path / "out/maps.npy", tmp_path / "out/reconstruction.npy", chunk / "data.npy")
    )
    judged = smooth((images - reconstruction) ** 2, np.load(chunk / "mask.npy") > 0, 1.5)
    np.testing.assert_allclose(maps, judged, atol=1e-6)
    assert maps.shape == (4, 1, 16, 16)
    assert len(pd.read_csv(tmp_path / "out/refused.tsv", sep="\t")) == 0


@pytest.mark.parametrize("chosen", ["0.25", ""])
def test_the_threshold_of_a_frozen_recipe_is_said_beside_its_maps(
    chosen: str, make_recipe: Callable, make_chunk: Callable, make_denoiser: Callable, tmp_path: Path
) -> None:
    recipe, standards = make_recipe("anomaly"), no_standards(tmp_path)
    rows = f"method\trole\tthreshold\ndiffusion\tresult\t{chosen}\nintensity\tfloor\t3\n"
    (standards / "thresholds.tsv").write_text(rows)
    chunk = make_chunk("test-anat-0001", ["a"])
    infer_anomaly(recipe, make_denoiser(recipe, ["z"], channels=1), standards, chunk, tmp_path / "out")
    about = read_json(tmp_path / "out/nifti/a_FLAIR_desc-anomaly_map.json")
    assert about.get("Threshold") == (0.25 if chosen else None)


def test_a_scans_map_is_one_volume_smoothed_as_judged_and_masked(
    make_recipe: Callable, make_chunk: Callable, make_denoiser: Callable, tmp_path: Path
) -> None:
    recipe = make_recipe("anomaly")
    chunk = make_chunk("test-anat-0001", ["a", "b"])
    infer_anomaly(recipe, make_denoiser(recipe, ["z"], channels=1), no_standards(tmp_path), chunk, tmp_path / "out")
    maps, mask = np.load(tmp_path / "out/maps.npy")[2:], np.load(chunk / "mask.npy")[2:] > 0
    volume = nib.load(tmp_path / "out/nifti/b_FLAIR_desc-anomaly_map.nii.gz")
    np.testing.assert_allclose(volume.get_fdata(), np.moveaxis(maps[:, 0], 0, -1), atol=1e-6)
    assert not volume.get_fdata()[~np.moveaxis(mask[:, 0], 0, -1)].any()
    np.testing.assert_allclose(volume.affine, np.diag([2, 2, 5, 1]))


def test_slices_are_stacked_in_order_and_what_lies_between_is_interpolated() -> None:
    turn = np.array([[0, 2.0, 0, 1], [-2.0, 0, 0, 2], [0, 0, 1, 0], [0, 0, 0, 1]])
    affines = [turn + np.array([[0] * 4, [0] * 4, [0, 0, 0, depth], [0] * 4]) for depth in (10, -2, 4, 1)]
    stacked = stack_slices(np.arange(1.0, 5)[:, None, None] * np.ones((4, 3, 2)), affines)
    # 2 at -2 mm, 4 at 1, 3 at 4 and 1 at 10: planes of 1 mm, as the scan's.
    wanted = np.interp(np.arange(13), [0, 3, 6, 12], [2, 4, 3, 1])
    np.testing.assert_allclose(stacked.values[0, 0], wanted, atol=1e-6)
    assert stacked.given == [0, 3, 6, 12]
    np.testing.assert_allclose(stacked.affine @ [1, 1, 12, 1], affines[0] @ [1, 1, 0, 1])


def test_slices_that_lie_on_no_plane_of_the_scan_keep_their_own_distance() -> None:
    affines = [np.diag([2.0, 2, 3, 1]) + np.array([[0] * 4, [0] * 4, [0, 0, 0, z], [0] * 4]) for z in (0, 4, 8)]
    stacked = stack_slices(np.ones((3, 2, 2)), affines)
    assert stacked.values.shape == (2, 2, 3)
    assert stacked.affine[2, 2] == 4


def test_sparse_slices_give_a_complete_masked_map_in_template_space(tmp_path: Path) -> None:
    """3 mm voxels and slices every 5 mm: some neighbours are 3 mm apart and some 6."""
    random = np.random.default_rng(0)
    depths = [-9, -6, 0, 6, 9, 15]
    mask = np.zeros((6, 12, 10), bool)
    mask[:, 2:10, 2:8] = True
    mask[3:, 2:4] = False
    maps = random.uniform(0.5, 1, mask.shape).astype(np.float32)
    affine = [[0, 3, 0, -15], [-3, 0, 0, 18], [0, 0, 3, 0], [0, 0, 0, 1]]
    rows = [
        {"scan": "p", "space": "MNI152", "affine": json.dumps([*affine[:2], [0, 0, 3, z], affine[3]])} for z in depths
    ]
    options = EvaluationOptions(smoothing_mm=3)
    judged = smooth(maps[:, None], mask[:, None], 1)[:, 0]
    write_maps(tmp_path / "nifti", judged, mask, pd.DataFrame(rows), options, 0.4)
    image = nib.load(tmp_path / "nifti" / "p_desc-anomaly_map.nii.gz")
    data = image.get_fdata()
    assert data.shape == (12, 10, 9)
    assert data.any((0, 1)).all(), "no empty plane"
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (4, 4)
    np.testing.assert_allclose(image.get_qform(), image.affine, atol=1e-5)
    given = [0, 1, 3, 5, 6, 8]
    np.testing.assert_allclose(data[..., given], np.moveaxis(judged, 0, -1))
    assert not data[..., 4][~mask[2]].any(), "between two slices, where at least half is brain"
    about = read_json(tmp_path / "nifti" / "p_desc-anomaly_map.json")
    assert (about["InferredPlanes"], about["InterpolatedPlanes"]) == (given, [2, 4, 7])
    assert (about["Space"], about["SmoothingMillimetres"], about["Threshold"]) == ("MNI152", 3, 0.4)


@pytest.mark.parametrize("orientation", ["", "RAS", "PIR"])
def test_a_map_comes_back_to_the_grid_of_its_scan(orientation: str, tmp_path: Path) -> None:
    """A bright ball in template space must lie, in the scan, where the transform says that it came from."""
    turn = sitk.Euler3DTransform((0, 0, 0), 0.1, -0.2, 0.3, (8.0, -5.0, 12.0))  # points of template to scan, LPS mm
    grid = np.diag([2.0, 2, 2, 1])
    grid[:3, 3] = -40
    place = np.stack(np.meshgrid(*[np.arange(40)] * 3, indexing="ij"), -1) * 2 - 40.0
    ball = np.array([10.0, 6, -4])
    brain = (np.exp(-((place - ball) ** 2).sum(-1) / 50)).astype(np.float32)
    (tmp_path / "inferred" / "nifti").mkdir(parents=True)
    write_nifti(tmp_path / "inferred/nifti/p_T1w_desc-anomaly_map.nii.gz", brain[None], grid, {"Sources": ["p_T1w"]})
    native = np.diag([1.5, 1.5, 3, 1])
    native[:3, 3] = (-50, -45, -40)
    for stage, outputs in (
        ("ingest", {"image": "scans/p_T1w.nii.gz"}),
        ("preprocess", {"image": "scans/p_T1w.nii.gz", "to_scan": "scans/p_from-MNI152_to-T1w_mode-image_xfm.tfm"}),
    ):
        folder = tmp_path / stage
        write_volume(folder / "scans/p_T1w.nii.gz", Volume(np.ones((60, 64, 30), np.float32), native))
        sitk.WriteTransform(turn.GetInverse(), str(folder / "scans/p_from-MNI152_to-T1w_mode-image_xfm.tfm"))
        row = dict.fromkeys(("participant", "session", "modality"), "x") | {"scan": "p_T1w", "ok": "true"}
        known = {"orientation": orientation} if orientation and stage == "ingest" else {}
        write_status(folder / "status.tsv", [row | {"outputs": json.dumps(outputs)} | known])
    write_native_maps(tmp_path / "inferred", tmp_path / "preprocess", tmp_path / "ingest", tmp_path / "out")
    written = nib.load(tmp_path / "out" / "p_T1w_space-individual_desc-anomaly_map.nii.gz")
    assert "".join(nib.aff2axcodes(written.affine)) == (orientation or "RAS")
    image = nib.as_closest_canonical(written)
    assert image.shape == (60, 64, 30)
    np.testing.assert_allclose(image.affine, native)
    centre = np.array(ndimage.center_of_mass(image.get_fdata() ** 2))
    flip = np.array([-1, -1, 1])
    wanted = np.array(turn.TransformPoint((ball * flip).tolist())) * flip
    np.testing.assert_allclose(nib.affines.apply_affine(native, centre), wanted, atol=0.3)
    about = read_json(tmp_path / "out" / "p_T1w_space-individual_desc-anomaly_map.json")
    assert about["Space"] == "individual"


@pytest.mark.parametrize("trained", [["a"], ["a", "b"]])
def test_people_trained_on_are_refused_and_the_chunk_goes_on(
    trained: list[str], make_recipe: Callable, make_chunk: Callable, make_denoiser: Callable, tmp_path: Path
) -> None:
    recipe = make_recipe("anomaly")
    diffusion = make_denoiser(recipe, trained, channels=1)
    infer_anomaly(recipe, diffusion, no_standards(tmp_path), make_chunk("test-anat-0001", ["a", "b"]), tmp_path / "out")
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
    infer_anomaly(recipe, diffusion, no_standards(tmp_path), chunk, tmp_path / "out")
    assert set(pd.read_csv(tmp_path / "out/refused.tsv", sep="\t")["participant"]) == {"other"}


def test_allowed_people_are_kept(
    make_recipe: Callable, make_chunk: Callable, make_denoiser: Callable, tmp_path: Path
) -> None:
    recipe = make_recipe("anomaly", allow_trained_people=True)
    diffusion = make_denoiser(recipe, ["a"], channels=1)
    infer_anomaly(recipe, diffusion, no_standards(tmp_path), make_chunk("test-anat-0001", ["a", "b"]), tmp_path / "out")
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
    np.testing.assert_allclose(reconstruct(denoiser, images, index), images, atol=1e-4)


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
    np.testing.assert_array_equal(intensity_map(image, mask, dark=True), -bright)
    assert not bright[~mask].any()
    for n in range(2):
        assert np.median(bright[n][mask[n]]) == pytest.approx(0, abs=1e-6)
        assert scipy.stats.median_abs_deviation(bright[n][mask[n]], scale="normal") == pytest.approx(1, rel=1e-4)
