"""Simulated pairs on maps of labels: known maps, the series that belongs to them, the same for the same seed."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline_lib.cohort.diffusion_mri import acquire, blocks, simulate
from pipeline_lib.cohort.labelled import VALUES, Simulation, simulate_on_labels, tissues_of
from pipeline_lib.cohort.sheet import Scan
from pipeline_lib.errors import UserError

AFFINE = np.array([[2.0, 0, 0, -20], [0, 0, 2, -30], [0, 2, 0, 10], [0, 0, 0, 1]])


@pytest.fixture
def labels(tmp_path: Path) -> Scan:
    """A cube of cortex (100) about white matter (81) about a ventricle (51)."""
    cube = np.zeros((20, 22, 18), np.int16)
    cube[2:-2, 2:-2, 2:-2], cube[5:-5, 5:-5, 5:-5], cube[8:-8, 8:-8, 8:-8] = 100, 81, 51
    nib.save(nib.Nifti1Image(cube, AFFINE), tmp_path / "p1_labels.nii.gz")
    return Scan("p1", "", "T1w", "p1_labels.nii.gz", age=40.0, sex="F")


def test_series_and_maps_lie_on_one_another_in_the_persons_space(labels: Scan, tmp_path: Path) -> None:
    dwi, noddi = simulate_on_labels([labels], tmp_path, tmp_path / "out", tmp_path, Simulation(factor=2))
    assert (dwi.modality, noddi.modality, dwi.age, noddi.sex) == ("dwi", "noddi", 40.0, "F")
    series, maps, mask = (nib.load(tmp_path / path) for path in (dwi.path, noddi.path, noddi.mask))
    given = nib.load(tmp_path / labels.path)
    there = nib.as_closest_canonical(mask).get_fdata() > 0
    np.testing.assert_array_equal(there, nib.as_closest_canonical(given).get_fdata() > 0)
    np.testing.assert_allclose(nib.as_closest_canonical(mask).affine, nib.as_closest_canonical(given).affine)
    assert nib.aff2axcodes(series.affine) == ("L", "A", "S"), "where FSL's gradients need no flip"
    assert series.header.get_zooms()[:3] == (4, 4, 4)
    first = [
        nib.affines.apply_affine(image.affine, corner)
        for image, corner in ((series, (0, 0, 0)), (maps, (0.5, 0.5, 0.5)))
    ]
    np.testing.assert_allclose(*first)
    assert np.loadtxt(tmp_path / dwi.bval).shape == (series.shape[3],)
    assert np.loadtxt(tmp_path / dwi.bvec).shape == (3, series.shape[3])


def test_pure_tissue_has_its_values(labels: Scan, tmp_path: Path) -> None:
    _, noddi = simulate_on_labels(
        [labels], tmp_path, tmp_path / "out", tmp_path, Simulation(partial_mm=0.01, varied=0.0)
    )
    maps = nib.load(tmp_path / noddi.path).get_fdata()
    for place, tissue in (((3, 3, 3), 0), ((6, 6, 6), 1), ((9, 9, 9), 2)):
        np.testing.assert_allclose(maps[place], [VALUES[name][tissue] for name in ("ICVF", "ODI", "ISOVF")], atol=0.02)


def test_tissues_sum_to_one_inside(labels: Scan, tmp_path: Path) -> None:
    given = np.asarray(nib.load(tmp_path / labels.path).dataobj)
    tissues = tissues_of(given, 1.0)
    np.testing.assert_allclose(tissues.sum(0), given > 0, atol=1e-5)
    assert 0 < tissues[0, 5, 10, 10] < 1, "mixed at a border"


def test_a_person_is_simulated_alike_again_and_otherwise_with_another_seed(labels: Scan, tmp_path: Path) -> None:
    made = [
        nib.load(
            tmp_path / simulate_on_labels([labels], tmp_path, tmp_path / name, tmp_path, Simulation(seed=seed))[0].path
        )
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    one, same, other = (image.get_fdata() for image in made)
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_noise_is_rician() -> None:
    """Without signal the magnitude has mean sigma sqrt(pi / 2); far above the noise its standard deviation is sigma."""
    random = np.random.default_rng(0)
    maps = np.full((3, 24, 24, 24), 0.5)
    for s0, measured, wanted in (
        (0.0, lambda signal: signal.mean(), 0.1 * np.sqrt(np.pi / 2)),
        (50.0, lambda signal: (signal[..., 0] - signal[..., 1]).std() / np.sqrt(2), 0.1),
    ):
        signal, bvals, _ = acquire(maps, np.full((24, 24, 24), s0), 2, 0.1, random)
        assert (bvals[:2] == 0).all()
        assert measured(signal) == pytest.approx(wanted, rel=0.03)


def test_without_noise_a_coarse_voxel_is_the_mean_of_its_fine_ones() -> None:
    maps = np.random.default_rng(1).uniform(0.1, 0.9, (3, 8, 8, 8))
    signal, bvals, bvecs = acquire(maps, np.ones((8, 8, 8)), 2, 0.0, np.random.default_rng(2))
    assert (signal[..., bvals == 0] == 1).all()
    assert signal[..., bvals > 0].max() < 1
    values = np.arange(64.0).reshape(4, 4, 4)
    np.testing.assert_allclose(blocks(values, 2)[0, 0, 0], values[:2, :2, :2].mean())
    assert simulate(maps, bvals, bvecs, np.random.default_rng(0)).shape == (8, 8, 8, len(bvals))


def test_a_file_that_is_no_map_of_labels_is_named(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), AFFINE), tmp_path / "empty.nii.gz")
    (tmp_path / "text.nii.gz").write_text("no")
    for name, said in (("empty", "0 voxels with a label"), ("text", "cannot be read"), ("gone", "cannot be read")):
        with pytest.raises(UserError, match=said):
            simulate_on_labels([Scan("p", "", "T1w", f"{name}.nii.gz")], tmp_path, tmp_path, tmp_path, Simulation())
