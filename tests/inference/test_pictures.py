import numpy as np
import pytest
from PIL import Image

from pipeline_lib.inference.animation import filmstrip, write_gif
from pipeline_lib.inference.pictures import Row, Tile, abreast, mosaic, ortho, plane

SIZE = (4, 6, 5)
"""Right, anterior, superior."""


def volume(axis: int) -> np.ndarray:
    """Every voxel says how far along ``axis`` it is."""
    return np.broadcast_to(
        np.expand_dims(np.arange(SIZE[axis], dtype=np.float32), [n for n in range(3) if n != axis]), SIZE
    )[None]


def test_three_slices_through_the_middle_lie_side_by_side_on_a_common_line() -> None:
    assert ortho(volume(0)).shape == (6, 4 + 4 + 6)


@pytest.mark.parametrize(
    ("axis", "axial", "coronal", "sagittal"),
    [
        (0, [0, 1, 2, 3], [0, 1, 2, 3], [2] * 6),
        (1, [3] * 4, [3] * 4, [0, 1, 2, 3, 4, 5]),
        (2, [2] * 4, [2] * 4, [2] * 6),
    ],
)
def test_columns_run_to_the_right_and_in_the_sagittal_slice_to_the_front(axis, axial, coronal, sagittal) -> None:
    assert ortho(volume(axis))[2].tolist() == axial + coronal + sagittal


def test_front_is_up_in_the_axial_slice_and_top_in_the_others() -> None:
    assert ortho(volume(1))[:, 0].tolist() == [5, 4, 3, 2, 1, 0]
    assert ortho(volume(2))[:, 4].tolist() == ortho(volume(2))[:, 8].tolist() == [4, 3, 2, 1, 0, 0]


def test_an_image_of_two_dimensions_is_shown_as_it_is() -> None:
    image = np.random.default_rng(0).random((3, 5, 7), np.float32)
    np.testing.assert_array_equal(ortho(image), plane(image))
    assert abreast(image[None], 8) == 8
    assert abreast(volume(0)[None], 8) == 2
    assert abreast(volume(0)[None], 2) == 1


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
