"""Did the model copy its training images?

Distances are root-mean-square differences of images averaged down to at most 32 voxels an axis
(a copy with other noise stays a copy). A held-out real person shows how near a new image naturally
comes: a ratio far under 1 between samples-to-training and held-out-to-training tells of copies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

LARGEST_SIDE = 32


@dataclass(frozen=True)
class Nearest:
    """For each query the nearest reference: RMS distance ``(N,)`` in intensity units and its row ``(N,)``."""

    distance: NDArray[np.float64]
    row: NDArray[np.int64]


def reduced(images: NDArray[np.floating]) -> NDArray[np.float32]:
    """Images ``(N, C, *spatial)`` averaged down to at most 32 voxels an axis and flattened: ``(N, D)``."""
    size = [min(n, LARGEST_SIDE) for n in images.shape[2:]]
    tensor = torch.from_numpy(np.array(images, dtype=np.float32))
    pool = torch.nn.AdaptiveAvgPool2d if len(size) == 2 else torch.nn.AdaptiveAvgPool3d
    small: NDArray[np.float32] = pool(tuple(size))(tensor).flatten(1).numpy()
    return small


def nearest(queries: NDArray[np.floating], references: NDArray[np.floating], block: int = 512) -> Nearest:
    """Nearest row of ``references`` ``(M, D)`` to each row of ``queries`` ``(N, D)``, exact, in blocks."""
    distance = np.empty(len(queries))
    row = np.empty(len(queries), dtype=np.int64)
    known = torch.from_numpy(np.asarray(references, dtype=np.float32))
    for start in range(0, len(queries), block):
        query = torch.from_numpy(np.asarray(queries[start : start + block], dtype=np.float32))
        # The exact mode: the faster one by matrix product loses the small distances that matter here.
        values, places = torch.cdist(query, known, compute_mode="donot_use_mm_for_euclid_dist").min(dim=1)
        distance[start : start + block] = values.numpy() / np.sqrt(queries.shape[1])
        row[start : start + block] = places.numpy()
    return Nearest(distance, row)


def closeness_ratio(samples: Nearest, held_out: Nearest) -> float:
    """Median distance of samples to training over that of held-out real images to training."""
    return float(np.median(samples.distance) / np.median(held_out.distance))


def suspicious(samples: Nearest, held_out: Nearest) -> NDArray[np.bool_]:
    """Samples ``(N,)`` under half of the 1st percentile of what held-out real images show."""
    return samples.distance < 0.5 * np.percentile(held_out.distance, 1)
