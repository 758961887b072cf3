"""How cohorts that are computed are written: volumes, and their paths in the sheet."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from pipeline_lib.files import atomic_path


def save_volume(path: Path, data: NDArray[np.generic], affine: NDArray[np.float64]) -> None:
    """Write a NIfTI file of scanner coordinates (code 1), whole or not at all."""
    image = nib.Nifti1Image(data, affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    with atomic_path(path) as temporary:
        nib.save(image, temporary)


def path_in_sheet(path: Path, root: Path) -> str:
    """From ``root`` where the file lies below it, absolute elsewhere."""
    full = path.resolve()
    return full.relative_to(root.resolve()).as_posix() if full.is_relative_to(root.resolve()) else full.as_posix()
