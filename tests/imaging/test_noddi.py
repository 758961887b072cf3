"""NODDI maps come back from signals that were simulated from known ones."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from pipeline_lib.cohort.diffusion_mri import simulate
from pipeline_lib.cohort.sheet import Scan
from pipeline_lib.cohort.synthetic import make_cohort
from pipeline_lib.config.schema import DataOptions, PreprocessOptions
from pipeline_lib.dataset.pack import pack_chunk
from pipeline_lib.errors import UserError
from pipeline_lib.files import read_table
from pipeline_lib.imaging.dwi import LARGEST_RATIO, Gradients, shells
from pipeline_lib.imaging.ingest import NODDI_MAPS, ingest_chunk
from pipeline_lib.imaging.nifti import Volume, read_volume
from pipeline_lib.imaging.noddi import fit_noddi, scheme
from pipeline_lib.imaging.preprocess import preprocess_chunk
from pipeline_lib.metrics.powder import powder_mean

SHAPE = (12, 10, 6)


@pytest.fixture(scope="session")
def amico() -> None:
    pytest.importorskip("amico", reason="AMICO fits the maps: pip install '.[noddi]'")


def smooth(random: np.random.Generator, low: float, high: float) -> np.ndarray:
    field = ndimage.gaussian_filter(random.standard_normal(SHAPE), 1.5)
    return low + (high - low) * (field - field.min()) / np.ptp(field)


def many_directions() -> Gradients:
    """Three b0 and two shells of 60 directions on a spiral around the sphere."""
    n = np.arange(60) + 0.5
    z, angle = 1 - n / 30, np.pi * (1 + 5**0.5) * n
    spiral = np.stack([np.sqrt(1 - z**2) * np.cos(angle), np.sqrt(1 - z**2) * np.sin(angle), z], 1)
    bvecs = np.concatenate([np.zeros((3, 3)), spiral, np.roll(spiral, 1, axis=1)])
    return Gradients(np.repeat([0.0, 1000.0, 2000.0], [3, 60, 60]), bvecs)


@pytest.mark.usefixtures("amico")
def test_known_maps_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for place in ("TMPDIR", "HOME"):
        (tmp_path / place).mkdir()
        monkeypatch.setenv(place, str(tmp_path / place))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    truth = np.stack([smooth(random, 0.2, 0.8), smooth(random, 0.1, 0.9), smooth(random, 0, 0.6)], -1)
    gradients = many_directions()
    signal = 1000 * simulate(np.moveaxis(truth, -1, 0), gradients.bvals, gradients.bvecs, random)
    mask = np.ones(SHAPE, bool)
    mask[0], signal[1, 0, 0] = False, 0
    written = gradients.bvals + np.where(gradients.bvals > 0, random.integers(-5, 6, len(gradients.bvals)), 5)
    fitted = fit_noddi(
        Volume(signal.astype(np.float32), np.eye(4)), Gradients(written, gradients.bvecs), mask, "scan"
    ).data
    assert not fitted[0].any(), "outside the brain"
    assert not fitted[1, 0, 0].any(), "no signal"
    mask[1, 0, 0] = False
    assert (np.abs(fitted - truth)[mask].mean(0) < 0.01).all(), np.abs(fitted - truth)[mask].mean(0)
    assert np.abs(fitted - truth)[mask].max() < 0.06
    assert capfd.readouterr() == ("", "")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["HOME", "TMPDIR"], "nothing is left behind"


@pytest.mark.usefixtures("amico")
def test_maps_of_a_real_brain_come_back(shared_data: Path) -> None:
    """The slice has maps fitted by MDT and its protocol, but no signal: it is simulated from the maps."""
    folder = shared_data / "mdt_noddi_slice"
    w_ic, w_ec, w_csf, kappa = (
        nib.load(folder / "NODDI" / f"{name}.nii.gz").get_fdata()[40:70, 40:70, :, 0]
        for name in ("w_ic.w", "w_ec.w", "w_csf.w", "NODDI_IC.kappa")
    )
    brain = nib.load(folder / "mask.nii.gz").get_fdata()[40:70, 40:70] > 0
    icvf = np.where(brain, w_ic / np.maximum(w_ic + w_ec, 1e-6), 0)
    odi = np.clip(
        2 / np.pi * np.arctan2(1, 10 * kappa), 0.02, 0.98
    )  # MDT stored kappa / 10: only so does FA agree with its tensor's
    bvals, bvecs = (np.loadtxt(folder / f"b1k_b2k.{kind}") for kind in ("bval", "bvec"))
    signal = simulate(np.stack([icvf, odi, w_csf]), bvals, bvecs.T, np.random.default_rng(0))
    fitted = fit_noddi(Volume(signal.astype(np.float32), np.eye(4)), Gradients(bvals, bvecs.T), brain, "slice").data
    tissue = brain & (w_csf < 0.8)  # where there is no tissue, its properties are not determined
    for channel, truth in enumerate((icvf, odi, w_csf)):
        assert np.abs(fitted[..., channel] - truth)[tissue].mean() < 0.03, NODDI_MAPS[channel]
        assert np.corrcoef(fitted[..., channel][tissue], truth[tissue])[0, 1] > 0.95, NODDI_MAPS[channel]


@pytest.mark.usefixtures("amico")
def test_maps_of_a_real_scan_say_what_its_signal_says(shared_data: Path) -> None:
    folder = shared_data / "dmri_multishell_patch"
    series, mask = read_volume(folder / "dwi.nii.gz"), read_volume(folder / "mask.nii.gz").data > 0
    gradients = Gradients(np.loadtxt(folder / "bvals"), np.loadtxt(folder / "bvecs").T)
    mask &= series.data[..., gradients.bvals == 0].mean(-1) > 0
    icvf, odi, isovf = fit_noddi(series, gradients, mask, "patch").data[mask].T
    assert 0.3 < np.median(icvf) < 0.7
    assert 0.2 < np.median(odi) < 0.7
    assert np.median(isovf) < 0.2
    found, signal = shells(gradients.bvals), series.data[mask]
    ratio = signal[:, found[700]].mean(1) / signal[:, found[0]].mean(1)
    assert np.corrcoef(isovf, ratio)[0, 1] < -0.7, "free water loses its signal first"
    spread = signal[:, found[2800]].std(1) / signal[:, found[0]].mean(1)
    tissue = isovf < 0.3
    assert np.corrcoef(odi[tissue], spread[tissue])[0, 1] < -0.4, "aligned neurites differ between directions"


@pytest.mark.usefixtures("amico")
def test_scan_without_given_maps_is_paired_with_its_fitted_ones(tmp_path: Path) -> None:
    scans = [scan for scan in make_cohort(tmp_path, [1], root=tmp_path, voxel_mm=4.0) if scan.modality == "dwi"]
    ingest_chunk(scans, tmp_path, tmp_path / "ingest", workers=1)
    preprocess_chunk(tmp_path / "ingest", PreprocessOptions(noddi="amico"), tmp_path / "preprocess", workers=1)
    row = read_table(tmp_path / "preprocess" / "status.tsv")[0]
    assert row["ok"] == "true", row["reason"]
    outputs = {name: tmp_path / "preprocess" / path for name, path in json.loads(row["outputs"]).items()}
    maps, mask = nib.load(outputs["noddi"]), nib.load(outputs["mask"])
    assert maps.shape == (*mask.shape, len(NODDI_MAPS))
    np.testing.assert_array_equal(maps.affine, mask.affine)
    sidecar = json.loads(outputs["noddi"].with_name(outputs["noddi"].name.replace(".nii.gz", ".json")).read_text())
    assert sidecar["Channels"] == list(NODDI_MAPS)
    assert "AMICO" in sidecar["Steps"][-1]
    paired = {"modality": "dwi", "target": "noddi", "dimensions": 3, "size": [16, 20, 16], "voxel_size": 10.0}
    pack_chunk(tmp_path / "preprocess", DataOptions.model_validate(paired | {"channels": 3}), tmp_path / "packed")
    target, brain = (np.load(tmp_path / "packed" / f"{name}.npy") for name in ("target", "mask"))
    inside = (target[0][:, brain[0, 0] > 0] + 1) / 2
    np.testing.assert_allclose(inside.mean(1), maps.get_fdata()[mask.get_fdata() > 0].mean(0), atol=0.06)


@pytest.mark.usefixtures("amico")
def test_fit_that_fails_is_one_line() -> None:
    gradients = many_directions()
    data = np.full((*SHAPE, len(gradients.bvals)), 100, np.float32)
    data[3, 3, 3, 70] = np.nan
    with pytest.raises(UserError, match=r"scan: AMICO failed \(\[ ERROR \] Nan or Inf") as refusal:
        fit_noddi(Volume(data, np.eye(4)), gradients, np.ones(SHAPE, bool), "scan")
    assert "\n" not in str(refusal.value)
    assert "\x1b" not in str(refusal.value)


def test_volumes_of_a_shell_have_one_b_value() -> None:
    written = np.array([5.0, 995, 1005, 2000, 1990, 0])
    assert scheme(Gradients(written, np.zeros((6, 3))))[:, 3].tolist() == [0, 1000, 1000, 1995, 1995, 0]


def test_one_shell_is_too_few() -> None:
    data, mask = np.ones((2, 2, 2, 3), np.float32), np.ones((2, 2, 2), bool)
    gradients = Gradients(np.array([0.0, 1000, 1000]), np.eye(3))
    with pytest.raises(UserError, match=r"scan: one shell \(b1000\), and NODDI needs two"):
        fit_noddi(Volume(data, np.eye(4)), gradients, mask, "scan")


def test_missing_amico_stops_the_stage_before_any_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ingest_chunk([Scan("01", "", "dwi", "a.nii", bval="a", bvec="b", row=2)], tmp_path, tmp_path / "in", workers=1)
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "amico" else found(name))
    with pytest.raises(UserError, match=r"AMICO is not installed: pip install .*\[noddi\]"):
        preprocess_chunk(tmp_path / "in", PreprocessOptions(noddi="amico"), tmp_path / "out", workers=1)
    preprocess_chunk(tmp_path / "in", PreprocessOptions(), tmp_path / "out", workers=1)


@pytest.mark.usefixtures("amico")
def test_a_real_scan_goes_from_the_sheet_to_a_pair(shared_data: Path, tmp_path: Path) -> None:
    """Three shells of a part of a head: too little brain for the default limit, which is said, and a pair with another."""
    scan = Scan("patch1", "", "dwi", "dwi.nii.gz", mask="mask.nii.gz", bval="bvals", bvec="bvecs")
    ingest_chunk([scan], shared_data / "dmri_multishell_patch", tmp_path / "ingest", workers=1)
    options = {"noddi": "amico", "dwi_channels": "moments", "voxel_size": 2.5}
    preprocess_chunk(tmp_path / "ingest", PreprocessOptions.model_validate(options), tmp_path / "whole", workers=1)
    (refused,) = read_table(tmp_path / "whole" / "status.tsv")
    assert (refused["ok"], refused["stage"]) == ("false", "quality")
    assert "quality.brain_volume_ml" in refused["reason"]
    options["quality"] = {"brain_volume_ml": [20, 100]}
    preprocess_chunk(tmp_path / "ingest", PreprocessOptions.model_validate(options), tmp_path / "part", workers=1)
    (row,) = read_table(tmp_path / "part" / "status.tsv")
    assert row["ok"] == "true", row["reason"]
    assert row["shells"] == "b0 b700 b1200 b2800"
    data = {
        "modality": "dwi",
        "target": "noddi",
        "dimensions": 3,
        "size": [16, 16, 16],
        "voxel_size": 2.5,
        "channels": 7,
    }
    pack_chunk(tmp_path / "part", DataOptions.model_validate(data), tmp_path / "packed")
    source, target, mask = (np.load(tmp_path / "packed" / f"{name}.npy")[0] for name in ("data", "target", "mask"))
    assert (source.shape[0], target.shape[0]) == (7, 3)
    inside = mask[0] > 0
    maps = (target[:, inside] + 1) / 2
    signal = (source[:, inside] + 1) / 2 * LARGEST_RATIO
    for b, channel in ((700, 1), (1200, 3), (2800, 5)):
        made = powder_mean(maps, b)
        assert np.corrcoef(made, signal[channel])[0, 1] > 0.9, "the maps' signal is the scan's"
