"""Correlation by region, on labels whose place in millimetres is known."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.regions import Regions, correlations, summary

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
OWN = {
    "scan": "sub-a1_dwi",
    "participant": "a1",
    "session": "",
    "affine": json.dumps(AFFINE.tolist()),
    "space": "native",
}


def label_map(path: Path) -> Path:
    """Label 7 in the right half of 16 mm, 9 in the left, voxels of 1 mm from another corner."""
    labels = np.zeros((20, 20, 20), np.int16)
    labels[2:10], labels[10:18] = 7, 9
    affine = np.eye(4)
    affine[:3, 3] = -2.5
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(labels, affine), path)
    return path


def test_labels_lie_where_their_millimetres_say(tmp_path: Path) -> None:
    label_map(tmp_path / "labels" / "A-1_seg.nii.gz")
    (tmp_path / "labels.tsv").write_text("index\tname\n7\tright\n9\tleft\n")
    regions = Regions(f"{tmp_path}/labels/{{participant}}_seg.nii.gz")
    labels = regions.of({**OWN, "participant": "A1"}, (8, 8, 8))
    assert labels is not None
    np.testing.assert_array_equal(labels[:, 4, 4], [7, 7, 7, 7, 9, 9, 9, 9])
    assert regions.names == {7: "right", 9: "left"}
    assert regions.of({**OWN, "participant": "b"}, (8, 8, 8)) is None


def test_an_atlas_is_for_images_in_its_space(tmp_path: Path) -> None:
    regions = Regions(str(label_map(tmp_path / "atlas.nii.gz")))
    labels = regions.of({**OWN, "space": "MNI152"}, (8, 8))
    assert labels is not None
    assert labels.shape == (8, 8)
    with pytest.raises(UserError, match="labels of each person"):
        regions.of(OWN, (8, 8, 8))
    with pytest.raises(UserError, match="does not exist"):
        Regions(str(tmp_path / "none.nii.gz"))


def test_a_region_has_its_own_correlation() -> None:
    random = np.random.default_rng(0)
    target = random.normal(size=(8, 8, 8))
    labels = np.ones((8, 8, 8), int)
    labels[4:] = 2
    labels[0, 0, :3] = 3  # too few voxels
    predicted = np.where(labels == 2, -target, target)
    rows = correlations(labels, np.ones_like(labels, bool), {"one": predicted}, target)
    assert [(row["label"], pytest.approx(row["one"])) for row in rows] == [(1, 1.0), (2, -1.0)]
    assert rows[0]["voxels"] == 4 * 64 - 3


def test_differences_are_paired_over_people() -> None:
    rows = [
        {"participant": person, "channel": "ICVF", "label": 7, "voxels": 40, "diffusion": r + 0.1, "floor": r}
        for person, r in (("a", 0.2), ("b", 0.5), ("c", 0.8))
    ]
    table = summary(pd.DataFrame(rows), {7: "right"}, "diffusion", ["floor"], resamples=50, seed=0)
    (row,) = table.to_dict("records")
    assert (row["region"], row["people"], row["voxels"]) == ("right", 3, 40)
    assert row["floor"] == pytest.approx(0.5)
    found = [row[f"diffusion minus floor{end}"] for end in ("", ", low", ", high")]
    assert found == pytest.approx([0.1, 0.1, 0.1])
