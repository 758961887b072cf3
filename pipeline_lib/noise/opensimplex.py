"""OpenSimplex gradient noise, evaluated for many seeds and points at once on any device.

K. Spencer's OpenSimplex (2014) in three dimensions as the PyPI package `opensimplex` defines it; for the same
64-bit seed the values are the same. Space holds the lattice A_3, skewed onto the integers by
q = p + stretch * sum(p). A lattice vertex v at displacement d from the point adds

    max(0, 2 - |d|^2)^4  *  <gradient(v), d>  /  norm

so the value is a sum over the vertices closer than sqrt(2). OpenSimplex sums at most eight of them, chosen by the
region of the cell that holds the point, and so leaves out a few contributions of up to 1e-4; the same choice is
made here, as a table looked up by region.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Sequence

import numba
import numpy as np
import torch
from torch import Tensor

from pipeline_lib.noise.compiled import evaluate
from pipeline_lib.noise.tables import GRADIENTS, NORM, SQUISH, STRETCH, VERTICES

log = logging.getLogger(__name__)


def expected_std() -> float:
    """Standard deviation of the noise over points and seeds.

    Gradients of different vertices are independent with covariance g I, so the variance is the integral
    of the squared kernel, density * g / (norm^2) * int (2 - |d|^2)^8 |d|^2 dd over |d| < sqrt(2).
    """
    g = float(np.mean(GRADIENTS**2))
    density = 1 / 2
    sphere = 2 * math.pi**1.5 / math.gamma(1.5)
    radial = 2 ** (8 + 2.5) / 2 * math.gamma(2.5) * math.gamma(9) / math.gamma(11.5)
    return math.sqrt(density * g * sphere * radial) / NORM


def opensimplex(points: Tensor, shuffled: Tensor) -> Tensor:
    """Noise at `points`.

    Args:
        points: (B, ..., 3) coordinates in lattice units, float32 or float64, any device.
        shuffled: (B, 256) int64 permutation of each of the B fields, from `compiled.permutations`, same device.

    Returns:
        (B, ...) values, about -0.9 to 0.9.
    """
    if points.shape[-1] != 3:
        raise ValueError(f"points have {points.shape[-1]} coordinates; 3 are needed")
    if shuffled.shape != (len(points), 256):
        raise ValueError(
            f"permutations have shape {tuple(shuffled.shape)}; ({len(points)}, 256) is needed, one a field"
        )
    flat = points.reshape(len(points), -1, 3)
    if points.device.type != "cpu":
        compiled = points.is_cuda and points.dtype == torch.float32
        return evaluate_tensors(flat, shuffled, _fused() if compiled else _evaluate).reshape(points.shape[:-1])
    most = int(numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
    threads = torch.get_num_threads()
    numba.set_num_threads(min(threads, most))
    torch.set_num_threads(threads)  # numba and torch may share one OpenMP, whose number numba sets when it starts
    values: np.ndarray = evaluate(flat.contiguous().numpy(), shuffled.numpy())
    return torch.from_numpy(values).reshape(points.shape[:-1])


@functools.cache
def _fused() -> Callable[..., Tensor]:
    """`_evaluate` compiled to a few kernels instead of some hundreds, or as it is where that cannot be done."""
    compiled = torch.compile(_evaluate, dynamic=True)

    def run(*tensors: Tensor) -> Tensor:
        nonlocal compiled
        try:
            return compiled(*tensors)
        except (RuntimeError, OSError) as error:
            if compiled is _evaluate:
                raise
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            log.warning("simplex noise takes longer on this GPU than it could: torch.compile failed (%s)", reason)
            compiled = _evaluate
        return compiled(*tensors)

    return run


def _evaluate(points: Tensor, shuffled: Tensor, vertices: Tensor, reach: Tensor, gradients: Tensor) -> Tensor:
    axes = points.unbind(-1)
    shift = sum(axes[1:], axes[0]) * STRETCH
    skewed = [axis + shift for axis in axes]
    cells = [torch.floor(q) for q in skewed]
    unskewed = SQUISH * sum(cells[1:], cells[0])
    inside = [axis - cell - unskewed for axis, cell in zip(axes, cells, strict=True)]
    corner = [cell.long() for cell in cells]

    region = _regions([q - c for q, c in zip(skewed, cells, strict=True)])
    total = torch.zeros_like(axes[0])
    for slot in range(vertices.shape[1]):
        d = [axis - reach[:, slot, i][region] for i, axis in enumerate(inside)]
        hashed = torch.zeros_like(region)
        for i, start in enumerate(corner):
            hashed = shuffled.gather(1, (hashed + start + vertices[:, slot, i][region]) & 255)
        chosen = gradients[hashed % 24]
        kernel = 2 - sum((axis.square() for axis in d[1:]), d[0].square())
        slope = sum((chosen[..., i] * d[i] for i in (1, 2)), chosen[..., 0] * d[0])
        total.addcmul_(kernel.clamp_(min=0).square_().square_(), slope)
    return total.div_(NORM)


@torch.no_grad()
def evaluate_tensors(points: Tensor, shuffled: Tensor, by: Callable[..., Tensor] = _evaluate) -> Tensor:
    """(B, M, 3) points, (B, 256) permutations -> (B, M), in tensor operations, for any device; `by`: compiled or not."""
    return by(points, shuffled, *_tables(points.device, points.dtype))


@functools.cache
def _tables(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Vertices of each region, where they are, both (regions, 8, 3), and the gradients (24, 3), kept on a device."""
    vertices = torch.from_numpy(VERTICES)
    reach = vertices + SQUISH * vertices.sum(-1, keepdim=True).to(dtype)
    tables = vertices.to(device), reach.to(device), torch.from_numpy(GRADIENTS).to(device, dtype)
    for table in tables:
        torch._dynamo.mark_static(table)  # or a first batch of 8 fields would be taken for as many as there are slots
    return tables


def _regions(skewed: Sequence[Tensor]) -> Tensor:
    """Which list of `tables.summed_vertices` serves points whose skewed coordinates within the cell are x, y, z.

    As `compiled._cell`, which says why every comparison is as it is.
    """
    x, y, z = skewed
    total = x + y + z
    upper = total >= 2
    sign = 1 - 2 * upper.to(x.dtype)
    x1, y1, z1 = (sign * axis for axis in skewed)
    corner = torch.where(upper, total - 3, 1 - total)
    second = (x1 >= y1) & (z1 > y1)
    first = (x1 < y1) & (z1 > x1)
    a, b = torch.where(first, z1, x1), torch.where(second, z1, y1)
    nearest = torch.where(b > a, 1 + second.long(), 2 * first.long())
    left_out = 2 - second.long() - 2 * first.long()
    tetrahedron = torch.where((corner > a) | (corner > b), nearest, 3 + left_out) + 6 * upper

    p = torch.stack([y + z - 1, x + z - 1, x + y - 1])  # > 0: nearer to (1,1,1) - e_i than to e_i
    ax, ay, az = p.abs()
    k = torch.where((ax <= ay) & (ax <= az), 0, torch.where(az <= ay, 2, 1))
    beyond = (p > 0).long()
    i, j = (beyond.gather(0, ((k + n) % 3)[None]).squeeze(0) for n in (1, 2))
    octahedron = 12 + 4 * k + 2 * i + j
    return torch.where((total > 1) & ~upper, octahedron, tetrahedron)
