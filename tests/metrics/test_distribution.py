"""Distances between sets of images against closed forms and torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from pipeline_lib.metrics.distribution import (
    RandomConvFeatures,
    extract,
    frechet_distance,
    gaussian_distance,
    kernel_distance,
    standardised,
)


class Flatten(torch.nn.Module):
    num_features = 6

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :6]


def test_gaussians_with_commuting_covariances_have_a_closed_form() -> None:
    a, b = np.diag([4.0, 9.0, 0.0]), np.diag([1.0, 16.0, 25.0])
    mean = np.array([1.0, 0.0, 2.0])
    assert gaussian_distance(mean, a, np.zeros(3), b) == pytest.approx(5 + 1 + 1 + 25)


def test_one_dimensional_gaussians_and_a_rotation() -> None:
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    a, b = np.diag([4.0, 9.0, 1.0]), np.diag([1.0, 1.0, 1.0])
    zero = np.zeros(3)
    assert gaussian_distance(zero, turn @ a @ turn.T, zero, b) == pytest.approx(1 + 4 + 0)


def test_fid_and_kid_equal_torchmetrics() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(120, 6)), rng.normal(0.3, 1.4, size=(90, 6))
    fid = FrechetInceptionDistance(feature=Flatten(), input_img_size=(1, 2, 3), normalize=True)
    kid = KernelInceptionDistance(feature=Flatten(), subset_size=90, subsets=1, normalize=True)
    fid.set_dtype(torch.float64)
    for measure in (fid, kid):
        for features, real in ((a, True), (b, False)):
            rows = features[:90] if measure is kid else features
            measure.update(torch.from_numpy(rows).reshape(-1, 1, 2, 3), real=real)
    assert frechet_distance(a, b) == pytest.approx(float(fid.compute()), rel=1e-3)
    assert kernel_distance(a[:90], b) == pytest.approx(float(kid.compute()[0]), rel=1e-3)


def test_fid_of_drawn_gaussians_tends_to_their_distance() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(0, 1, size=(20000, 2)), rng.normal(1, 2, size=(20000, 2))
    assert frechet_distance(a, b) == pytest.approx(2 * (1 + 1), rel=0.05)


def test_kid_is_unbiased_for_equal_distributions() -> None:
    rng = np.random.default_rng(3)
    values = [kernel_distance(rng.normal(size=(20, 4)), rng.normal(size=(20, 4))) for _ in range(300)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(300)


def test_fewer_images_than_features_is_no_special_case() -> None:
    features = np.random.default_rng(4).normal(size=(8, 64))
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-6 * np.trace(np.cov(features.T)))


@pytest.mark.parametrize(("channels", "size"), [(1, (32, 32)), (3, (64, 48)), (1, (16, 16, 16))])
def test_features_are_64_and_the_same_every_time(channels: int, size: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).uniform(-1, 1, (5, channels, *size)).astype(np.float32)
    one, two = (extract(RandomConvFeatures(dimensions=len(size), channels=channels), images, b) for b in (2, 64))
    assert one.shape == (5, 64)
    np.testing.assert_allclose(one, two, atol=1e-5)


def test_features_tell_blurred_images_from_sharp_ones() -> None:
    rng = np.random.default_rng(5)
    sharp = rng.uniform(-1, 1, (120, 1, 32, 32)).astype(np.float32)
    blurred = torch.nn.functional.avg_pool2d(torch.from_numpy(sharp), 3, 1, 1).numpy()
    network = RandomConvFeatures(dimensions=2, channels=1)
    a, b, c = (standardised(extract(network, x), extract(network, sharp)) for x in (sharp[:60], sharp[60:], blurred))
    assert frechet_distance(a, c) > 20 * frechet_distance(a, b)
