"""Where the voxels of packed and of generated images lie, and NIfTI files that say so."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline_lib.files import atomic_path, write_json

SCANNER, ALIGNED, MNI152 = 1, 2, 4
"""NIfTI's codes of a space: the scanner's, that of another image, the template's."""
SPACES = {"MNI152": MNI152, "native": SCANNER}
"""What a dataset's index says -> code."""


def affine_of(affine: str) -> NDArray[np.float64] | None:
    """Affine ``(4, 4)`` from voxels to RAS mm, from an index's column; None for pictures, which have none."""
    return np.array(json.loads(affine), dtype=np.float64) if affine else None


def voxel_size(index: pd.DataFrame) -> float:
    """Voxel size in mm along the first axis of a chunk's images; 1 for pictures, whose unit is the pixel."""
    affine = affine_of(str(index["affine"].iloc[0]))
    return 1.0 if affine is None else float(np.linalg.norm(affine[:3, 0]))


def centred_affine(size: Sequence[int], millimetres: float) -> NDArray[np.float64]:
    """Affine of a generated volume that comes from no scan: RAS axes, the origin in its middle."""
    affine = np.diag([millimetres, millimetres, millimetres, 1.0])
    affine[:3, 3] = -(np.array(size) - 1) / 2 * millimetres
    return affine


def affine_like(
    people: pd.DataFrame, position: float | None, *, dimensions: int
) -> tuple[NDArray[np.float64], str] | None:
    """Affine and space of a generated image that lies where those of ``people`` do.

    Args:
        people: index of real images, of which ``affine``, ``slice`` and, where it is there, ``space`` are read.
        position: of a slice, mm along the plane's axis; the nearest real slice is shifted there.

    Returns:
        None where the people share no grid, or the position of a slice is not known.
    """
    if people.empty or (dimensions == 2 and position is None):
        return None
    shift = 0.0
    if position is not None:
        places = pd.to_numeric(people["slice"], errors="coerce").to_numpy(dtype=float)
        if np.isnan(places).all():
            return None
        nearest = places[np.nanargmin(np.abs(places - position))]
        people, shift = people[places == nearest], position - float(nearest)
    affine = affine_of(str(people["affine"].iloc[0]))
    if affine is None or people["affine"].nunique() > 1:
        return None
    affine[:3, 3] += shift * affine[:3, 2] / np.linalg.norm(affine[:3, 2])
    return affine, str(people["space"].iloc[0]) if "space" in people else ""


@dataclass(frozen=True)
class Stacked:
    """Slices as a volume ``(H, W, D)``, its affine, and which planes are slices; the others are interpolated."""

    values: NDArray[np.float32]
    affine: NDArray[np.float64]
    given: list[int]


def stack_slices(images: NDArray[np.floating], affines: Sequence[NDArray[np.float64]]) -> Stacked:
    """Parallel slices ``(N, H, W)``, in any order, as a volume without gaps between the first and the last.

    Its planes are the scan's, whose distance is the affines' third column, where all slices lie on those; else
    they are as far apart as the nearest neighbours. Planes between two slices are interpolated linearly.
    """
    first = affines[0]
    spacing = float(np.linalg.norm(first[:3, 2]))
    across = first[:3, 2] / spacing
    depths = np.array([affine[:3, 3] @ across for affine in affines])
    order = np.argsort(depths)
    ordered = depths[order] - depths.min()
    step = _plane_distance(ordered, spacing)
    given = np.round(ordered / step).astype(int)
    values = np.empty((*images.shape[1:], int(given[-1]) + 1), np.float32)
    for plane in range(values.shape[2]):
        above = int(np.searchsorted(given, plane))
        below = above if given[above] == plane else above - 1
        weight = 0.0 if above == below else (plane - given[below]) / (given[above] - given[below])
        values[..., plane] = (1 - weight) * images[order[below]] + weight * images[order[above]]
    affine = affines[int(order[0])].copy()
    affine[:3, 2] = across * step
    return Stacked(values, affine, given.tolist())


def _plane_distance(depths: NDArray[np.float64], spacing: float) -> float:
    """The scan's spacing where all depths, mm from the first, are multiples of it; else the smallest distance."""
    steps = np.diff(np.unique(depths.round(3)))
    if not len(steps) or np.abs(depths / spacing - np.round(depths / spacing)).max() < 0.01:
        return spacing
    return float(steps.min())


def write_nifti(
    path: Path,
    image: NDArray[np.floating],
    affine: NDArray[np.float64],
    sidecar: Mapping[str, Any],
    space: str = "",
) -> None:
    """Write a volume ``(C, x, y, z)`` (or a slice ``(C, x, y)``) as NIfTI, channels last, and its JSON sidecar.

    ``space`` is MNI152, native, or empty where it is not known; sform and qform say so by NIfTI's code.
    """
    values = np.asarray(image, dtype=np.float32)
    values = values if values.ndim == 4 else values[..., None]
    values = np.moveaxis(values, 0, -1)
    values = values[..., 0] if values.shape[-1] == 1 else values
    nifti = nibabel.Nifti1Image(values, affine)
    nifti.set_sform(affine, code=SPACES.get(space, ALIGNED))
    nifti.set_qform(affine, code=SPACES.get(space, ALIGNED), strip_shears=True)
    nifti.header.set_xyzt_units("mm")
    with atomic_path(path) as temporary:
        nibabel.save(nifti, temporary)
    write_json(path.with_name(path.name.removesuffix(".nii.gz") + ".json"), sidecar)
