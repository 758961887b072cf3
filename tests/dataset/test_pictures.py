"""Grey pictures by median and MAD: a lesion does not change its own scale, and dark fluid stays in the brain."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline_lib.config.schema import DataOptions
from pipeline_lib.dataset.pictures import images_of_pictures
from pipeline_lib.dataset.volumes import LeftOut

DATA = DataOptions.model_validate({"modality": "image", "size": [40, 32], "intensity": "median_mad"})
ROW = {"outputs": json.dumps({"image": "a"})}


def brain(lesion: int = 0) -> np.ndarray:
    """An ellipse of noise about 100 with a dark ventricle and, if wanted, a bright lesion."""
    rows, columns = np.mgrid[:40, :32]
    radius = np.hypot((rows - 19.5) / 18, (columns - 15.5) / 14)
    values = np.random.default_rng(0).normal(100, 10, (40, 32))
    values[17:22, 14:18] = 5
    values[26:32, 8:13] += lesion
    return np.where(radius < 1, values, 0).round().astype(np.uint8)[None, ..., None]


def test_values_are_deviations_from_the_median_and_fluid_is_brain() -> None:
    picture = brain()
    (image,) = images_of_pictures({"a": picture}, ROW, DATA)  # type: ignore[arg-type]  # what it asks of stacks
    inside = image.mask[0] > 0
    assert inside[17:22, 14:18].all(), "the ventricle is darker than what counts as background, but inside"
    grey = picture[0, ..., 0].astype(float)
    middle = np.median(grey[inside])
    deviation = 1.4826 * np.median(np.abs(grey[inside] - middle))
    np.testing.assert_allclose(
        image.data[0][inside], np.clip((grey[inside] - middle) / deviation / 5, -1, 1), atol=1e-5
    )
    assert (image.data[0][~inside] == -1).all()


def test_a_lesion_leaves_the_rest_as_it_was() -> None:
    (without,), (with_lesion,) = (
        list(images_of_pictures({"a": brain(strength)}, ROW, DATA))  # type: ignore[arg-type]
        for strength in (0, 60)
    )
    change = np.abs(with_lesion.data - without.data)
    change[:, 26:32, 8:13] = 0
    assert change.max() < 0.1
    assert with_lesion.data[0, 26:32, 8:13].mean() > 0.5


def test_colours_and_empty_pictures_are_left_out() -> None:
    with pytest.raises(LeftOut, match=r"data\.channels is 3"):
        list(images_of_pictures({"a": brain()}, ROW, DATA.model_copy(update={"channels": 3})))  # type: ignore[arg-type]
    with pytest.raises(LeftOut, match="background"):
        list(images_of_pictures({"a": np.zeros((1, 40, 32, 1), np.uint8)}, ROW, DATA))  # type: ignore[arg-type]
