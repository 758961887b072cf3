"""Distances between sets of images against closed forms and torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from pipeline_lib.metrics.distribution import (
    RandomConvFeatures,
    extract,
    frechet_distance,
    gaussian_distance,
    kernel_distance,
    manifolds,
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


def test_fid_costs_less_and_is_the_same_with_fewer_images_than_features() -> None:
    rng = np.random.default_rng(6)
    a, b = rng.normal(size=(20, 50)), rng.normal(0.2, 1.3, size=(30, 50))
    whole = gaussian_distance(a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False))
    assert frechet_distance(a, b) == pytest.approx(whole, rel=1e-6)


def test_precision_recall_density_and_coverage_equal_their_definitions_point_by_point() -> None:
    """Naeem 2020, equations 2 to 5, written out with scikit-learn's neighbours."""
    rng = np.random.default_rng(7)
    real, fake, k = rng.normal(size=(60, 3)), rng.normal(0.7, 0.8, size=(40, 3)), 4

    def radius(points: np.ndarray) -> np.ndarray:
        return NearestNeighbors(n_neighbors=k + 1).fit(points).kneighbors(points)[0][:, -1]

    def inside(point: np.ndarray, centres: np.ndarray, radii: np.ndarray) -> int:
        return sum(np.linalg.norm(point - centre) < r for centre, r in zip(centres, radii, strict=True))

    of_real, of_fake = radius(real), radius(fake)
    found = manifolds(real, fake, k)
    assert found.precision == pytest.approx(np.mean([inside(x, real, of_real) > 0 for x in fake]))
    assert found.recall == pytest.approx(np.mean([inside(x, fake, of_fake) > 0 for x in real]))
    assert found.density == pytest.approx(np.mean([inside(x, real, of_real) for x in fake]) / k)
    covered = [any(np.linalg.norm(x - y) < r for y in fake) for x, r in zip(real, of_real, strict=True)]
    assert found.coverage == pytest.approx(np.mean(covered))


def test_coverage_of_two_samples_of_one_distribution_has_a_closed_form() -> None:
    """Naeem 2020, lemma 3: E[coverage] = 1 - (N-1)...(N-k) / ((M+N-1)...(M+N-k)); E[density] = 1."""
    rng = np.random.default_rng(8)
    n, m, k = 80, 60, 5
    found = [manifolds(rng.normal(size=(n, 6)), rng.normal(size=(m, 6)), k) for _ in range(60)]
    expected = 1 - np.prod([(n - i) / (m + n - i) for i in range(1, k + 1)])
    assert np.mean([f.coverage for f in found]) == pytest.approx(expected, abs=0.02)
    assert np.mean([f.density for f in found]) == pytest.approx(1, abs=0.05)


def test_memorised_and_collapsed_sets_are_told_apart() -> None:
    real = np.random.default_rng(9).normal(size=(100, 4))
    same = manifolds(real, real)
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    collapsed = manifolds(real, real[:1] + np.random.default_rng(0).normal(0, 1e-3, (100, 4)))
    assert collapsed.precision == 1
    assert collapsed.recall < 0.05
    with pytest.raises(ValueError, match="more than 5"):
        manifolds(real[:5], real)
