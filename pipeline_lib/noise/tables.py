"""The constants of OpenSimplex in space and the vertices that it sums, by region of the lattice cell."""

from __future__ import annotations

import itertools

import numpy as np

# The gradients, in the order in which the permutation refers to them.
GRADIENTS = np.array(
    [
        (sx * a, sy * b, sz * c)
        for sz, sy, sx in itertools.product((1, -1), (1, -1), (-1, 1))
        for a, b, c in ((11, 4, 4), (4, 11, 4), (4, 4, 11))
    ]
)
NORM = 103.0
# skewing onto the integers and back
STRETCH = (1 / 2 - 1) / 3
SQUISH = (2 - 1) / 3


def summed_vertices() -> list[list[tuple[int, ...]]]:
    """The vertices that OpenSimplex sums, by the part of the cell that the evaluations number.

    A cell is a tetrahedron at (0,0,0), its mirror image at (1,1,1) and an octahedron between them. The
    corners of the point's polyhedron count, and two more chosen by which two corners are nearest.
    """
    far = (9, 9, 9)  # out of reach of every point of the cell: fills a list up to eight
    unit = np.eye(3, dtype=int)
    one, zero = unit.sum(0), 0 * unit[0]
    tetrahedron = []
    for m in range(3):  # nearest: the origin and e_m
        tetrahedron.append([zero, *unit, *(unit[m] - unit[j] for j in range(3) if j != m)])
    for k in range(3):  # nearest: e_i and e_j, the others than k
        tetrahedron.append([zero, *unit, one - unit[k], one - 2 * unit[k]])
    mirrored = [[one - vertex for vertex in region] for region in tetrahedron]
    octahedron = []
    for k in range(3):
        i, j = (k + 1) % 3, (k + 2) % 3
        corners = [*unit, *(one - unit)]
        octahedron += [
            [*corners, zero, one - 2 * unit[k]],  # nearest: e_i and e_j
            [*corners, one - 2 * unit[j], 2 * unit[i]],  # e_i and (1,1,1) - e_j
            [*corners, one - 2 * unit[i], 2 * unit[j]],  # (1,1,1) - e_i and e_j
            [*corners, one, 2 * unit[k]],  # (1,1,1) - e_i and (1,1,1) - e_j
        ]
    regions = [
        [tuple(int(x) for x in vertex) for vertex in region] for region in [*tetrahedron, *mirrored, *octahedron]
    ]
    return [region + [far] * (8 - len(region)) for region in regions]


# (regions, 8, 3)
VERTICES = np.array(summed_vertices())
