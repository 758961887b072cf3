"""Maps over pictures: the most abnormal first, all of them in the table."""

from __future__ import annotations

import io
import urllib.parse
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.report.pictures import mapped_pictures
from pipeline_lib.report.view import Inferred


def inferred(folder: Path, peaks: list[float], threshold: float | None) -> Inferred:
    """Maps of .1 with one pixel of a known height each, pictures packed in the other order, a brain of the left half."""
    number = len(peaks)
    for name in ("inference", "dataset"):
        (folder / name).mkdir()
    maps = np.full((number, 1, 8, 8), 0.1, np.float32)
    maps[:, 0, 2, 2] = peaks
    maps[:, 0, 2, 6] = 99  # outside the brain
    mask = np.zeros((number, 1, 8, 8), np.uint8)
    mask[..., :4] = 1
    np.save(folder / "inference" / "maps.npy", maps)
    np.save(folder / "dataset" / "mask.npy", mask)
    np.save(folder / "dataset" / "data.npy", np.zeros((number, 1, 8, 8), np.float32))
    index = pd.DataFrame(
        {"scan": [f"p{n}_image" for n in range(number)], "participant": [f"p{n}" for n in range(number)]}
    )
    index = index.assign(group="", row=range(number)[::-1])
    return Inferred("anomaly", folder / "inference", folder / "dataset", threshold, index)


def rows_of(link: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(urllib.parse.unquote(link.partition(",")[2])), sep="\t")


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_the_highest_score_within_the_brain_comes_first(tmp_path: Path, threshold: float | None) -> None:
    (found,) = mapped_pictures("test-image-0001", [inferred(tmp_path, [0.4, 0.9, 0.6], threshold)])
    table = rows_of(found.table.address)
    assert table["participant"].tolist() == ["p1", "p2", "p0"]
    assert table["highest"].tolist() == pytest.approx([0.9, 0.6, 0.4])
    assert table["mean"].tolist() == pytest.approx([(0.1 * 31 + peak) / 32 for peak in (0.9, 0.6, 0.4)])
    assert ("pixels_at_threshold" in table) == (threshold is not None)
    if threshold is not None:
        assert table["pixels_at_threshold"].tolist() == [1, 1, 0]
    assert found.pictures == 3
    assert not found.shown.problem
    assert ("red line" in found.shown.caption) == (threshold is not None)


def test_a_recipe_that_made_no_maps_shows_none(tmp_path: Path) -> None:
    each = inferred(tmp_path, [0.5], None)
    (tmp_path / "inference" / "maps.npy").unlink()
    assert list(mapped_pictures("test-image-0001", [each])) == []
