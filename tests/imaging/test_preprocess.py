"""From a raw head to a brain in template space, and the verdict on it."""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from nibabel.orientations import axcodes2ornt
from scipy import ndimage

from pipeline_lib.cohort.sheet import Scan
from pipeline_lib.cohort.synthetic import make_cohort
from pipeline_lib.config.schema import PreprocessOptions, QualityOptions
from pipeline_lib.files import read_table
from pipeline_lib.imaging.__main__ import main as to_native
from pipeline_lib.imaging.ingest import ingest_chunk
from pipeline_lib.imaging.nifti import Volume, read_volume, write_volume
from pipeline_lib.imaging.preprocess import _from_zero, preprocess_chunk
from pipeline_lib.imaging.quality import dice
from pipeline_lib.imaging.registration import native_map, resample


@pytest.fixture(scope="module")
def chunk(
    people: tuple[Path, list[Scan]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[dict[str, str]]]:
    folder, scans = people
    out = tmp_path_factory.mktemp("chunk")
    ingest_chunk(scans, folder, out / "ingest", workers=2)
    preprocess_chunk(out / "ingest", PreprocessOptions(voxel_size=4.0), out / "preprocess", workers=2)
    return out / "preprocess", read_table(out / "preprocess" / "status.tsv")


def output(chunk: Path, row: dict[str, str], name: str) -> Path:
    return chunk / json.loads(row["outputs"])[name]


def test_synthetic_heads_come_through_with_plausible_figures(chunk: tuple[Path, list[dict[str, str]]]) -> None:
    folder, rows = chunk
    assert [row["ok"] for row in rows] == ["true"] * 4, [row["reason"] for row in rows]
    for row in rows[:1]:
        assert 1100 < float(row["brain_volume_ml"]) < 2000
        assert float(row["template_overlap"]) > 0.85
    for row in rows:
        assert output(folder, row, "figure").is_file()


def test_everyone_lies_on_the_same_grid_in_mni_space(chunk: tuple[Path, list[dict[str, str]]]) -> None:
    folder, rows = chunk
    images = [nib.load(output(folder, row, "image")) for row in rows if row["modality"] == "T1w"]
    for image in images:
        assert image.shape == images[0].shape
        np.testing.assert_array_equal(image.affine, images[0].affine)
        assert int(image.header["sform_code"]) == 4
        data = image.get_fdata()
        assert data.min() == 0
        assert data.max() == 1


def test_lesion_follows_the_scan(chunk: tuple[Path, list[dict[str, str]]]) -> None:
    folder, rows = chunk
    row = next(row for row in rows if "lesion" in json.loads(row["outputs"]))
    lesion = nib.load(output(folder, row, "lesion")).get_fdata() > 0
    brain = nib.load(output(folder, row, "mask")).get_fdata() > 0
    assert lesion.any()
    assert (lesion & brain).sum() > 0.9 * lesion.sum()


def test_lesion_that_a_coarse_grid_loses_is_a_reason(people: tuple[Path, list[Scan]], tmp_path: Path) -> None:
    folder, scans = people
    brain = read_volume(folder / "truth" / "sub-syn001" / "sub-syn001_ses-1_brain.nii.gz")
    lesion = np.zeros_like(brain.data)
    lesion[tuple(n // 2 for n in lesion.shape)] = 1
    write_volume(tmp_path / "lesion.nii.gz", Volume(lesion, brain.affine), np.uint8)
    first = dataclasses.replace(scans[0], path=str(folder / scans[0].path), lesion="lesion.nii.gz")
    ingest_chunk([first], tmp_path, tmp_path / "in", workers=1)
    options = PreprocessOptions(voxel_size=9.0, space="native", bias_field=False)
    preprocess_chunk(tmp_path / "in", options, tmp_path / "out", workers=1)
    row = read_table(tmp_path / "out" / "status.tsv")[0]
    assert row["ok"] == "false"
    cubic = np.prod(np.linalg.norm(brain.affine[:3, :3], axis=0))
    assert f"its lesion ({cubic:.3g} mm3) has no voxel of 9 mm left" in row["reason"]


def test_option_of_other_scans_leaves_finished_work_alone(tmp_path: Path) -> None:
    maps = np.random.default_rng(0).uniform(0, 1, (5, 6, 4, 3)).astype(np.float32)
    nib.save(nib.Nifti1Image(maps, np.diag([9.0, 9.0, 9.0, 1.0])), tmp_path / "noddi.nii")
    ingest_chunk([Scan("01", "", "noddi", "noddi.nii", row=2)], tmp_path, tmp_path / "in", workers=1)
    cache = tmp_path / "cache"
    for options, finished in (
        (PreprocessOptions(quality=QualityOptions(brain_volume_ml=(0, 2300))), 1),
        (PreprocessOptions(quality=QualityOptions(brain_volume_ml=(0, 2300)), bias_field=False, voxel_size=3.0), 1),
        (PreprocessOptions(quality=QualityOptions(brain_volume_ml=(0, 2200))), 2),
    ):
        preprocess_chunk(tmp_path / "in", options, tmp_path / "out", workers=1, cache=cache)
        assert read_table(tmp_path / "out" / "status.tsv")[0]["ok"] == "true"
        assert len(list(cache.iterdir())) == finished


def test_map_is_taken_back_to_the_scan(
    people: tuple[Path, list[Scan]],
    chunk: tuple[Path, list[dict[str, str]]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, rows = chunk
    row = next(row for row in rows if row["scan"] == "sub-syn001_ses-1_T1w")
    native = read_volume(people[0] / next(s.path for s in people[1] if s.id == row["scan"]))
    truth = read_volume(people[0] / "truth" / "sub-syn001" / "sub-syn001_ses-1_brain.nii.gz").data > 0
    mask = read_volume(output(folder, row, "mask"))
    inverse = sitk.ReadTransform(str(output(folder, row, "to_scan")))
    assert dice(native_map(mask, native, inverse).data > 0.5, truth) > 0.85

    scan = people[0] / next(s.path for s in people[1] if s.id == row["scan"])
    command = [
        "to-native",
        *map(str, (output(folder, row, "mask"), output(folder, row, "to_scan"), scan, tmp_path / "map.nii.gz")),
    ]
    assert to_native(command) == 0
    assert dice(read_volume(tmp_path / "map.nii.gz").data > 0.5, truth) > 0.85
    turned = nib.load(scan).as_reoriented(axcodes2ornt("PIL"))
    nib.save(turned, tmp_path / "turned.nii.gz")
    assert to_native([*command[:3], str(tmp_path / "turned.nii.gz"), str(tmp_path / "map.nii.gz")]) == 0
    brought = nib.load(tmp_path / "map.nii.gz")
    assert brought.shape == turned.shape
    np.testing.assert_allclose(brought.affine, turned.affine, atol=1e-4)
    assert dice(read_volume(tmp_path / "map.nii.gz").data > 0.5, truth) > 0.85
    assert to_native([*command[:2], str(output(folder, row, "to_MNI152")), *command[3:]]) == 1
    assert "not a transform from MNI152" in capsys.readouterr().err
    assert to_native([*command[:4], str(tmp_path / "map.txt")]) == 1
    assert "call it .nii.gz" in capsys.readouterr().err
    assert to_native([*command[:4], str(tmp_path / "map.nii.gz" / "map.nii.gz")]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_neither_face_nor_header_text_is_left(people: tuple[Path, list[Scan]], tmp_path: Path) -> None:
    folder, scans = people
    first = next(scan for scan in scans if scan.modality == "T1w")
    image = nib.load(folder / first.path)
    for field in ("descrip", "aux_file", "intent_name", "db_name"):
        image.header[field] = b"jane"
    nib.save(image, tmp_path / "scan.nii.gz")
    ingest_chunk([dataclasses.replace(first, path="scan.nii.gz")], tmp_path, tmp_path / "ingest", workers=1)
    preprocess_chunk(tmp_path / "ingest", PreprocessOptions(voxel_size=4.0), tmp_path / "done", workers=1)
    row = read_table(tmp_path / "done" / "status.tsv")[0]
    registered = sitk.ReadTransform(str(output(tmp_path / "done", row, "to_MNI152")))
    image = read_volume(output(tmp_path / "done", row, "image"))
    truth = read_volume(folder / "truth" / f"sub-{first.participant}" / f"sub-{first.participant}_ses-1_brain.nii.gz")
    near = ndimage.binary_dilation(truth.data > 0.5, iterations=3)  # 9 mm: further out lie skin, eyes and nose
    brain = resample(Volume(near.astype(np.float32), truth.affine), image, registered).data > 0.5
    assert not image.data[~brain].any()
    for path in (tmp_path / "done").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"jane" not in (gzip.decompress(content) if path.suffix == ".gz" else content).lower(), path


def test_two_contrasts_of_a_session_have_files_of_their_own(tmp_path: Path) -> None:
    scans = [scan for scan in make_cohort(tmp_path, [1], root=tmp_path, voxel_mm=4.0, modalities=("T1w", "FLAIR"), workers=1)
             if scan.family == "anat"]  # fmt: skip
    ingest_chunk(scans, tmp_path, tmp_path / "in", workers=2)
    options = PreprocessOptions(voxel_size=6.0, bias_field=False)
    preprocess_chunk(tmp_path / "in", options, tmp_path / "out", workers=2, cache=tmp_path / "cache")
    rows = read_table(tmp_path / "out" / "status.tsv")
    assert [row["ok"] for row in rows] == ["true", "true"], [row["reason"] for row in rows]
    first, second = (set(json.loads(row["outputs"]).values()) for row in rows)
    assert len(first) == len(second) == 6
    assert not first & second


@pytest.mark.parametrize(
    "choice",
    [
        {"space": "native"},
        {"intensity": "zscore"},
        {"intensity": "whitestripe"},
        {"intensity": "none"},
        {"intensity": "median_mad"},
        {"brain_extraction": "given"},
    ],
    ids=str,
)
def test_what_is_asked_for_is_done(people: tuple[Path, list[Scan]], tmp_path: Path, choice: dict[str, str]) -> None:
    folder, scans = people
    truth = f"truth/sub-{scans[0].participant}/sub-{scans[0].participant}_ses-1_brain.nii.gz"
    ingest_chunk([dataclasses.replace(scans[0], mask=truth)], folder, tmp_path / "in", workers=1)
    options = PreprocessOptions.model_validate({"voxel_size": 6.0, "bias_field": False, **choice})
    preprocess_chunk(tmp_path / "in", options, tmp_path / "out", workers=1)
    row = read_table(tmp_path / "out" / "status.tsv")[0]
    assert row["ok"] == "true", row["reason"]
    image, mask = (read_volume(output(tmp_path / "out", row, name)) for name in ("image", "mask"))
    inside = image.data[mask.data > 0]
    assert row["brain_method"] == "given", "a mask in the sheet wins, whatever brain_extraction says"
    given, written = read_volume(folder / truth), read_volume(output(tmp_path / "out", row, "native_mask"))
    np.testing.assert_array_equal(written.data > 0, given.data > 0)
    np.testing.assert_allclose(written.affine, given.affine, atol=1e-4)
    assert row["intensity"] == options.intensity
    low, high = float(row["intensity_low"]), float(row["intensity_high"])
    assert float(row["intensity_clipped"]) == pytest.approx(((inside < low) | (inside > high)).mean(), abs=0.01)
    if "space" in choice:
        native = read_volume(
            tmp_path / "in" / json.loads(read_table(tmp_path / "in" / "status.tsv")[0]["outputs"])["image"]
        )
        np.testing.assert_allclose(image.affine[:3, :3] / 6, native.affine[:3, :3] / native.zooms, atol=1e-5)
        assert "to_scan" not in json.loads(row["outputs"])
    elif choice == {"intensity": "zscore"}:
        assert (inside.mean(), inside.std()) == (pytest.approx(0, abs=1e-3), pytest.approx(1, abs=1e-3))
    elif choice == {"intensity": "whitestripe"}:
        assert np.median(inside) < -0.5, "most of the brain is darker than white matter in a T1-weighted scan"
    elif choice == {"intensity": "none"}:
        assert inside.max() > 100
    elif choice == {"intensity": "median_mad"}:
        assert np.median(inside) == pytest.approx(0, abs=1e-3)
        assert np.median(np.abs(inside)) == pytest.approx(1 / 1.4826, abs=1e-3)


def test_a_neck_is_not_taken_for_a_brain(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "ixi_t1_2mm_rawhead" / "t1" / "IXI012-HH-1211_T1.nii.gz"
    image = nib.load(path)
    nib.save(image.slicer[:, :60], tmp_path / "lower.nii.gz")
    ingest_chunk([Scan("01", "", "T1w", "lower.nii.gz", row=2)], tmp_path, tmp_path / "in", workers=1)
    preprocess_chunk(tmp_path / "in", PreprocessOptions(voxel_size=4.0), tmp_path / "out", workers=1)
    row = read_table(tmp_path / "out" / "status.tsv")[0]
    assert (row["ok"], row["stage"]) == ("false", "quality"), row
    assert row["reason"].startswith("lower.nii.gz: ")
    assert "look at its picture" in row["reason"]


def test_slices_of_6_mm_turned_by_17_degrees_come_to_the_same_place(shared_data: Path, tmp_path: Path) -> None:
    name = "IXI048-HH-1326"
    head = read_volume(shared_data / "ixi_t1_2mm_rawhead" / "t1" / f"{name}_T1.nii.gz")
    turn = sitk.Euler3DTransform()
    turn.SetRotation(np.deg2rad(17), 0, 0)
    affine = np.diag([1.5, 1.5, 6.0, 1.0])
    affine[:3, 3] = [-120, -150, -150]
    write_volume(tmp_path / "head.nii.gz", head)
    write_volume(tmp_path / "thick.nii.gz", resample(head, Volume(np.zeros((160, 200, 50), np.float32), affine), turn))
    scans = [Scan(str(n), "", "T1w", f"{kind}.nii.gz", row=n) for n, kind in enumerate(("head", "thick"), 1)]
    ingest_chunk(scans, tmp_path, tmp_path / "in", workers=2)
    preprocess_chunk(tmp_path / "in", PreprocessOptions(voxel_size=4.0), tmp_path / "out", workers=2)
    rows = read_table(tmp_path / "out" / "status.tsv")
    assert [row["ok"] for row in rows] == ["true", "true"], [row["reason"] for row in rows]
    first, second = (read_volume(output(tmp_path / "out", row, "image")).data for row in rows)
    both = (first > 0) & (second > 0)
    assert np.corrcoef(first[both], second[both])[0, 1] > 0.85
    masks = [read_volume(output(tmp_path / "out", row, "mask")).data > 0 for row in rows]
    assert dice(*masks) > 0.94


def test_an_offset_below_zero_does_not_stop_the_bias_correction(
    people: tuple[Path, list[Scan]], tmp_path: Path
) -> None:
    folder, scans = people
    image = nib.load(folder / scans[0].path)
    for name, offset in (("plain", 0), ("shifted", -700)):
        nib.save(nib.Nifti1Image(image.get_fdata(dtype=np.float32) + offset, image.affine), tmp_path / f"{name}.nii.gz")
    chosen = [Scan(str(n), "", "T1w", f"{name}.nii.gz", row=n) for n, name in enumerate(("plain", "shifted"), 1)]
    ingest_chunk(chosen, tmp_path, tmp_path / "in", workers=2)
    preprocess_chunk(tmp_path / "in", PreprocessOptions(voxel_size=6.0), tmp_path / "out", workers=2)
    rows = read_table(tmp_path / "out" / "status.tsv")
    first, second = (read_volume(output(tmp_path / "out", row, "image")).data for row in rows)
    brain = (first > 0) | (second > 0)
    assert (np.abs(first - second)[brain] > 0.02).mean() < 0.005  # at the brain's edge a voxel may change sides
    sidecar = json.loads(
        (tmp_path / "out" / json.loads(rows[1]["outputs"])["image"].replace(".nii.gz", ".json")).read_text()
    )
    assert "negative intensities: all raised by 6" in " ".join(sidecar["Steps"])


def test_diffusion_becomes_shell_channels(chunk: tuple[Path, list[dict[str, str]]]) -> None:
    folder, rows = chunk
    row = next(row for row in rows if row["modality"] == "dwi")
    assert row["shells"] == "b0 b1000 b2000"
    data = nib.load(output(folder, row, "image")).get_fdata()
    mask = nib.load(output(folder, row, "mask")).get_fdata() > 0
    assert data.shape[-1] == 3
    assert data[mask][:, 1].mean() > data[mask][:, 2].mean(), "the signal falls with b"
    assert not data[~mask].any()


def test_scan_outside_the_limits_is_excluded_with_number_and_limit(
    people: tuple[Path, list[Scan]], tmp_path: Path
) -> None:
    folder, scans = people
    ingest_chunk(scans[:1], folder, tmp_path / "ingest", workers=1)
    limits = QualityOptions(brain_volume_ml=(100, 200))
    options = PreprocessOptions(voxel_size=6.0, bias_field=False, quality=limits)
    preprocess_chunk(tmp_path / "ingest", options, tmp_path / "out", workers=1)
    row = read_table(tmp_path / "out" / "status.tsv")[0]
    assert (row["ok"], row["stage"]) == ("false", "quality")
    assert "mL is outside 100 to 200 mL (quality.brain_volume_ml)" in row["reason"]
    assert "figure" in json.loads(row["outputs"]), "what was excluded can be looked at"


def test_few_negative_voxels_and_padding_become_zero_and_others_raise_the_scan() -> None:
    random = np.random.default_rng(0)
    scan = random.uniform(5, 800, (20, 20, 20)).astype(np.float32)
    undershoot = scan.copy()
    undershoot[10, 10, :3] = -200
    for changed in (undershoot, np.pad(scan, 4, constant_values=-32768)):
        found, raised = _from_zero(Volume(changed, np.eye(4)))
        assert raised == 0
        np.testing.assert_array_equal(found.data, np.maximum(changed, 0))
    found, raised = _from_zero(Volume(scan - 300, np.eye(4)))
    assert raised == pytest.approx(291, abs=3)
    np.testing.assert_allclose(found.data, np.maximum(scan - 300 + raised, 0), atol=1e-3)
