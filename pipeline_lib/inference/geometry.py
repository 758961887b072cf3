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


def write_nifti(
    path: Path, image: NDArray[np.floating], affine: NDArray[np.float64], sidecar: Mapping[str, Any]
) -> None:
    """Write a volume ``(C, x, y, z)`` (or a slice ``(C, x, y)``) as NIfTI, channels last, and its JSON sidecar."""
    values = np.asarray(image, dtype=np.float32)
    values = values if values.ndim == 4 else values[..., None]
    values = np.moveaxis(values, 0, -1)
    values = values[..., 0] if values.shape[-1] == 1 else values
    nifti = nibabel.Nifti1Image(values, affine)
    nifti.header.set_xyzt_units("mm")
    with atomic_path(path) as temporary:
        nibabel.save(nifti, temporary)
    write_json(path.with_name(path.name.removesuffix(".nii.gz") + ".json"), sidecar)
