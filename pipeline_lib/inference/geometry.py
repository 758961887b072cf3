"""Where the voxels of packed and of generated images lie, and NIfTI files that say so."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline_lib.files import atomic_path, write_json


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


def stack_slices(
    images: NDArray[np.floating], affines: Sequence[NDArray[np.float64]]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Parallel slices ``(N, H, W)``, in any order, as a volume ``(H, W, D)`` and its affine.

    The distance of neighbours is the slice thickness; a slice that is missing in between is 0.
    """
    first = affines[0]
    across = first[:3, 2] / np.linalg.norm(first[:3, 2])
    depths = np.array([affine[:3, 3] @ across for affine in affines])
    steps = np.diff(np.unique(depths.round(3)))
    step = float(steps.min()) if len(steps) else float(np.linalg.norm(first[:3, 2]))
    places = np.round((depths - depths.min()) / step).astype(int)
    volume = np.zeros((*images.shape[1:], int(places.max()) + 1), np.float32)
    volume[..., places] = np.moveaxis(images, 0, -1)
    affine = affines[int(depths.argmin())].copy()
    affine[:3, 2] = across * step
    return volume, affine


def write_nifti(
    path: Path, image: NDArray[np.floating], affine: NDArray[np.float64], sidecar: Mapping[str, Any], space: str = ""
) -> None:
    """Write a volume ``(C, x, y, z)`` (or a slice ``(C, x, y)``) as NIfTI, channels last, and its JSON sidecar.

    The header says so where ``space`` is MNI152 (sform code 4).
    """
    values = np.asarray(image, dtype=np.float32)
    values = values if values.ndim == 4 else values[..., None]
    values = np.moveaxis(values, 0, -1)
    values = values[..., 0] if values.shape[-1] == 1 else values
    nifti = nibabel.Nifti1Image(values, affine)
    nifti.header.set_xyzt_units("mm")
    if space == "MNI152":
        nifti.set_sform(affine, code="mni")
    with atomic_path(path) as temporary:
        nibabel.save(nifti, temporary)
    write_json(path.with_name(path.name.removesuffix(".nii.gz") + ".json"), sidecar)
