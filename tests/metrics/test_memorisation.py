"""A copied image is found, also with noise on it; new images are not accused."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline_lib.metrics.memorisation import closeness_ratio, nearest, reduced, suspicious


def smooth_images(number: int, seed: int, dimensions: int = 2) -> np.ndarray:
    coarse = np.random.default_rng(seed).uniform(-1, 1, (number, 1, *[4] * dimensions))
    for axis in range(2, 2 + dimensions):
        coarse = coarse.repeat(12, axis=axis)
    return coarse


@pytest.mark.parametrize("dimensions", [2, 3])
def test_copies_are_found_and_named(dimensions: int) -> None:
    train, held_out, new = (smooth_images(20, seed, dimensions) for seed in (0, 1, 2))
    noisy = train[[7, 3]] + np.random.default_rng(9).normal(0, 0.05, train[:2].shape)
    samples = np.concatenate([new[:4], noisy])
    near = nearest(reduced(samples), reduced(train))
    real = nearest(reduced(held_out), reduced(train))
    assert list(near.row[4:]) == [7, 3]
    assert suspicious(near, real).tolist() == [False] * 4 + [True] * 2


def test_ratio_is_one_for_new_images_and_zero_for_copies() -> None:
    train, held_out, new = (reduced(smooth_images(60, seed)) for seed in (0, 1, 2))
    real = nearest(held_out, train)
    assert closeness_ratio(nearest(new, train), real) == pytest.approx(1, abs=0.1)
    assert closeness_ratio(nearest(train, train), real) == 0


def test_nearest_is_exact_and_in_intensity_units() -> None:
    references = np.array([[0.0, 0, 0, 0], [1, 1, 1, 1]])
    found = nearest(np.array([[0.1, 0.1, 0.1, 0.1], [0.8, 0.8, 0.8, 0.8]]), references, block=1)
    assert found.row.tolist() == [0, 1]
    np.testing.assert_allclose(found.distance, [0.1, 0.2], atol=1e-6)
