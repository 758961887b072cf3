"""What of a brain a scan does not show."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from pipeline_lib.imaging.field import cropped, cuts, empty_inside, empty_slices, outside_field
from pipeline_lib.imaging.nifti import Volume
from pipeline_lib.imaging.registration import template

HERE = sitk.Transform()
"""The template registered to itself."""


def brain() -> tuple[Volume, np.ndarray]:
    reference, mask = template()
    noise = np.random.default_rng(0).uniform(0.01, 0.05, mask.shape)
    return Volume(np.where(mask, reference.data + noise, 0).astype(np.float32), reference.affine), mask


def test_a_whole_brain_is_whole() -> None:
    scan, mask = brain()
    assert cuts(scan, mask) == []
    assert outside_field(cropped(scan, []), HERE) == 0
    assert empty_inside(scan, mask, scan, HERE) == 0
    assert empty_slices(scan, mask) == (0, "")


@pytest.mark.parametrize(("axis", "end", "name"), [(0, 1, "right"), (1, 0, "back"), (2, 1, "top"), (2, 0, "bottom")])
@pytest.mark.parametrize("black", [True, False], ids=["black", "beyond"])
def test_what_was_cut_off_is_named_and_measured(axis: int, end: int, name: str, black: bool) -> None:
    scan, mask = brain()
    levels = np.flatnonzero(mask.any(tuple(n for n in range(3) if n != axis)))
    plane = levels[-1] - 15 if end else levels[0] + 15
    lost = np.moveaxis(np.zeros_like(mask), axis, 0)
    lost[slice(plane + 1, None) if end else slice(0, plane)] = True
    lost = np.moveaxis(lost, 0, axis)
    seen = Volume(np.where(lost, 0, scan.data), scan.affine)
    mask_seen = mask & ~lost
    if not black:
        kept = [slice(None)] * 3
        kept[axis] = slice(0, plane + 1) if end else slice(plane, None)
        affine = scan.affine.copy()
        affine[:3, 3] += affine[:3, axis] * (0 if end else plane)
        seen, mask_seen = Volume(scan.data[tuple(kept)], affine), mask[tuple(kept)]
    found = cuts(seen, mask_seen)
    assert [cut.name for cut in found] == [name]
    share = outside_field(cropped(seen, found), HERE)
    assert share == pytest.approx((mask & lost).sum() / mask.sum(), abs=0.012)
    assert empty_inside(seen, mask_seen, cropped(seen, found), HERE) < 0.01, "what is beyond the field is no hole"


def test_a_hole_is_measured() -> None:
    scan, mask = brain()
    middle = tuple(slice(n // 2 - 8, n // 2 + 8) for n in mask.shape)
    data = scan.data.copy()
    data[middle] = 0
    inner = 16**3 / mask.sum()
    assert inner < empty_inside(Volume(data, scan.affine), mask, scan, HERE) < 2 * inner


def test_slices_of_one_value_are_named_within_the_brain_alone() -> None:
    scan, mask = brain()
    data = scan.data.copy()
    data[:, :, 40:43] = 0
    assert empty_slices(Volume(data, scan.affine), mask) == (3, "slices 40, 41, 42 along z")
