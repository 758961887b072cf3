"""Regions of findings: by an atlas on another grid, checked when it is read, fetched by nilearn as it is read."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from made_report import CHUNK, VIEWED, make_volumes
from nilearn import datasets

from pipeline_lib.config.schema import ReportOptions
from pipeline_lib.errors import UserError
from pipeline_lib.imaging.nifti import Volume
from pipeline_lib.report.atlas import Atlas, fetch
from pipeline_lib.report.findings import findings
from pipeline_lib.report.view import Inferred, view_of

NAMES = "index\tname\n1\tLeft half\n2\tRight half\n"


@pytest.fixture
def halves(tmp_path: Path) -> tuple[Path, Path]:
    """An atlas of 4 mm of the left and the right half of space, with nothing below -40 mm."""
    data = np.zeros((50, 60, 50), np.uint8)
    data[:25, :, 8:], data[25:, :, 8:] = 1, 2
    affine = np.diag([4.0, 4, 4, 1])
    affine[:3, 3] = -98, -118, -70
    nib.save(nib.Nifti1Image(data, affine), tmp_path / "halves_dseg.nii.gz")
    (tmp_path / "halves_dseg.tsv").write_text(NAMES)
    return tmp_path / "halves_dseg.nii.gz", tmp_path / "halves_dseg.tsv"


def test_a_finding_is_named_by_the_region_that_holds_the_most_of_it(halves: tuple[Path, Path]) -> None:
    atlas = Atlas.read(*halves)
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = -80, -100, -70
    scores = np.zeros((80, 100, 70), np.float32)
    scores[10:12, 50, 40] = 1  # far left
    scores[37:47, 50, 40] = 2  # from -6 to 12 mm across the midline
    scores[60, 50, 3] = 3  # below the atlas
    volume = Volume(scores, affine)
    across, left, below = findings(volume, 0.5, regions=atlas.on(volume))
    assert (left.region, left.share) == ("Left half", 1.0)
    assert across.region == "Right half"
    x = affine[0, 3] + 2 * np.arange(37, 47)
    assert across.share == pytest.approx((x >= 0).mean(), abs=0.11), "a voxel of the atlas is two of the map"
    assert (below.region, below.share) == ("", 0.0)
    assert findings(volume, 0.5)[0].region is None


def test_a_scan_page_has_regions_where_the_map_lies_in_the_template(halves: tuple[Path, Path], tmp_path: Path) -> None:
    opened, prepared = make_volumes(tmp_path, VIEWED)
    folders = [tmp_path / "anomaly" / part for part in (f"inference/{CHUNK}", f"dataset/{CHUNK}", "evaluation")]
    own = {name: tmp_path / "preprocess" / CHUNK / path for name, path in prepared.items()}
    path = folders[0] / "nifti" / f"{VIEWED}_desc-anomaly_map.nii.gz"
    made = nib.load(path)
    expected = {}
    for code in (4, 1):
        image = nib.Nifti1Image(np.asarray(made.dataobj), made.affine)
        image.set_sform(made.affine, code=code)
        nib.save(image, path)
        view = view_of(VIEWED, {}, own, [Inferred.of(*folders)], Atlas.read(*halves))
        expected[code] = [one.region for one in view.found[0].findings]
        if code == 4:
            sides = ["Left half" if one.place[0] < 0 else "Right half" for one in view.found[0].findings]
    assert expected[4] == sides
    assert expected[1] == [None, None], "a map in the scan's own space is not looked up"
    assert opened


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda image, table: table.write_text("index\tname\n1\tLeft half\n"), "no name for region 2 of halves"),
        (lambda image, table: table.write_text("number\tlabel\n1\tx\n"), "no table with the columns index and name"),
        (lambda image, table: table.write_text("index\tname\nx\ty\n"), "index holds something that is no number"),
        (lambda image, table: image.write_bytes(b"no image"), "cannot be read as NIfTI"),
        (
            lambda image, table: nib.save(nib.Nifti1Image(np.full((3, 3, 3), 0.5, np.float32), np.eye(4)), image),
            "no volume of whole numbers",
        ),
    ],
)
def test_what_is_no_atlas_is_refused(halves: tuple[Path, Path], change: Any, expected: str) -> None:
    change(*halves)
    with pytest.raises(UserError, match=expected):
        Atlas.read(*halves)


def test_an_atlas_that_nilearn_fetched_is_read_as_any_other(
    halves: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pd.DataFrame({"index": [0, 1, 2], "name": ["Background", "Left half", "Right half"]})
    made = SimpleNamespace(maps=nib.load(halves[0]), lut=table, atlas_type="deterministic")
    asked = []
    monkeypatch.setattr(datasets, "fetch_atlas_juelich", lambda *which, **_: asked.append(which) or made)
    (line,) = fetch("juelich:maxprob-thr25-1mm", tmp_path / "atlases")
    assert asked == [("maxprob-thr25-1mm",)]
    path = tmp_path / "atlases" / "juelich_maxprob-thr25-1mm_dseg.nii.gz"
    assert str(path) in line
    options = ReportOptions(atlas=str(path))
    assert Atlas.read(path, Path(str(options.atlas_table))).names == {1: "Left half", 2: "Right half"}


def test_an_atlas_that_cannot_be_fetched_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(**_: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(datasets, "fetch_atlas_aal", offline)
    with pytest.raises(UserError, match=r"aal: nilearn cannot get it \(no route to host\); where there is no network"):
        fetch("aal", tmp_path)
    with pytest.raises(UserError, match="nonsense: nilearn has no such atlas; it has aal, "):
        fetch("nonsense", tmp_path)
    monkeypatch.setattr(datasets, "fetch_atlas_msdl", lambda **_: SimpleNamespace(maps="x", lut=None))
    with pytest.raises(UserError, match="overlap or have no names"):
        fetch("msdl", tmp_path)
    assert not list(tmp_path.iterdir())
