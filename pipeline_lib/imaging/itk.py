"""Volumes as ITK has them."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from pipeline_lib.imaging.nifti import Volume

FLIP = np.diag([-1.0, -1.0, 1.0])  # RAS (NIfTI) <-> LPS (ITK)


def to_sitk(volume: Volume) -> sitk.Image:
    """A RAS+ volume as an ITK image (LPS)."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.data.T))
    linear = volume.affine[:3, :3]
    # ITK knows no shear: the nearest rotation stands for the directions.
    left, _, right = np.linalg.svd(linear / np.linalg.norm(linear, axis=0))
    image.SetDirection((FLIP @ left @ right).ravel().tolist())
    image.SetSpacing([float(size) for size in volume.zooms])
    image.SetOrigin((FLIP @ volume.affine[:3, 3]).tolist())
    return image
