"""Multi-shell diffusion MRI simulated from known NODDI maps (Zhang et al. 2012, doi:10.1016/j.neuroimage.2012.03.072).

S/S0 = v_iso exp(-b D_iso) + (1 - v_iso) [v_ic A_ic + (1 - v_ic) A_ec]
A_ic = integral over the sphere of f(n) exp(-b d (g.n)^2), f the Watson distribution of concentration kappa
A_ec = exp(-b (d_perp' + (d_par' - d_perp') (g.mu)^2)), d' from d, v_ic and tau = <(n.mu)^2> (tortuosity)
ODI  = (2 / pi) arctan(1 / kappa)
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

D_PARALLEL = 1.7e-3
D_FREE = 3.0e-3
"""mm2/s, the values of the paper."""
SHELLS = {0: 2, 1000: 12, 2000: 12}
"""b-value (s/mm2) -> number of volumes."""
KAPPAS = np.geomspace(0.02, 30, 40)
COSINES = np.linspace(0, 1, 33)

VALUES = {"ICVF": (0.42, 0.68, 0.05, 0.35), "ODI": (0.50, 0.20, 0.80, 0.45), "ISOVF": (0.10, 0.04, 0.95, 0.40)}
"""Of grey matter, white matter, fluid and lesions."""

Array = NDArray[np.float64]


def gradient_table(random: np.random.Generator) -> tuple[Array, Array]:
    """b-values (V,) and directions (V, 3), spread over the half sphere for each shell."""
    bvals, bvecs = [], []
    for b, count in SHELLS.items():
        bvals += [float(b)] * count
        bvecs.append(_spread(count, random) if b else np.zeros((count, 3)))
    return np.array(bvals), np.concatenate(bvecs)


def noddi_maps(
    tissues: NDArray[np.float32],
    random: np.random.Generator,
    values: Mapping[str, tuple[float, ...]] = VALUES,
    varied: float = 0.04,
) -> Array:
    """ICVF, ODI, ISOVF (3, X, Y, Z) in [0, 1] from tissue fractions; 0 outside the brain.

    Args:
        values: of each map in grey matter, white matter, fluid and lesions.
        varied: standard deviation of a smooth change of each map.
    """
    grey, white, fluid, *_, lesion = tissues
    brain = grey + white + fluid + lesion
    weight = np.maximum(brain, 1e-3)
    maps = []
    for per_tissue in values.values():
        mean = sum(value * part for value, part in zip(per_tissue, (grey, white, fluid, lesion), strict=True)) / weight
        vary = ndimage.gaussian_filter(random.standard_normal(grey.shape), 4)
        maps.append(np.clip(mean + varied * vary / vary.std(), 0.01, 0.99) * (brain > 0.5))
    return np.stack(maps)


def simulate(maps: Array, bvals: Array, bvecs: Array, random: np.random.Generator) -> Array:
    """Signal (X, Y, Z, V) over S0 at each voxel of ``maps`` (3, X, Y, Z), without noise."""
    icvf, odi, isovf = maps
    direction = np.stack([ndimage.gaussian_filter(random.standard_normal(icvf.shape), 5) for _ in range(3)])
    direction /= np.linalg.norm(direction, axis=0)
    kappa = 1 / np.tan(np.clip(odi, 0.02, 0.98) * np.pi / 2)
    table, taus = _watson_tables()
    position = np.interp(np.log(kappa), np.log(KAPPAS), np.arange(len(KAPPAS)))
    tau = np.interp(position, np.arange(len(KAPPAS)), taus)
    parallel = D_PARALLEL * (1 - icvf * (1 - tau))
    across = D_PARALLEL * (1 - icvf * (1 + tau) / 2)
    volumes = []
    for b, g in zip(bvals, bvecs, strict=True):
        if b == 0:
            volumes.append(np.ones_like(icvf))
            continue
        cosine = np.abs(np.tensordot(g, direction, 1)).clip(0, 1)
        inside = ndimage.map_coordinates(table[b], [position, cosine * (len(COSINES) - 1)], order=1, mode="nearest")
        outside = np.exp(-b * (across + (parallel - across) * cosine**2))
        volumes.append(isovf * np.exp(-b * D_FREE) + (1 - isovf) * (icvf * inside + (1 - icvf) * outside))
    return np.stack(volumes, -1)


def acquire(
    maps: Array, s0: Array, factor: int, sigma: float, random: np.random.Generator
) -> tuple[Array, Array, Array]:
    """A series (X, Y, Z, V) at voxels ``factor`` times as large, with Rician noise, and its b-values and directions.

    Args:
        maps: ICVF, ODI, ISOVF (3, X, Y, Z) at the fine voxels.
        s0: signal without weighting, (X, Y, Z).
        sigma: standard deviation of the noise of either part of the signal, in units of ``s0``.
    """
    bvals, bvecs = gradient_table(random)
    signal = blocks(s0[..., None] * simulate(maps, bvals, bvecs, random), factor)
    real, imaginary = (sigma * random.standard_normal(signal.shape) for _ in range(2))
    return np.hypot(signal + real, imaginary), bvals, bvecs


def blocks(values: Array, n: int) -> Array:
    """Means over blocks of n x n x n voxels (the first three axes): what a voxel of a coarser grid holds."""
    x, y, z = (size // n for size in values.shape[:3])
    shaped = values[: x * n, : y * n, : z * n].reshape(x, n, y, n, z, n, *values.shape[3:])
    mean: Array = shaped.mean((1, 3, 5))
    return mean


@functools.lru_cache(maxsize=1)
def _watson_tables() -> tuple[dict[float, Array], Array]:
    """A_ic by b (kappa x cosine), and tau by kappa, by numerical integration over the sphere."""
    sphere = _spread(2000, None)
    along = sphere[:, 2]
    weights = np.exp(KAPPAS[:, None] * (along[None] ** 2 - 1))
    weights /= weights.sum(1, keepdims=True)
    gradients = np.stack([np.sqrt(1 - COSINES**2), np.zeros_like(COSINES), COSINES], 1)
    squared = (gradients @ sphere.T) ** 2
    tables = {float(b): weights @ np.exp(-b * D_PARALLEL * squared).T for b in SHELLS if b}
    return tables, weights @ along**2


def _spread(count: int, random: np.random.Generator | None) -> Array:
    """Directions spread over the sphere on a Fibonacci spiral, turned at random."""
    i = np.arange(count) + 0.5
    z = 1 - (i / count if random is not None else 2 * i / count)
    angle = np.pi * (1 + 5**0.5) * i
    points = np.stack([np.sqrt(1 - z**2) * np.cos(angle), np.sqrt(1 - z**2) * np.sin(angle), z], 1)
    if random is not None:
        turn, _ = np.linalg.qr(random.standard_normal((3, 3)))
        points = points @ turn.T
    return points
