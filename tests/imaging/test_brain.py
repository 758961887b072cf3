"""Brain extraction: heads it never saw, stripped scans, slabs, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline_lib.errors import UserError
from pipeline_lib.imaging.brain import WEIGHTS, already_stripped, brain_probability, extract_brain, largest_component
from pipeline_lib.imaging.nifti import Volume, read_volume
from pipeline_lib.imaging.quality import dice

HELD_OUT_DICE = 0.97


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
