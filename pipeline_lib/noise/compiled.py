"""The lattice evaluation compiled for CPUs: one point after the other, all cores, in float64.

What is summed is described in `opensimplex`, whose tables are used here.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from pipeline_lib.noise.tables import GRADIENTS, NORM, SQUISH, STRETCH, VERTICES

# the gradient over the norm, by hash
_GRADIENTS = GRADIENTS[np.arange(256) % 24] / NORM
_REACH = VERTICES + SQUISH * VERTICES.sum(-1, keepdims=True)
_BLOCK = 1024  # points that one thread takes at a time


@numba.njit(cache=True)
def permutations(seeds: np.ndarray) -> np.ndarray:
    """The shuffled 0..255 of each seed, (B,) int64 -> (B, 256) int64, by Knuth's 64-bit generator.

    Signed 64-bit arithmetic that wraps around is part of the definition.
    """
    shuffled = np.empty((len(seeds), 256), dtype=np.int64)
    for b in range(len(seeds)):
        source = np.arange(256)
        state = seeds[b]
        for _ in range(3):
            state = state * 6364136223846793005 + 1442695040888963407
        for i in range(255, -1, -1):
            state = state * 6364136223846793005 + 1442695040888963407
            chosen = (state % (i + 1) + 31) % (i + 1)
            shuffled[b, i] = source[chosen]
            source[chosen] = source[i]
    return shuffled


@numba.njit(cache=True)
def _cell(x: float, y: float, z: float) -> tuple[int, int, int, int]:
    """The skewed cell of a point, and which list of vertices serves it; see `tables.summed_vertices`.

    On a regular grid many points lie on borders between regions. Every comparison, its order and its rounding are
    those of the package, so that such a point falls to the same side; `fastmath` must stay away from here.
    """
    shift = (x + y + z) * STRETCH
    x, y, z = x + shift, y + shift, z + shift
    cx, cy, cz = math.floor(x), math.floor(y), math.floor(z)
    x, y, z = x - cx, y - cy, z - cz
    total = x + y + z
    if 1 < total < 2:
        px, py, pz = y + z - 1, x + z - 1, x + y - 1
        ax, ay, az = abs(px), abs(py), abs(pz)
        if ax <= ay and ax <= az:
            return cx, cy, cz, 12 + 2 * (py > 0) + (pz > 0)
        if az <= ay:
            return cx, cy, cz, 20 + 2 * (px > 0) + (py > 0)
        return cx, cy, cz, 16 + 2 * (pz > 0) + (px > 0)
    start = 0
    corner = 1 - total
    if total >= 2:  # the same, seen from (1, 1, 1)
        x, y, z, corner, start = -x, -y, -z, total - 3, 6
    first, second, left_out = 0, 1, 2
    a, b = x, y
    if a >= b and z > b:
        b, second, left_out = z, 2, 1
    elif a < b and z > a:
        a, first, left_out = z, 2, 0
    if corner > a or corner > b:
        return cx, cy, cz, start + (second if b > a else first)
    return cx, cy, cz, start + 3 + left_out


@numba.njit(cache=True, parallel=True, fastmath=True)
def evaluate(points: np.ndarray, shuffled: np.ndarray) -> np.ndarray:
    """(B, M, 3) points, (B, 256) permutations -> (B, M).

    Neighbouring points mostly lie in the same region of the same cell, so a region's vertices and their gradients
    are looked up once and kept until a point lies in another.
    """
    b, m, _ = points.shape
    out = np.empty((b, m), dtype=points.dtype)
    blocks = (m + _BLOCK - 1) // _BLOCK
    for task in numba.prange(b * blocks):
        row, first = task // blocks, task % blocks * _BLOCK
        perm = shuffled[row]
        vertex, gradient = np.zeros((3, 8)), np.zeros((3, 8))
        last_x, last_y, last_z, last_region = 0, 0, 0, -1
        for point in range(first, min(first + _BLOCK, m)):
            x, y, z = (
                np.float64(points[row, point, 0]),
                np.float64(points[row, point, 1]),
                np.float64(points[row, point, 2]),
            )
            cx, cy, cz, region = _cell(x, y, z)
            if region != last_region or cx != last_x or cy != last_y or cz != last_z:
                last_x, last_y, last_z, last_region = cx, cy, cz, region
                _look_up(cx, cy, cz, region, perm, vertex, gradient)
            value = 0.0
            for slot in range(8):
                dx, dy, dz = x - vertex[0, slot], y - vertex[1, slot], z - vertex[2, slot]
                kernel = max(0.0, 2 - dx * dx - dy * dy - dz * dz)
                kernel *= kernel
                value += kernel * kernel * (gradient[0, slot] * dx + gradient[1, slot] * dy + gradient[2, slot] * dz)
            out[row, point] = value
    return out


@numba.njit(cache=True)
def _look_up(
    cx: int, cy: int, cz: int, region: int, perm: np.ndarray, vertex: np.ndarray, gradient: np.ndarray
) -> None:
    """Fill in where a region's vertices are, and their gradients divided by the norm; (3, 8) each."""
    unskewed = SQUISH * (cx + cy + cz)
    for slot in range(8):
        vertex[0, slot] = cx + unskewed + _REACH[region, slot, 0]
        vertex[1, slot] = cy + unskewed + _REACH[region, slot, 1]
        vertex[2, slot] = cz + unskewed + _REACH[region, slot, 2]
        hashed = perm[(cx + VERTICES[region, slot, 0]) & 255]
        hashed = perm[(hashed + cy + VERTICES[region, slot, 1]) & 255]
        hashed = perm[(hashed + cz + VERTICES[region, slot, 2]) & 255]
        for axis in range(3):
            gradient[axis, slot] = _GRADIENTS[hashed, axis]
