"""A preprocessed scan as the dataset reads it: channels first, axes closest to RAS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline_lib.dataset.image import Array, LeftOut

MNI152 = 4
"""NIfTI's code for the space of the MNI152 template."""


@dataclass(frozen=True)
class ChannelVolume:
    """Values ``(C, x, y, z)`` and the affine from voxels to RAS mm."""

    values: Array
    affine: NDArray[np.float64]

    @property
    def zooms(self) -> NDArray[np.float64]:
        """Voxel size along each axis, mm."""
        sizes: NDArray[np.float64] = np.linalg.norm(self.affine[:3, :3], axis=0)
        return sizes


def read_volume(path: Path) -> ChannelVolume:
    """A NIfTI file in the voxel order closest to RAS, channels first."""
    image = nibabel.as_closest_canonical(nibabel.load(path))
    values = np.asarray(image.dataobj, dtype=np.float32)
    values = values[None] if values.ndim == 3 else np.moveaxis(values, -1, 0)
    return ChannelVolume(values, np.asarray(image.affine, dtype=np.float64))


def space_of(path: Path) -> str:
    """``MNI152`` where the header says so (sform code 4), else ``native``."""
    header: Any = nibabel.load(path).header
    return "MNI152" if int(header["sform_code"]) == MNI152 else "native"


def brain_of(outputs: Mapping[str, Path], reference: ChannelVolume) -> ChannelVolume:
    """The brain mask; where there is none, what is not background."""
    if "mask" in outputs:
        return read_volume(outputs["mask"])
    foreground = np.abs(reference.values).max(0, keepdims=True) > 0
    return ChannelVolume(foreground.astype(np.float32), reference.affine)


def centroid(brain: ChannelVolume) -> NDArray[np.float64]:
    """Middle of a brain mask, RAS mm.

    Raises:
        LeftOut: the mask is empty.
    """
    if not brain.values.any():
        raise LeftOut("its brain mask is empty")
    voxel = ndimage.center_of_mass(brain.values[0])
    point: NDArray[np.float64] = nibabel.affines.apply_affine(brain.affine, voxel)
    return point
