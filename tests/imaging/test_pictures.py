"""One canonical picture from one file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline_lib.cohort.sheet import Scan
from pipeline_lib.errors import UserError
from pipeline_lib.files import read_table
from pipeline_lib.imaging.ingest import ingest_chunk
from pipeline_lib.imaging.pictures import find_slices, fit_picture, read_marks, read_slices
from pipeline_lib.imaging.stacks import Stacks


def disc(height: int, width: int) -> np.ndarray:
    """A red disc as high as the picture is, on white: its shape tells of the aspect ratio."""
    rows, columns = np.ogrid[:height, :width]
    inside = (rows - (height - 1) / 2) ** 2 + (columns - (width - 1) / 2) ** 2 <= (height / 2 - 4) ** 2
    return np.where(inside[..., None], [1.0, 0, 0], [1.0, 1, 1])


@pytest.mark.parametrize("shape", [(60, 120), (120, 60), (60, 60)])
def test_padding_keeps_the_shape_and_takes_the_colour_of_the_border(shape: tuple[int, int]) -> None:
    picture = disc(min(shape), min(shape))
    extra = (max(shape) - min(shape)) // 2
    around = [(extra, extra), (0, 0), (0, 0)] if shape[0] > shape[1] else [(0, 0), (extra, extra), (0, 0)]
    picture = np.pad(picture, around, constant_values=1)
    fitted = fit_picture(picture, (64, 64), "pad")
    assert fitted.shape == (64, 64, 3)
    red = fitted[..., 1] < 0.5
    height, width = (int(red.any(axis).sum()) for axis in (1, 0))
    assert abs(height - width) <= 1, "a disc stays a disc"
    assert fitted.min(-1)[0].min() > 0.99, "no black bar"
    stretched = fit_picture(picture, (64, 64), "stretch")[..., 1] < 0.5
    assert (shape[0] == shape[1]) == (abs(int(stretched.any(1).sum()) - int(stretched.any(0).sum())) <= 1)


def test_cropping_keeps_the_middle_and_fills_the_canvas() -> None:
    picture = np.zeros((40, 120, 3))
    picture[:, 40:80] = 1
    assert fit_picture(picture, (40, 40), "crop").min() == 1


def test_transparent_pixels_lie_on_white_behind_colours_and_on_black_behind_grey(tmp_path: Path) -> None:
    layers = np.zeros((8, 8, 4), np.uint8)
    layers[2:6, 2:6] = (200, 40, 40, 255)
    Image.fromarray(layers).save(tmp_path / "colour.png")
    layers[2:6, 2:6, :3] = 120
    Image.fromarray(layers).save(tmp_path / "grey.png")
    colour, grey = (read_slices([tmp_path / f"{name}.png"], "row")[0] for name in ("colour", "grey"))
    assert colour.shape == (8, 8, 3)
    assert colour[0, 0].tolist() == [255, 255, 255]
    assert colour[3, 3].tolist() == [200, 40, 40]
    assert grey.shape == (8, 8, 1)
    assert (grey[0, 0, 0], grey[3, 3, 0]) == (0, 120)


def test_marks_belong_to_their_slices(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for n in range(2):
        Image.fromarray(rng.integers(0, 255, (12, 10), np.uint8)).save(tmp_path / f"slice{n}.png")
    for high in (1, 255):
        marked = np.zeros((2, 12, 10), np.uint8)
        marked[1, 3:6, 2:4] = high
        for n in range(2):
            Image.fromarray(marked[n]).save(tmp_path / f"lesion{n}.png")
        scan = Scan("01", "", "image", "slice*.png", lesion="lesion*.png", row=2)
        ingest_chunk([scan], tmp_path, tmp_path / "in", workers=1)
        row = read_table(tmp_path / "in" / "status.tsv")[0]
        assert row["ok"] == "true", row["reason"]
        lesion = Stacks(tmp_path / "in")[json.loads(row["outputs"])["lesion"]]
        np.testing.assert_array_equal(lesion[..., 0], marked > 0)
    slices = read_slices(find_slices(tmp_path, "slice*.png", "row"), "row")
    with pytest.raises(UserError, match="1 masks for 2 slices"):
        read_marks([tmp_path / "lesion0.png"], "row", slices)
    with pytest.raises(UserError, match="10 x 12 pixels for a slice of 12 x 10"):
        read_marks([tmp_path / "lesion0.png"], "row", slices[:1].transpose(0, 2, 1, 3))


def test_a_pipe_is_no_picture(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    ingest_chunk([Scan("01", "", "image", "*.png", row=2)], tmp_path, tmp_path / "in", workers=1)
    assert "pipe.png is a pipe or a device" in read_table(tmp_path / "in" / "status.tsv")[0]["reason"]
