"""Gradient tables follow the voxels they belong to."""

from __future__ import annotations

import itertools
import json
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline_lib.cohort.sheet import Scan
from pipeline_lib.config.schema import PreprocessOptions, QualityOptions
from pipeline_lib.errors import UserError
from pipeline_lib.files import read_table
from pipeline_lib.imaging.canonical import open_described
from pipeline_lib.imaging.dwi import (
    LARGEST_SPREAD,
    Gradients,
    directions_fault,
    read_gradients,
    series_fault,
    shells,
    signal_channels,
    turn,
)
from pipeline_lib.imaging.ingest import ingest_chunk
from pipeline_lib.imaging.nifti import Volume
from pipeline_lib.imaging.preprocess import preprocess_chunk
from pipeline_lib.imaging.quality import measure_native

BVALS = np.array([0.0, 1000.0, 1000.0, 2000.0, 2000.0])
SLANTED = np.array([1.0, 2.0, 3.0]) / np.sqrt(14)
ORIENTATIONS = [
    "".join(letters)
    for order in itertools.permutations(("LR", "PA", "IS"))
    for letters in itertools.product(*order)
]  # fmt: skip


def in_patient(affine: np.ndarray, bvecs: np.ndarray) -> np.ndarray:
    """FSL's rule written out: along the voxel axes, x negated where the affine's determinant is positive."""
    rotation = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    along = bvecs.copy()
    if np.linalg.det(rotation) > 0:
        along[:, 0] *= -1
    return along @ rotation.T


def oblique(degrees: float) -> np.ndarray:
    a, b = np.deg2rad([degrees, degrees / 2])
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = about_x @ about_z @ np.diag([2.0, 2.1, 3.0])
    affine[:3, 3] = (-5, 7, 11)
    return affine


def series(path: Path, axes: str, affine: np.ndarray) -> np.ndarray:
    """Write a 4D scan stored along ``axes``; its affine."""
    data = np.random.default_rng(0).uniform(10, 100, (5, 6, 4, len(BVALS))).astype(np.float32)
    image = nib.Nifti1Image(data, affine)
    turned = image.as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(axes))
    )
    nib.save(turned, path)
    return turned.affine


def directions() -> np.ndarray:
    drawn = np.random.default_rng(1).standard_normal((len(BVALS), 3))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True) * (BVALS > 0)[:, None]


def write_table(folder: Path, bvals: np.ndarray, bvecs: np.ndarray) -> tuple[Path, Path]:
    np.savetxt(folder / "b.bval", bvals[None])
    np.savetxt(folder / "b.bvec", bvecs.T)
    return folder / "b.bval", folder / "b.bvec"


@pytest.mark.parametrize("degrees", [0.0, 25.0])
def test_directions_in_the_patient_stay_for_every_orientation(tmp_path: Path, degrees: float) -> None:
    assert len(ORIENTATIONS) == 48
    signs = set()
    for axes in ORIENTATIONS:
        stored = series(tmp_path / "dwi.nii", axes, oblique(degrees))
        opened = open_described(tmp_path / "dwi.nii", axes, volumes=True)
        volume, before = opened.volume, opened.stored
        after = turn(Gradients(BVALS, directions()), before, volume.affine)
        np.testing.assert_allclose(in_patient(volume.affine, after.bvecs), in_patient(stored, directions()), atol=1e-6)
        signs.add(np.sign(np.linalg.det(stored)))
    assert signs == {-1, 1}


@pytest.mark.parametrize(
    ("axes", "wanted"), [("RAS", (1, 2, 3)), ("LAS", (1, 2, 3)), ("LPS", (-1, -2, 3)), ("PIR", (-3, 1, -2))]
)
def test_direction_worked_out_by_hand(tmp_path: Path, axes: str, wanted: tuple[int, int, int]) -> None:
    series(tmp_path / "dwi.nii", axes, np.diag([2.0, 2.0, 2.0, 1.0]))
    opened = open_described(tmp_path / "dwi.nii", axes, volumes=True)
    volume, before = opened.volume, opened.stored
    after = turn(Gradients(BVALS[:1], SLANTED[None]), before, volume.affine)
    np.testing.assert_allclose(after.bvecs[0] * np.sqrt(14), wanted, atol=1e-6)


def test_ingested_scan_has_its_table_beside_it(tmp_path: Path) -> None:
    stored = series(tmp_path / "dwi.nii", "PIR", oblique(15))
    bval, bvec = write_table(tmp_path, BVALS, directions() * 1.004)
    scan = Scan("01", "", "dwi", "dwi.nii", bval=bval.name, bvec=bvec.name, row=2)
    ingest_chunk([scan], tmp_path, tmp_path / "out", workers=1)
    outputs = json.loads(read_table(tmp_path / "out" / "status.tsv")[0]["outputs"])
    written = np.loadtxt(tmp_path / "out" / outputs["bvec"]).T
    affine = nib.load(tmp_path / "out" / outputs["image"]).affine
    np.testing.assert_allclose(in_patient(affine, written), in_patient(stored, directions()), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(written[1:], axis=1), 1, atol=1e-6)
    assert not written[0].any()
    np.testing.assert_array_equal(np.loadtxt(tmp_path / "out" / outputs["bval"]), BVALS)


@pytest.mark.parametrize(
    ("volume", "direction", "bvalue", "message"),
    [
        (2, (0.5, 0, 0), 1000, r"volume 2 \(the first is 0\) has b = 1000 and a direction of length 0.5 in b.bvec"),
        (3, (0, 0, 0), 2000, "no direction in b.bvec"),
        (3, (np.nan, 0, 0), 2000, "no direction in b.bvec"),
        (1, (1, 0, 0), -1000, r"b-value of volume 1 \(the first is 0\) in b.bval is -1000"),
        (1, (1, 0, 0), np.nan, "in b.bval is nan"),
    ],
)
def test_table_that_cannot_be_meant_is_refused(
    tmp_path: Path, volume: int, direction: tuple[float, float, float], bvalue: float, message: str
) -> None:
    bvals, bvecs = BVALS.copy(), directions()
    bvals[volume], bvecs[volume] = bvalue, direction
    with pytest.raises(UserError, match=message) as refusal:
        read_gradients(*write_table(tmp_path, bvals, bvecs), len(BVALS), "dwi.nii (row 2)")
    assert "\n" not in str(refusal.value)


def text_of(table: np.ndarray) -> str:
    return "\n".join(" ".join(f"{value:.6f}" for value in line) for line in table) + "\n"


@pytest.mark.parametrize(
    ("bval", "bvec"),
    [
        ("0 1000\n1000 2000\n2000\n", text_of(directions().T)),
        ("\ufeff0 1000 1000 2000 2000\n", text_of(directions().T)),
        ("0,1000,1000,2000,2000", text_of(directions())),
        ("0 1000 1000 2000 2000", text_of(np.where(BVALS > 0, directions().T, np.nan)).replace("nan", "n/a")),
    ],
    ids=["several lines", "byte order mark", "commas, a row a direction", "n/a"],
)
def test_tables_of_other_hands_are_read(tmp_path: Path, bval: str, bvec: str) -> None:
    (tmp_path / "b.bval").write_text(bval, encoding="utf-8")
    (tmp_path / "b.bvec").write_text(bvec, encoding="utf-8")
    read = read_gradients(tmp_path / "b.bval", tmp_path / "b.bvec", 5, "dwi.nii (row 2)")
    np.testing.assert_array_equal(read.bvals, BVALS)
    np.testing.assert_allclose(read.bvecs, directions(), atol=1e-5)


def test_directions_over_several_lines_a_row_are_read(tmp_path: Path) -> None:
    lines = [line for row in directions().T for line in (row[:4], row[4:])]
    (tmp_path / "b.bval").write_text("0 1000 1000 2000 2000")
    (tmp_path / "b.bvec").write_text("\n".join(" ".join(map(str, line)) for line in lines))
    read = read_gradients(tmp_path / "b.bval", tmp_path / "b.bvec", 5, "dwi.nii (row 2)")
    np.testing.assert_allclose(read.bvecs, directions(), atol=1e-9)


def test_b0_of_60_names_the_limit(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"volume 0 .* has b = 60 and no direction in b.bvec; up to b = 50 a volume counts"
    ):
        read_gradients(*write_table(tmp_path, np.where(BVALS > 0, BVALS, 60), directions()), 5, "dwi.nii (row 2)")


@settings(max_examples=80)
@given(st.binary(max_size=200), st.binary(max_size=200))
def test_no_gradient_table_is_a_traceback(bval: bytes, bvec: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name, "b.bval").write_bytes(bval)
        Path(name, "b.bvec").write_bytes(bvec)
        with pytest.raises(UserError, match=r"^dwi.nii \(row 2\): ") as refusal:
            read_gradients(Path(name, "b.bval"), Path(name, "b.bvec"), 5, "dwi.nii (row 2)")
        assert "\n" not in str(refusal.value)


@settings(max_examples=80)
@given(st.lists(st.floats(width=32), min_size=5, max_size=5), st.lists(st.floats(width=32), min_size=15, max_size=15))
def test_no_numbers_are_a_traceback(bvals: list[float], bvecs: list[float]) -> None:
    with tempfile.TemporaryDirectory() as name:
        paths = write_table(Path(name), np.array(bvals), np.array(bvecs).reshape(5, 3))
        try:
            read = read_gradients(*paths, 5, "dwi.nii (row 2)")
        except UserError as error:
            said = str(error)
        else:
            said = "read"
            assert np.isfinite(read.bvals).all()
            assert np.isfinite(read.bvecs).all()
        assert "\n" not in said


SHELLS = np.array([0, 0, *[1000] * 6, *[2000] * 6], float)


def shelled() -> tuple[np.ndarray, np.ndarray]:
    """A series whose signal falls with b, by a tenth more or less from direction to direction, and its brain."""
    random = np.random.default_rng(0)
    level = np.array([{0: 1000, 1000: 400, 2000: 150}[int(b)] for b in SHELLS]) * random.uniform(
        0.95, 1.05, len(SHELLS)
    )
    return (random.normal(1, 0.05, (6, 6, 6, 1)) * level).astype(np.float32), np.ones((6, 6, 6), bool)


def test_series_that_fits_its_table_has_no_fault() -> None:
    data, mask = shelled()
    assert series_fault(data, SHELLS, mask) == ""


@pytest.mark.parametrize("factor", [1e6, 10.0, 2.0, 0.4])
def test_volume_of_another_scale_is_named(factor: float) -> None:
    data, mask = shelled()
    data[..., 9] *= factor
    assert series_fault(data, SHELLS, mask).startswith("volume 9 (the first is 0) is ")


def test_table_of_another_series_is_noticed() -> None:
    data, mask = shelled()
    assert "not the b-values of this series" in series_fault(data, SHELLS[::-1], mask)
    swapped = np.where(SHELLS == 1000, 2000, np.where(SHELLS == 2000, 1000, 0))
    assert "b = 2000 is brighter than b = 1000" in series_fault(data, swapped, mask)
    shuffled = np.array([0, 0, *[1000, 2000] * 6], float)
    assert "not the b-values of this series" in series_fault(data, shuffled, mask)


def tensors(noise: float, count: int = 30) -> tuple[np.ndarray, Gradients, np.ndarray]:
    """A series of fibres in all directions, by the tensor's formula; its gradients and its brain."""
    random = np.random.default_rng(3)
    along = random.normal(size=(count, 3))
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    gradients = Gradients(np.array([0.0] * 3 + [1000.0] * count), np.concatenate([np.zeros((3, 3)), along]))
    fibres = random.normal(size=(8, 8, 8, 3))
    fibres /= np.linalg.norm(fibres, axis=-1, keepdims=True)
    diffusivity = 0.4e-3 + 1.2e-3 * np.einsum("xyzi,vi->xyzv", fibres, gradients.bvecs) ** 2
    signal = 1000 * np.exp(-gradients.bvals * diffusivity)
    return (signal + random.normal(0, noise, signal.shape)).astype(np.float32), gradients, np.ones((8, 8, 8), bool)


@pytest.mark.parametrize("noise", [5, 50, 150, 1e4])
def test_directions_of_the_series_itself_have_no_fault(noise: float) -> None:
    data, gradients, mask = tensors(noise)
    assert directions_fault(np.abs(data), gradients, mask) == ""
    mirrored = Gradients(gradients.bvals, gradients.bvecs[:, [1, 0, 2]] * [1, -1, 1])
    assert directions_fault(np.abs(data), mirrored, mask) == "", "spans the same"


@pytest.mark.parametrize("noise", [5, 50])
def test_directions_in_another_order_are_named_with_their_volumes(noise: float) -> None:
    data, gradients, mask = tensors(noise)
    for order in (np.arange(32, 2, -1), 3 + np.random.default_rng(0).permutation(30), np.roll(np.arange(3, 33), 1)):
        other = Gradients(gradients.bvals, gradients.bvecs[[0, 1, 2, *order]])
        fault = directions_fault(data, other, mask)
        assert fault.startswith("volumes 3, 4, 5, 6, 7 ... of b = 1000 (the first is 0): their directions explain ")


def test_directions_of_a_real_series(shared_data: Path) -> None:
    folder = shared_data / "dmri_multishell_patch"
    data = np.asarray(nib.load(folder / "dwi.nii.gz").dataobj, np.float32)
    mask = np.asarray(nib.load(folder / "mask.nii.gz").dataobj) > 0
    gradients = read_gradients(folder / "bvals", folder / "bvecs", data.shape[3], "dwi")
    assert directions_fault(data, gradients, mask) == ""
    for seed in range(20):
        order = np.arange(data.shape[3])
        for members in shells(gradients.bvals).values():
            order[members] = np.random.default_rng(seed).permutation(members)
        assert directions_fault(data, Gradients(gradients.bvals, gradients.bvecs[order]), mask)


def test_unweighted_volume_needs_no_direction(tmp_path: Path) -> None:
    bvals, bvecs = BVALS.copy(), directions()
    bvals[0], bvecs[0] = 5, np.nan
    read = read_gradients(*write_table(tmp_path, bvals, bvecs), len(BVALS), "dwi.nii (row 2)")
    np.testing.assert_array_equal(read.bvecs[0], 0)


def test_channels_are_the_signal_over_b0() -> None:
    bvals = np.array([1000.0, 0, 2000, 995, 0, 2010])
    data = np.zeros((2, 2, 2, 6), np.float32) + np.array([50, 90, 30, 40, 110, 20], np.float32)
    mask = np.arange(8).reshape(2, 2, 2) < 6
    ratios = np.array([50, 40, 30, 20]) / 100 / 1.5
    for kind, names, wanted in (
        ("shells", ["b0", "b1000", "b2000"], [1, ratios[:2].mean(), ratios[2:].mean()]),
        ("directions", ["b0", "b1000-v0", "b1000-v3", "b2000-v2", "b2000-v5"], [1, *ratios]),
    ):
        channels, found = signal_channels(data, bvals, mask, "scan", kind)
        assert found == names
        np.testing.assert_allclose(channels[mask], np.broadcast_to(wanted, (6, len(names))), rtol=1e-6)
        assert not channels[~mask].any()


def test_spread_of_a_shell_is_that_of_its_tissue_whichever_way_it_lies() -> None:
    """The six axes of the icosahedron are a spherical design: over them a + c (g.n)^2 has mean a + c / 3 and variance
    4 c^2 / 45 for any n, as over the whole sphere."""
    golden = (1 + 5**0.5) / 2
    axes = np.array([[0, 1, golden], [0, -1, golden], [1, golden, 0], [-1, golden, 0], [golden, 0, 1], [-golden, 0, 1]])
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    fibres = np.random.default_rng(0).normal(size=(8, 3))
    fibres /= np.linalg.norm(fibres, axis=1, keepdims=True)
    weighted = [100 * (a - c * (fibres @ axes.T) ** 2) for a, c in ((0.9, 0.6), (0.7, 0.5))]
    data = np.concatenate([np.full((8, 1), 100), *weighted], axis=1).reshape(2, 2, 2, 13).astype(np.float32)
    bvals = np.array([0.0, *[1000] * 6, *[2000] * 6])
    mask = np.ones((2, 2, 2), bool)
    channels, names = signal_channels(data, bvals, mask, "scan", "moments")
    assert names == ["b0", "b1000-mean", "b1000-spread", "b2000-mean", "b2000-spread"]
    spread = np.sqrt(4 / 45) / LARGEST_SPREAD
    wanted = [1, 0.7 / 1.5, 0.6 * spread, (0.7 - 0.5 / 3) / 1.5, 0.5 * spread]
    np.testing.assert_allclose(channels.reshape(8, 5), np.broadcast_to(wanted, (8, 5)), rtol=1e-5)


def test_spread_of_few_directions_is_refused() -> None:
    data = np.full((2, 2, 2, 6), 50, np.float32)
    with pytest.raises(UserError, match="5 volumes of b = 1000, too few for their spread"):
        signal_channels(data, np.array([0.0, *[1000] * 5]), np.ones((2, 2, 2), bool), "scan", "moments")


@pytest.mark.parametrize("factor", [1e-3, 1e6])
def test_b_values_in_other_units_are_refused(tmp_path: Path, factor: float) -> None:
    series(tmp_path / "dwi.nii", "LPS", oblique(15))
    bval, bvec = write_table(tmp_path, BVALS * factor, directions())
    scan = Scan("01", "", "dwi", "dwi.nii", bval=bval.name, bvec=bvec.name, row=2)
    ingest_chunk([scan], tmp_path, tmp_path / "in", workers=1)
    assert "give b-values in s/mm2" in read_table(tmp_path / "in" / "status.tsv")[0]["reason"]


def test_preprocessed_scan_keeps_its_table_b0_and_names(tmp_path: Path) -> None:
    series(tmp_path / "dwi.nii", "LPS", oblique(15))
    bval, bvec = write_table(tmp_path, BVALS, directions())
    scan = Scan("01", "", "dwi", "dwi.nii", bval=bval.name, bvec=bvec.name, row=2)
    ingest_chunk([scan], tmp_path, tmp_path / "in", workers=1)
    anything = QualityOptions(brain_volume_ml=(0, 2300))
    options = PreprocessOptions(dwi_channels="directions", quality=anything)
    preprocess_chunk(tmp_path / "in", options, tmp_path / "out", workers=1)
    row = read_table(tmp_path / "out" / "status.tsv")[0]
    assert row["ok"] == "true", row["reason"]
    assert row["shells"] == "b0 b1000 b2000"
    given, kept = (
        {name: folder / path for name, path in json.loads(read_table(folder / "status.tsv")[0]["outputs"]).items()}
        for folder in (tmp_path / "in", tmp_path / "out")
    )
    for name in ("bval", "bvec"):
        np.testing.assert_allclose(np.loadtxt(kept[name]), np.loadtxt(given[name]), atol=1e-7)
    ingested, b0, image = (nib.load(path) for path in (given["image"], kept["b0"], kept["image"]))
    np.testing.assert_array_equal(b0.affine, ingested.affine)
    brain = nib.load(kept["mask"]).get_fdata() > 0
    np.testing.assert_array_equal(b0.get_fdata(), ingested.get_fdata()[..., 0] * brain)
    reference = measure_native(Volume(ingested.get_fdata()[..., 0].astype(np.float32), ingested.affine), brain, 1)
    assert float(row["snr"]) == pytest.approx(reference["snr"], rel=1e-3)
    sidecar = json.loads(kept["image"].with_name(kept["image"].name.replace(".nii.gz", ".json")).read_text())
    assert sidecar["Channels"] == ["b0", "b1000-v1", "b1000-v2", "b2000-v3", "b2000-v4"]
    assert image.shape[3] == len(sidecar["Channels"])


def test_volume_of_nothing_is_refused(tmp_path: Path) -> None:
    affine = series(tmp_path / "whole.nii", "LPS", oblique(15))
    data = nib.load(tmp_path / "whole.nii").get_fdata()
    data[..., 3] = 0
    nib.save(nib.Nifti1Image(data.astype(np.float32), affine), tmp_path / "dwi.nii")
    bval, bvec = write_table(tmp_path, BVALS, directions())
    scan = Scan("01", "", "dwi", "dwi.nii", bval=bval.name, bvec=bvec.name, row=2)
    ingest_chunk([scan], tmp_path, tmp_path / "in", workers=1)
    assert "volume 3 (the first is 0) is the same everywhere" in read_table(tmp_path / "in" / "status.tsv")[0]["reason"]


@pytest.mark.parametrize(("pair", "fitted"), [("", False), ("other", True)])
def test_maps_are_fitted_only_where_none_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pair: str, fitted: bool
) -> None:
    series(tmp_path / "dwi.nii", "LPS", oblique(15))
    maps = np.random.default_rng(0).uniform(0, 1, (5, 6, 4, 3)).astype(np.float32)
    nib.save(nib.Nifti1Image(maps, oblique(15)), tmp_path / "noddi.nii")
    bval, bvec = write_table(tmp_path, BVALS, directions())
    scans = [
        Scan("01", "", "dwi", "dwi.nii", bval=bval.name, bvec=bvec.name, row=2),
        Scan("01", "", "noddi", "noddi.nii", pair=pair, row=3),
    ]
    ingest_chunk(scans, tmp_path, tmp_path / "in", workers=1)
    options = PreprocessOptions(noddi="amico", quality=QualityOptions(brain_volume_ml=(0, 2300)))
    stage = "pipeline_lib.imaging.preprocess"
    monkeypatch.setattr(f"{stage}.require_amico", lambda: None if fitted else pytest.fail("AMICO is asked for"))
    monkeypatch.setattr(f"{stage}.fit_noddi", lambda series, *_: Volume(maps, series.affine))
    monkeypatch.setattr(f"{stage}.version", lambda _: "0")
    preprocess_chunk(tmp_path / "in", options, tmp_path / "out", workers=1)
    rows = read_table(tmp_path / "out" / "status.tsv")
    assert [row["ok"] for row in rows] == ["true", "true"], [row["reason"] for row in rows]
    outputs = json.loads(rows[0]["outputs"])
    assert ("noddi" in outputs) is fitted
    rows_shown = 3 + (3 if fitted else 0)  # b0, b1000, b2000, and the maps
    assert Image.open(tmp_path / "out" / outputs["figure"]).height == 200 * rows_shown


def test_scan_without_a_brain_says_so(tmp_path: Path) -> None:
    data = np.random.default_rng(0).uniform(10, 100, (6, 6, 2, len(BVALS))).astype(np.float32)  # two slices
    nib.save(nib.Nifti1Image(data, oblique(0)), tmp_path / "dwi.nii")
    bval, bvec = write_table(tmp_path, BVALS, directions())
    scan = Scan("01", "", "dwi", "dwi.nii", bval=bval.name, bvec=bvec.name, row=2)
    ingest_chunk([scan], tmp_path, tmp_path / "in", workers=1)
    preprocess_chunk(tmp_path / "in", PreprocessOptions(), tmp_path / "out", workers=1)
    assert "no brain was found" in read_table(tmp_path / "out" / "status.tsv")[0]["reason"]


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
