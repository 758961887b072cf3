"""Where images lie and how much of the brain they hold, against numbers counted by hand."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_chunks import FLAT, preprocessed

from pipeline_lib.config.schema import DataOptions
from pipeline_lib.dataset.grids import field_of_view, grids_of
from pipeline_lib.dataset.index import brain_outside, read_index
from pipeline_lib.dataset.pack import pack_chunk
from pipeline_lib.dataset.volumes import ChannelVolume

CENTRED = np.diag([1.0, 1, 1, 1])
CENTRED[:3, 3] = (-20, -38, -14)  # the middle of 41 voxels lies at the centre of the MNI152 brain


def box(x: int, y: int, z: int) -> ChannelVolume:
    """A brain that is a box of so many voxels of 1 mm about the centre of the MNI152 brain."""
    values = np.zeros((1, 41, 41, 41), np.float32)
    inside = tuple(slice(20 - n // 2, 20 + n // 2 + 1) for n in (x, y, z))
    values[(0, *inside)] = 1
    return ChannelVolume(values, CENTRED)


@pytest.mark.parametrize(
    ("plane", "size", "outside"),
    [
        ("axial", [21, 11], 0),
        ("axial", [21, 9], 2 / 11),
        ("axial", [19, 11], 2 / 21),
        ("coronal", [31, 11], 0),
        ("coronal", [29, 11], 2 / 31),
        ("sagittal", [31, 21], 0),
        ("sagittal", [31, 19], 2 / 21),
    ],
)
def test_what_slices_leave_out_is_counted(plane: str, size: list[int], outside: float) -> None:
    brain = box(11, 21, 31)
    where = {"sagittal": (-3, 3), "coronal": (-20, -16), "axial": (4, 8)}[plane]
    slices = {"plane": plane, "from_mm": where[0], "to_mm": where[1], "every_mm": 2}
    data = DataOptions.model_validate({"size": size, "slices": slices})
    view = field_of_view(brain, grids_of(brain, brain, data, in_mni=True))
    assert view.outside == pytest.approx(outside)
    assert all(n % 16 == 0 for n in view.needed)
    enough = data.model_copy(update={"size": list(view.needed)})
    assert field_of_view(brain, grids_of(brain, brain, enough, in_mni=True)).outside == 0


def test_only_the_planes_of_the_slices_count() -> None:
    brain = box(11, 21, 31)
    brain.values[0, :, :, 30:] = 1  # wide above all slices
    slices = {"from_mm": 0, "to_mm": 10, "every_mm": 5}
    data = DataOptions.model_validate({"size": [21, 11], "slices": slices})
    assert field_of_view(brain, grids_of(brain, brain, data, in_mni=True)).outside == 0


def test_a_volume_is_counted_in_its_own_voxels() -> None:
    brain = box(11, 21, 31)
    data = DataOptions.model_validate({"dimensions": 3, "size": [6, 8, 16], "voxel_size": 2.0})
    view = field_of_view(brain, grids_of(brain, brain, data, in_mni=True))
    assert view.outside == pytest.approx(1 - 17 / 21, abs=0.05), "8 voxels of 2 mm hold 16 to 17 of 21 mm"


def test_the_default_holds_the_brain_of_the_template() -> None:
    registration = pytest.importorskip("pipeline_lib.imaging.registration")
    reference, mask = registration.template()
    brain = ChannelVolume(mask[None].astype(np.float32), reference.affine)
    data = DataOptions(voxel_size=1.0)
    assert field_of_view(brain, grids_of(brain, brain, data, in_mni=True)).outside == 0
    cut = data.model_copy(update={"size": [128, 128]})
    assert field_of_view(brain, grids_of(brain, brain, cut, in_mni=True)).outside > 0.15


def test_a_cut_brain_is_said_with_its_share_and_the_size_that_holds_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chunk = preprocessed(tmp_path / "chunk", [("a", "CN"), ("b", "AD")])
    with caplog.at_level(logging.WARNING, "pipeline"):
        pack_chunk(chunk, FLAT.model_copy(update={"size": [8, 8]}), tmp_path / "packed")
    index = read_index(tmp_path / "packed")
    share = brain_outside(index)
    assert share is not None
    assert share == pytest.approx(1 - np.load(tmp_path / "packed" / "mask.npy").sum() / whole_slices(chunk), abs=0.03)
    assert f"leave out {100 * share:.1f} % of the brain" in caplog.text
    assert "data.size: [16, 16] holds all of it" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "pipeline"):
        pack_chunk(chunk, FLAT, tmp_path / "whole")
    assert brain_outside(read_index(tmp_path / "whole")) == 0
    assert not caplog.text
    assert brain_outside(pd.DataFrame({"scan": ["p"]})) is None


def whole_slices(chunk: Path) -> float:
    """Brain, in voxels of 12 mm, of the slices at 0, 10 and 20 mm of both people."""
    pack_chunk(chunk, FLAT.model_copy(update={"size": [48, 48]}), chunk / "everything")
    return float(np.load(chunk / "everything" / "mask.npy").sum())
