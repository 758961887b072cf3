"""NIfTI and its relatives in, canonical NIfTI out.

Inside the library a volume is float32, its axes run to the right, to the front and up (RAS+), and
its one affine gives mm. What leaves the library carries no text from the scanner's header.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from numpy.typing import NDArray

RAS = "RAS"
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Volume:
    """A scan in RAS+: data ``(X, Y, Z)`` or ``(X, Y, Z, V)``, affine 4 x 4 from voxel to mm."""

    data: Array
    affine: NDArray[np.float64]

    @property
    def zooms(self) -> tuple[float, ...]:
        """Voxel size along each axis, mm."""
        return tuple(float(n) for n in np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0)))

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel, mL."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000


def write_volume(
    path: Path, volume: Volume, dtype: Any = np.float32, *, space: int = 1, orientation: str = RAS
) -> None:
    """Write NIfTI-1 with sform = qform (as near as a qform can be) and no header text.

    Args:
        space: NIfTI's code of the coordinates: 1 the scanner's, 4 MNI152.
        orientation: where the file's axes run to, e.g. ``LPS``; the voxels stay where they are.
    """
    turn = ornt_transform(axcodes2ornt(RAS), axcodes2ornt(orientation))
    data = apply_orientation(volume.data, turn).astype(dtype, copy=False)
    affine = volume.affine @ inv_ornt_aff(turn, volume.data.shape[:3])
    image = nib.Nifti1Image(data, affine)
    image.set_sform(affine, code=space)
    image.set_qform(affine, code=space, strip_shears=True)
    image.header.set_xyzt_units("mm")
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


def read_volume(path: Path) -> Volume:
    """Read a file this library wrote (or any well-formed one) as RAS+ float32."""
    image = nib.as_closest_canonical(nib.load(path))
    return Volume(np.asarray(image.dataobj, dtype=np.float32), np.asarray(image.affine, dtype=np.float64))
