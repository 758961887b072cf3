"""The bias field: what the coils' sensitivity does to a scan."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from pipeline_lib.imaging.itk import to_sitk
from pipeline_lib.imaging.nifti import Volume

FIELD_MM = 8.0
"""The bias field is smooth: it is estimated at about this voxel size."""
DARK = 0.1
"""Voxels below this share of the brain's median carry no signal; their logarithm makes the field diverge."""


def correct_bias(volume: Volume, mask: NDArray[np.bool_]) -> Volume:
    """N4 (Tustison et al. 2010, doi:10.1109/TMI.2010.2046908), estimated within the brain on a shrunk image."""
    image = to_sitk(Volume(np.clip(volume.data, 0, None), volume.affine))
    signal = mask & (volume.data > DARK * np.median(volume.data[mask]))
    inside = to_sitk(Volume(signal.astype(np.uint8), volume.affine))
    factors = [max(1, round(FIELD_MM / zoom)) for zoom in volume.zooms]
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations([50, 50, 50])
    n4.SetConvergenceThreshold(1e-3)
    n4.Execute(sitk.Shrink(image, factors), sitk.Shrink(inside, factors))
    field = sitk.GetArrayFromImage(sitk.Exp(n4.GetLogBiasFieldAsImage(image))).T
    return Volume((volume.data / np.maximum(field, 1e-3)).astype(np.float32), volume.affine)
