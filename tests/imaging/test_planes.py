import numpy as np
import pytest
import torch

from pipeline_lib.imaging.planes import abreast, ortho, plane
from pipeline_lib.training.progress import to_rgb

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


def test_a_strip_shows_volumes_as_any_picture_does_and_three_maps_in_colours() -> None:
    volumes = np.random.default_rng(0).uniform(-1, 1, (2, 3, *SIZE)).astype(np.float32)
    shown = to_rgb(torch.from_numpy(volumes))
    assert shown.shape == (2, 6, 14, 3)
    for channel in range(3):
        view = ortho(volumes[1, channel : channel + 1], ground=-1)
        assert (shown[1, :, :, channel] == ((view + 1) * 127.5).round()).all()
    grey = to_rgb(torch.from_numpy(volumes[:, :2]))
    assert (grey == shown[..., :1]).all()
    assert to_rgb(torch.full((1, 3, 5, 7), 2.0)).tolist() == np.full((1, 5, 7, 3), 255).tolist()
