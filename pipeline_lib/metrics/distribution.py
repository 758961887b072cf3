"""How far a set of generated images lies from a set of real ones.

Frechet distance between Gaussians fitted to features (Heusel 2017) and the unbiased squared maximum
mean discrepancy with a cubic kernel (KID, Binkowski 2018). Both depend on the feature network and,
FID strongly, on the number of images: they are only ever reported with N, the network's name and the
same distance between two sets of real images.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Features = NDArray[np.float64]


class FeatureNetwork(Protocol):
    """Any network from images ``(N, C, *spatial)`` in [-1, 1] to features ``(N, D)``, with a name to report."""

    name: str

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
    """FID of two sets of features ``(N, D)`` and ``(M, D)``, two or more each; in squared feature units."""
    return gaussian_distance(
        features_a.mean(axis=0),
        np.cov(features_a, rowvar=False),
        features_b.mean(axis=0),
        np.cov(features_b, rowvar=False),
    )


def kernel_distance(features_a: Features, features_b: Features) -> float:
    """KID, the unbiased squared MMD with kernel ``(x y / D + 1)^3``; may be slightly negative."""
    size = features_a.shape[1]

    def kernel(a: Features, b: Features) -> Features:
        return (a @ b.T / size + 1) ** 3

    def within(a: Features) -> float:
        gram = kernel(a, a)
        return float((gram.sum() - np.trace(gram)) / (len(a) * (len(a) - 1)))

    return within(features_a) + within(features_b) - 2 * float(kernel(features_a, features_b).mean())


def standardised(features: Features, reference: Features) -> Features:
    """Features in units of the reference set's standard deviation, so that no feature rules the distance."""
    return (features - reference.mean(axis=0)) / np.maximum(reference.std(axis=0), 1e-6)
