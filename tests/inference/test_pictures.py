import numpy as np
import pytest
from PIL import Image

from pipeline_lib.inference.animation import filmstrip, write_gif
from pipeline_lib.inference.pictures import Row, Tile, mosaic

SIZE = (4, 6, 5)


def test_wide_tiles_have_as_much_height_as_square_ones() -> None:
    square, wide = (mosaic([Row([Tile(np.zeros((4, width)))] * 2)] * 3) for width in (4, 12))
    assert square.get_figheight() == wide.get_figheight()
    assert wide.get_figwidth() - 1.2 == pytest.approx(3 * (square.get_figwidth() - 1.2))


def test_volumes_are_animated_in_three_planes(tmp_path) -> None:
    frames = [(step, *np.random.default_rng(step + 1).random((2, 2, 1, *SIZE), np.float32)) for step in (9, 4, -1)]
    write_gif(frames, tmp_path / "reverse.gif")
    with Image.open(tmp_path / "reverse.gif") as film:
        assert film.width / film.height == pytest.approx(2 * 14 / (2 * 6))
    assert filmstrip(frames, "").axes[0].images[0].get_array().shape == (6, 14)
