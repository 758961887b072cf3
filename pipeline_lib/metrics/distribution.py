"""How far a set of generated images lies from a set of real ones.

Frechet distance between Gaussians fitted to features (Heusel 2017), the unbiased squared maximum
mean discrepancy with a cubic kernel (KID, Binkowski 2018), and what the two mix up taken apart: precision and
recall (Kynkaanniemi 2019), density and coverage (Naeem 2020). All depend on the feature network and,
FID strongly, on the number of images: they are only ever reported with N, the network's name and the
same number between two sets of real images.

Written here, since a set is compared with 150 halves of people: torchmetrics' FID and KID send the images of either side
through their network for each, want (N, 3, H, W), and KID only of random subsets. Here features of any network, 2D or
3D, are taken once; on the same features the values are torchmetrics' (tests/metrics/test_distribution.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from torch import Tensor, nn

Features = NDArray[np.float64]


class FeatureNetwork(Protocol):
    """Any network from images ``(N, C, *spatial)`` in [-1, 1] to features ``(N, D)``, with a name to report.

    ``standardise``: whether its features have no scale of their own and are compared in units of their spread.
    """

    @property
    def name(self) -> str: ...

    @property
    def standardise(self) -> bool: ...

    def __call__(self, images: Tensor) -> Tensor: ...


class RandomConvFeatures(nn.Module):
    """64 features of an untrained network with fixed weights: nothing to download, the same anywhere.

    At scales 1, 1/2, 1/4 and 1/8: 8 random kernels 5 voxels wide, rectified; the mean and standard
    deviation of each map. Random convolutions see intensity, texture and size at each scale, and no
    semantics: good for comparing checkpoints of one recipe, not with numbers of Inception.
    """

    scales = 4
    kernels = 8
    width = 5
    standardise = True

    def __init__(self, *, dimensions: int, channels: int, seed: int = 0) -> None:
        super().__init__()
        self.name = f"random-conv-64 (seed {seed})"
        generator = torch.Generator().manual_seed(seed)
        shape = (self.scales, self.kernels, channels, *[self.width] * dimensions)
        fan_in = channels * self.width**dimensions
        self.weights: Tensor
        self.register_buffer("weights", torch.randn(shape, generator=generator) / fan_in**0.5)
        self._convolve = {2: nn.functional.conv2d, 3: nn.functional.conv3d}[dimensions]
        self._halve = {2: nn.functional.avg_pool2d, 3: nn.functional.avg_pool3d}[dimensions]

    def forward(self, images: Tensor) -> Tensor:
        """Features ``(N, 64)`` of images ``(N, C, *spatial)`` of 8 voxels or more along each axis."""
        features = []
        for scale in range(self.scales):
            if scale:
                images = self._halve(images, 2)
            maps = self._convolve(images, self.weights[scale], padding=self.width // 2).relu().flatten(2)
            features += [maps.mean(dim=2), maps.std(dim=2)]
        return torch.cat(features, dim=1)


@torch.no_grad()
def extract(network: FeatureNetwork, images: NDArray[np.floating], batch: int = 64) -> Features:
    """Features ``(N, D)`` of images ``(N, C, *spatial)``, read in batches from a memory map."""
    parts = [
        network(torch.from_numpy(np.array(images[start : start + batch], dtype=np.float32))).double().numpy()
        for start in range(0, len(images), batch)
    ]
    return np.concatenate(parts)


def gaussian_distance(mean_a: Features, covariance_a: Features, mean_b: Features, covariance_b: Features) -> float:
    """Squared Frechet distance of two Gaussians: ``|a - b|^2 + tr(A + B - 2 (A B)^(1/2))``.

    The trace of the square root is the sum of the square roots of the eigenvalues of
    ``A^(1/2) B A^(1/2)``, which is symmetric: no complex square root, and singular matrices (fewer
    images than features) are no special case.
    """
    values, vectors = np.linalg.eigh(covariance_a)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    product = np.linalg.eigvalsh(root @ covariance_b @ root)
    trace = np.trace(covariance_a) + np.trace(covariance_b) - 2 * np.sqrt(np.clip(product, 0, None)).sum()
    return float(((mean_a - mean_b) ** 2).sum() + trace)


def frechet_distance(features_a: Features, features_b: Features) -> float:
    """FID of two sets of features ``(N, D)`` and ``(M, D)``, two or more each; in squared feature units.

    The trace of the square root of A B is the nuclear norm of ``X Y^T``, X and Y being the centred features over the
    root of their number less one. Where images are fewer than features that costs N M min(N, M) and not D^3.
    """
    means = features_a.mean(axis=0), features_b.mean(axis=0)
    if max(len(features_a), len(features_b)) >= features_a.shape[1]:
        covariances = np.cov(features_a, rowvar=False), np.cov(features_b, rowvar=False)
        return gaussian_distance(means[0], covariances[0], means[1], covariances[1])
    x, y = (
        (features - mean) / np.sqrt(len(features) - 1)
        for features, mean in zip((features_a, features_b), means, strict=True)
    )
    root = np.linalg.norm(x @ y.T, ord="nuc")
    return float(((means[0] - means[1]) ** 2).sum() + (x**2).sum() + (y**2).sum() - 2 * root)


def kernel_distance(features_a: Features, features_b: Features) -> float:
    """KID, the unbiased squared MMD with kernel ``(x y / D + 1)^3``; may be slightly negative."""
    size = features_a.shape[1]

    def kernel(a: Features, b: Features) -> Features:
        return (a @ b.T / size + 1) ** 3

    def within(a: Features) -> float:
        gram = kernel(a, a)
        return float((gram.sum() - np.trace(gram)) / (len(a) * (len(a) - 1)))

    return within(features_a) + within(features_b) - 2 * float(kernel(features_a, features_b).mean())


@dataclass(frozen=True)
class Manifolds:
    """Shares of two sets that lie within each other's balls around the k nearest neighbours.

    precision: generated images inside a ball of a real one. recall: real images inside a ball of a generated one.
    density: real balls a generated image lies in, over k; may exceed 1. coverage: real balls that hold a generated image.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def manifolds(real: Features, generated: Features, neighbours: int = 5) -> Manifolds:
    """Precision, recall, density and coverage of ``generated`` ``(M, D)`` against ``real`` ``(N, D)``.

    A ball's radius is the distance to the k-th nearest other image of the same set.

    Raises:
        ValueError: a set has no more images than ``neighbours``.
    """
    if min(len(real), len(generated)) <= neighbours:
        raise ValueError(f"{min(len(real), len(generated))} images: more than {neighbours} are needed on each side")
    of_real, of_generated = _radii(real, neighbours), _radii(generated, neighbours)
    between = cdist(real, generated)
    inside = between < of_real[:, None]
    return Manifolds(
        precision=float(inside.any(axis=0).mean()),
        recall=float((between < of_generated[None]).any(axis=1).mean()),
        density=float(inside.sum(axis=0).mean() / neighbours),
        coverage=float((between.min(axis=1) < of_real).mean()),
    )


def _radii(features: Features, neighbours: int) -> Features:
    distances = cdist(features, features)
    radii: Features = np.partition(distances, neighbours, axis=1)[:, neighbours]
    return radii


def standardised(features: Features, reference: Features) -> Features:
    """Features in units of the reference set's standard deviation, so that no feature rules the distance."""
    return (features - reference.mean(axis=0)) / np.maximum(reference.std(axis=0), 1e-6)
