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
from PIL import Image
from scipy import ndimage

from pipeline_lib.cohort.sheet import Scan
from pipeline_lib.cohort.synthetic import make_cohort
from pipeline_lib.config.schema import PreprocessOptions, QualityOptions
from pipeline_lib.errors import UserError
from pipeline_lib.files import read_table
from pipeline_lib.imaging.__main__ import main as to_native
from pipeline_lib.imaging.brain import WEIGHTS, already_stripped, brain_probability, extract_brain, largest_component
from pipeline_lib.imaging.dwi import shells, signal_channels
from pipeline_lib.imaging.ingest import ingest_chunk
from pipeline_lib.imaging.intensity import correct_bias, normalise, white_stripe
from pipeline_lib.imaging.nifti import Volume, read_volume, write_volume
from pipeline_lib.imaging.preprocess import _from_zero, preprocess_chunk
from pipeline_lib.imaging.quality import dice, draw_anatomy, measure_native, verdict
from pipeline_lib.imaging.registration import native_map, output_grid, register, resample, template, to_sitk

HELD_OUT_DICE = 0.97


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Scan]]:
    folder = tmp_path_factory.mktemp("people")
    return folder, make_cohort(folder, [1, 4], root=folder, voxel_mm=3.0, workers=2)


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
    assert len(first) == len(second) == 5
    assert not first & second


@pytest.mark.parametrize(
    "choice",
    [
        {"space": "native"},
        {"intensity": "zscore"},
        {"intensity": "whitestripe"},
        {"intensity": "none"},
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
    else:
        assert row["brain_method"] == "given"


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


def test_picture_shows_no_face(people: tuple[Path, list[Scan]], tmp_path: Path) -> None:
    folder, scans = people
    head = read_volume(folder / scans[0].path)
    truth = read_volume(
        folder / "truth" / f"sub-{scans[0].participant}" / f"sub-{scans[0].participant}_ses-1_brain.nii.gz"
    )
    bright = Volume(np.full_like(head.data, 1000.0), head.affine)
    brain = truth.data > 0
    draw_anatomy(tmp_path / "qc.png", bright, brain, None, bright, brain, brain)
    pixels = np.asarray(Image.open(tmp_path / "qc.png").convert("L"))[20 : 20 + 128]  # the first row of slices
    assert (pixels > 200).mean() < 0.6
    assert (pixels == 0).mean() > 0.25, "what is far from the brain is black though the scan is bright everywhere"


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


def test_many_pieces_or_an_odd_median_are_a_reason_to_exclude() -> None:
    limits = QualityOptions()
    figures = {"brain_volume_ml": 1500.0, "template_overlap": 0.95, "mask_components": 1.0, "brain_median": 0.5,
               "registration_cost": -0.7}  # fmt: skip
    assert verdict(figures, limits, extracted=True) == ""
    pieces = figures | {"mask_components": 25.0}
    assert "25 pieces, more than 20 (quality.max_mask_components)" in verdict(pieces, limits, extracted=True)
    assert verdict(pieces, limits) == "", "a given mask may have specks"
    unlike = figures | {"registration_cost": -0.41}
    assert "-0.41 is above -0.5 (quality.max_registration_cost)" in verdict(unlike, limits, extracted=True)
    dark = figures | {"brain_median": 0.02}
    assert "0.02 is outside 0.1 to 0.95 (quality.brain_median)" in verdict(dark, limits, extracted=True)


def test_held_out_heads_agree_with_their_silver_standard(shared_data: Path) -> None:
    from safetensors import safe_open

    with safe_open(WEIGHTS, "pt") as weights:
        held_out = weights.metadata()["held_out"].split()
    folder = shared_data / "ixi_t1_2mm_rawhead"
    for name in held_out[:3]:
        head = read_volume(folder / "t1" / f"{name}_T1.nii.gz")
        truth = read_volume(folder / "brainmask" / f"{name}_brainmask.nii.gz").data > 0.5
        mask, _ = largest_component(brain_probability(head.data, head.zooms) > 0.5)
        assert dice(mask, truth) > HELD_OUT_DICE, name


def test_much_neck_is_not_taken_for_brain(shared_data: Path) -> None:
    folder = shared_data / "ixi_t1_2mm_rawhead"
    for name in ("IXI248-HH-1972", "IXI173-HH-1590"):  # trained on, yet neck and tongue were once part of the mask
        brain = extract_brain(read_volume(folder / "t1" / f"{name}_T1.nii.gz"), "learned")
        truth = read_volume(folder / "brainmask" / f"{name}_brainmask.nii.gz").data > 0.5
        assert dice(brain.mask, truth) > HELD_OUT_DICE, name


def test_scan_too_small_for_a_head_says_so() -> None:
    data = np.random.default_rng(0).random((4, 5, 7)).astype(np.float32)
    with pytest.raises(UserError, match="covers 4 x 15 x 14 mm, too little for a head"):
        extract_brain(Volume(data, np.diag([1.0, 3.0, 2.0, 1.0])), "learned")


def test_stripped_scan_loses_nothing(shared_data: Path) -> None:
    path = sorted((shared_data / "ds002748_mdd_vs_control_stripped_2mm").glob("*.nii.gz"))[0]
    volume = read_volume(path)
    brain = extract_brain(volume, "learned")
    assert brain.method == "already stripped"
    assert dice(brain.mask, volume.data != 0) > 0.98


def phantom(z: int, *, cut: bool, radius: float) -> Volume:
    """A ball, or a cylinder from face to face, on air of 0; voxels of 2 mm."""
    i, j, k = np.mgrid[:110, :110, :z] - np.array([54.5, 54.5, (z - 1) / 2])[:, None, None, None]
    inside = i**2 + j**2 + (0 if cut else k**2) < (radius / 2) ** 2
    grey = np.random.default_rng(0).uniform(50, 100, inside.shape)
    return Volume(np.where(inside, grey, 0).astype(np.float32), np.diag([2.0, 2.0, 2.0, 1.0]))


def test_slab_of_a_head_on_dark_air_is_not_taken_for_a_brain() -> None:
    assert already_stripped(phantom(90, cut=False, radius=72)) is not None
    assert already_stripped(phantom(50, cut=True, radius=76)) is None


def test_scan_that_is_not_stripped_is_refused_where_none_is_asked_for() -> None:
    brain = phantom(90, cut=False, radius=72)
    assert extract_brain(brain, "none").mask.sum() == (brain.data > 0).sum()
    noise = np.random.default_rng(1).random(brain.data.shape).astype(np.float32)
    for scan in (phantom(90, cut=True, radius=90), Volume(brain.data + noise, brain.affine)):
        with pytest.raises(UserError, match=r"'none', but this scan is not stripped: \d+% of it \(\d+ mL\)"):
            extract_brain(scan, "none")


@pytest.mark.parametrize(("method", "message"), [("given", "names no mask"), ("synthstrip", "not on PATH")])
def test_method_that_cannot_work_says_what_to_do(method: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=message):
        extract_brain(Volume(np.ones((8, 8, 8), np.float32), np.eye(4)), method)


@pytest.mark.parametrize("angles", [(0.15, -0.1, 0.12), (0.5, -0.2, 0.2), (-0.5, 0.2, 0.1)])
def test_registration_undoes_a_known_turn(angles: tuple[float, float, float]) -> None:
    reference, mask = template()
    turn = sitk.Euler3DTransform((0, -18, 6), *angles, (6, -5, 4))
    moved = resample(reference, reference, turn)
    found = register(moved).transform
    back = resample(Volume(resample(Volume(mask.astype(np.float32), reference.affine), reference, turn).data, reference.affine),
                    reference, found)  # fmt: skip
    assert dice(back.data > 0.5, mask) > 0.96  # the template's box cuts a little of a brain turned so far


def test_deformation_undoes_a_known_one_and_has_a_way_back() -> None:
    reference, mask = template()
    bend = sitk.BSplineTransformInitializer(to_sitk(reference), [3, 3, 3])
    bend.SetParameters(np.random.default_rng(0).uniform(-9, 9, len(bend.GetParameters())).tolist())
    bent = resample(reference, reference, bend)
    found = {kind: register(bent, deformable=kind == "deformable") for kind in ("affine", "deformable")}
    error = {
        kind: np.abs(resample(bent, reference, one.transform).data - reference.data)[mask].mean()
        for kind, one in found.items()
    }
    assert error["deformable"] < 0.75 * error["affine"], error
    field = sitk.TransformToDisplacementField(
        found["deformable"].transform, sitk.sitkVectorFloat64, [24] * 3, [-92.0, -120.0, -80.0], [8.0] * 3
    )
    assert sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(field)).min() > 0
    points = reference.affine[:3, :3] @ np.argwhere(mask)[::5000].T + reference.affine[:3, 3:]
    for x, y, z in points.T:
        place = (-float(x), -float(y), float(z))
        one = found["deformable"]
        assert np.linalg.norm(np.subtract(one.inverse.TransformPoint(one.transform.TransformPoint(place)), place)) < 0.5


def test_output_grid_holds_the_template() -> None:
    reference, mask = template()
    for voxel in (2.0, 3.0, 4.5):
        grid = output_grid(voxel)
        inside = resample(Volume(mask.astype(np.float32), reference.affine), grid, None).data > 0.5
        assert inside.sum() * grid.voxel_ml == pytest.approx(mask.sum() * reference.voxel_ml, rel=0.03)
        assert not any(inside.take(end, axis).any() for axis in range(3) for end in (0, -1))


def test_bias_field_is_removed() -> None:
    reference, mask = template()
    x = np.linspace(-1, 1, reference.data.shape[0])[:, None, None]
    biased = Volume((reference.data * np.exp(0.4 * x)).astype(np.float32), reference.affine)
    flat = correct_bias(biased, mask).data[mask] / np.maximum(reference.data[mask], 1e-3)
    before = biased.data[mask] / np.maximum(reference.data[mask], 1e-3)
    assert np.std(flat) / np.mean(flat) < 0.6 * np.std(before) / np.mean(before)


def test_dark_voxels_that_leaked_into_the_mask_do_not_bend_the_field(shared_data: Path) -> None:
    """The mask of this head reaches into air; its field once grew sevenfold in the cerebellum."""
    head = read_volume(shared_data / "ixi_t1_2mm_rawhead" / "t1" / "IXI572-HH-2605_T1.nii.gz")
    mask = extract_brain(head, "learned").mask
    ratio = correct_bias(head, mask).data[mask] / np.maximum(head.data[mask], 1)
    seen = head.data[mask] > 0.2 * np.median(head.data[mask])
    assert ratio[seen].max() < 1.6 * np.median(ratio[seen])


def test_intensity_methods_do_what_they_say() -> None:
    random = np.random.default_rng(0)
    data, mask = random.normal(50, 10, (20, 20, 20)).astype(np.float32), np.zeros((20, 20, 20), bool)
    mask[5:15, 5:15, 5:15] = True
    scaled = normalise(data, mask, "percentile")
    assert (scaled[mask].min(), scaled[mask].max()) == (0, 1)
    z = normalise(data, mask, "zscore")
    assert z[mask].mean() == pytest.approx(0, abs=1e-3)
    assert z[mask].std() == pytest.approx(1, abs=1e-3)
    for changed in (scaled, z, normalise(data, mask, "none")):
        assert not changed[~mask].any()


@pytest.mark.parametrize("modality", ["T1w", "FLAIR"])
def test_white_stripe_finds_white_matter(modality: str) -> None:
    random = np.random.default_rng(0)
    white = {"T1w": 800.0, "FLAIR": 500.0}[modality]
    grey = {"T1w": 550.0, "FLAIR": 680.0}[modality]
    tissues = [random.normal(mean, 40, n) for mean, n in ((200.0, 15_000), (grey, 35_000), (white, 50_000))]
    brain = np.concatenate([*tissues, random.uniform(900, 1500, 500)]).astype(np.float32)
    data, mask = brain.reshape(1, 1, -1), np.ones((1, 1, len(brain)), bool)
    scaled = normalise(data, mask, "whitestripe", modality).ravel()
    at = np.interp(white, np.sort(brain), np.sort(scaled))
    assert abs(at) < 0.6
    stripe = white_stripe(brain, modality)
    assert len(stripe) == pytest.approx(0.1 * len(brain), rel=0.05)
    assert stripe.mean() == pytest.approx(white, abs=12)


def test_shells_are_found_and_named() -> None:
    bvals = np.array([0, 5, 995, 1005, 2000, 1990, 3000], float)
    assert {b: members.tolist() for b, members in shells(bvals).items()} == {
        0: [0, 1],
        1000: [2, 3],
        2000: [4, 5],
        3000: [6],
    }
    assert {b: members.tolist() for b, members in shells(np.array([0.0, 100, 200, 800, 899])).items()} == {
        0: [0],
        100: [1],
        200: [2],
        800: [3, 4],
    }
    with pytest.raises(UserError, match="a b0 is needed"):
        signal_channels(np.ones((2, 2, 2, 1), np.float32), np.array([1000.0]), np.ones((2, 2, 2), bool), "scan")


def test_real_multishell_scan_has_its_shells(shared_data: Path) -> None:
    bvals = np.loadtxt(shared_data / "dmri_multishell_patch" / "bvals")
    assert [*shells(bvals)] == [0, 700, 1200, 2800]


@pytest.mark.parametrize("unit", [1e-6, 1e-3, 1.0, 1e3])
def test_figures_do_not_depend_on_the_unit_of_intensity(unit: float) -> None:
    reference, mask = template()
    noise = np.random.default_rng(0).normal(0, 0.02, reference.data.shape)
    scan = (np.abs(reference.data + noise)).astype(np.float32)
    figures, wanted = (measure_native(Volume(scan * np.float32(k), reference.affine), mask, 1) for k in (unit, 1))
    assert figures == pytest.approx(wanted, rel=1e-3)
    assert figures["fber"] > 1
    np.testing.assert_allclose(
        normalise(scan * np.float32(unit), mask, "percentile"), normalise(scan, mask, "percentile"), atol=1e-4
    )


def test_background_of_nothing_has_no_fber() -> None:
    reference, mask = template()
    assert measure_native(Volume(np.where(mask, reference.data, 0), reference.affine), mask, 1)["fber"] == -1


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


def test_quality_falls_with_noise() -> None:
    reference, mask = template()
    random = np.random.default_rng(0)
    noisy = Volume(
        (reference.data + 0.1 * random.standard_normal(reference.data.shape)).astype(np.float32), reference.affine
    )
    clean, poor = measure_native(reference, mask, 1), measure_native(noisy, mask, 1)
    assert poor["snr"] < clean["snr"]
    assert poor["cnr"] < clean["cnr"]
    assert clean["brain_volume_ml"] == pytest.approx(mask.sum() * 0.008)
