"""Lesions as objects, against scikit-image's regions and against masks drawn by hand."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.measure import label, regionprops

from pipeline_lib.metrics.lesions import components


def test_found_missed_and_false_ones_of_a_mask_drawn_by_hand() -> None:
    truth, detected = np.zeros((12, 12), bool), np.zeros((12, 12), bool)
    truth[1:3, 1:3] = True
    truth[3, 3] = True  # touches by a corner: one lesion of 5
    truth[8:11, 8:11] = True  # missed
    detected[3:5, 3:5] = True
    detected[0, 9:12] = True  # false
    found = components(detected, truth, voxel=4.0)
    assert found.lesions.tolist() == [20, 36]
    assert found.found.tolist() == [True, False]
    assert found.false.tolist() == [12]


@pytest.mark.parametrize("shape", [(40, 40), (14, 15, 16)])
def test_equal_to_scikit_image_in_2d_and_3d(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    truth, detected = rng.random(shape) < 0.05, rng.random(shape) < 0.05
    found = components(detected, truth)
    regions = regionprops(label(truth, connectivity=truth.ndim))
    assert sorted(found.lesions) == sorted(region.area for region in regions)
    hit = [detected[tuple(region.coords.T)].any() for region in regions]
    assert int(found.found.sum()) == sum(hit)
    false = [r for r in regionprops(label(detected, connectivity=truth.ndim)) if not truth[tuple(r.coords.T)].any()]
    assert sorted(found.false) == sorted(region.area for region in false)


def test_empty_masks_have_none() -> None:
    empty = np.zeros((5, 5), bool)
    found = components(empty, empty)
    assert found.lesions.size == found.found.size == found.false.size == 0
