"""The embedded cohort: named as synthetic, the same each time, its truth known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pipeline_lib.cohort.anatomy import make_anatomy, template_head
from pipeline_lib.cohort.diffusion_mri import D_FREE, D_PARALLEL, noddi_maps, simulate
from pipeline_lib.cohort.sheet import NO_LESION, Scan, read_sheet, write_sheet
from pipeline_lib.cohort.synthetic import PEOPLE, brain_of, draw_person, make_cohort
from pipeline_lib.files import read_json, sha256_file

VOXEL = 6.0


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Scan]]:
    folder = tmp_path_factory.mktemp("synthetic")
    return folder, make_cohort(folder, [1, 2, 4], root=folder, voxel_mm=VOXEL, workers=1)


def of(scans: list[Scan], modality: str) -> list[Scan]:
    return [scan for scan in scans if scan.modality == modality]


def test_sheet_of_the_cohort_is_valid(cohort: tuple[Path, list[Scan]], tmp_path: Path) -> None:
    folder, scans = cohort
    write_sheet(tmp_path / "subjects.tsv", [replace(scan, group="") for scan in scans])
    assert not read_sheet(tmp_path / "subjects.tsv", folder).problems
    for scan in scans:
        for name in ("path", "mask", "lesion", "bval", "bvec"):
            assert getattr(scan, name) in ("", NO_LESION) or (folder / getattr(scan, name)).is_file()
    assert {scan.lesion for scan in of(scans, "T1w") if scan.group != "lesion"} == {NO_LESION}


def test_a_person_follows_from_the_number_and_files_stay(cohort: tuple[Path, list[Scan]], tmp_path: Path) -> None:
    folder, scans = cohort
    again = make_cohort(tmp_path, [2], root=tmp_path, voxel_mm=VOXEL, workers=1)
    mine = of([scan for scan in scans if scan.participant == "syn002"], "T1w")[0]
    assert sha256_file(tmp_path / of(again, "T1w")[0].path) == sha256_file(folder / mine.path)
    before = (folder / mine.path).stat().st_mtime_ns
    make_cohort(folder, [2], root=folder, voxel_mm=VOXEL, workers=1)
    assert (folder / mine.path).stat().st_mtime_ns == before


def test_groups_and_sessions() -> None:
    groups = [draw_person(number).group for number in range(1, PEOPLE + 1)]
    assert {group: groups.count(group) for group in sorted(set(groups))} == {"AD": 8, "CN": 12, "lesion": 8}
    splits = {draw_person(number).split for number in range(1, PEOPLE + 1) if draw_person(number).group == "lesion"}
    assert splits == {"validation", "test"}, "nobody with a lesion trains"
    assert all(draw_person(n).age >= 60 for n in range(1, PEOPLE + 1) if draw_person(n).group == "AD")


def test_alzheimer_group_has_larger_ventricles() -> None:
    head = template_head()
    grid = np.stack(np.meshgrid(*(np.arange(0, n, 2) for n in head.ventricles.shape), indexing="ij")).astype(float)
    points = np.tensordot(head.affine[:3, :3], grid, 1) + head.affine[:3, 3].reshape(3, 1, 1, 1)
    volumes = [
        0.064 * float(make_anatomy(np.random.default_rng(seed), enlargement=mm, lesions=0).ventricles(points).sum())
        for mm in (0.0, 7.0)
        for seed in (1, 2)
    ]
    assert min(volumes[2:]) > 1.5 * max(volumes[:2])


def test_lesion_mask_lies_where_the_scan_is_altered(cohort: tuple[Path, list[Scan]]) -> None:
    folder, scans = cohort
    scan = next(scan for scan in of(scans, "T1w") if scan.lesion_mask)
    lesion = nib.load(folder / scan.lesion).get_fdata() > 0
    brain = nib.load(folder / "truth" / "sub-syn004" / "sub-syn004_ses-1_brain.nii.gz").get_fdata() > 0
    assert lesion.sum() > 0
    assert (lesion <= brain).all()
    assert read_json(folder / "truth" / "sub-syn004" / "sub-syn004_ses-1_truth.json")["lesions"] > 0


def test_ventricles_are_drawn_where_their_volume_says(cohort: tuple[Path, list[Scan]]) -> None:
    folder, _scans = cohort
    for person in ("syn001", "syn002"):
        truth = folder / "truth" / f"sub-{person}" / f"sub-{person}_ses-1"
        structures = nib.load(f"{truth}_structures.nii.gz")
        labels = np.asarray(structures.dataobj)
        brain = np.asarray(nib.load(f"{truth}_brain.nii.gz").dataobj) > 0
        assert set(np.unique(labels)) == {0, 1, 2}
        assert ((labels > 0) >= brain).all()
        voxel_ml = abs(np.linalg.det(structures.affine[:3, :3])) / 1000
        told = read_json(Path(f"{truth}_truth.json"))["ventricles_ml"]
        assert (labels == 2).sum() * voxel_ml == pytest.approx(told, rel=0.35), "whole voxels of 6 mm"


def test_diffusion_and_its_maps_cover_the_same_place(cohort: tuple[Path, list[Scan]]) -> None:
    folder, scans = cohort
    centres = []
    for modality in ("dwi", "noddi"):
        mask = nib.load(folder / of(scans, modality)[0].mask)
        voxels = np.argwhere(mask.get_fdata() > 0)
        centres.append(nib.affines.apply_affine(mask.affine, voxels.mean(0)))
    np.testing.assert_allclose(centres[0], centres[1], atol=1.0)
    assert "Synthetic" in read_json(folder / "dataset_description.json")["Description"]


def test_signal_has_the_limits_of_the_model() -> None:
    """Free water decays with its own diffusivity; fully dispersed sticks with the powder average."""
    random = np.random.default_rng(0)
    maps = np.zeros((3, 2, 2, 2))
    maps[1], maps[2] = 0.5, 1.0
    b, g = np.array([1000.0]), np.array([[0.0, 0.0, 1.0]])
    np.testing.assert_allclose(simulate(maps, b, g, random), np.exp(-1000 * D_FREE), rtol=1e-6)
    maps[0], maps[1], maps[2] = 1.0, 0.98, 0.0
    t = np.linspace(0, 1, 20001)
    powder = np.trapezoid(np.exp(-1000 * D_PARALLEL * t**2), t)
    np.testing.assert_allclose(simulate(maps, b, g, random), powder, rtol=0.02)


def test_maps_are_fractions_and_fluid_is_free_water() -> None:
    tissues = np.zeros((6, 8, 8, 8), np.float32)
    tissues[1, :4], tissues[2, 4:] = 1, 1
    icvf, odi, isovf = noddi_maps(tissues, np.random.default_rng(0))
    for values in (icvf, odi, isovf):
        assert values.min() >= 0
        assert values.max() <= 1
    assert isovf[4:].mean() > 0.8 > 0.2 > isovf[:4].mean()
    assert icvf[:4].mean() > icvf[4:].mean()


def test_other_contrasts_are_of_the_same_brain_and_leave_the_t1_as_it_is(
    cohort: tuple[Path, list[Scan]], tmp_path: Path
) -> None:
    folder, scans = cohort
    first = next(scan for scan in scans if scan.modality == "T1w")
    number = int(first.participant.removeprefix("syn"))
    made = make_cohort(tmp_path, [number], root=tmp_path, voxel_mm=VOXEL, modalities=("T1w", "T2w", "FLAIR"), workers=1)
    anatomical = {scan.modality: scan for scan in made if scan.session == first.session and scan.family == "anat"}
    assert set(anatomical) == {"T1w", "T2w", "FLAIR"}
    assert (tmp_path / anatomical["T1w"].path).read_bytes() == (folder / first.path).read_bytes()
    for modality, scan in anatomical.items():
        data = nib.load(tmp_path / scan.path).get_fdata()
        tissues = nib.load(str(tmp_path / brain_of(scan)).replace("_brain", "_tissues")).get_fdata()
        white, fluid = (np.median(data[tissues == label]) for label in (2, 3))
        assert (fluid > white) == (modality == "T2w")
        brain = nib.load(tmp_path / brain_of(scan))
        assert 1000 < (brain.get_fdata() > 0).sum() * np.prod(brain.header.get_zooms()) / 1000 < 2200
