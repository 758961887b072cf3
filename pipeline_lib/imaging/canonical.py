"""Opening a scan whatever its faults: either it becomes canonical, or one line says why not."""

from __future__ import annotations

import gzip
import logging
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from nibabel.spatialimages import HeaderDataError, SpatialImage
from numpy.typing import NDArray

from pipeline_lib.errors import UserError
from pipeline_lib.imaging.nifti import Volume

log = logging.getLogger("pipeline")
MOST_NOT_FINITE = 0.95
"""Share of NaN or infinite voxels up to which they are taken for a masked background and set to 0."""
LARGEST_SHEAR = 0.2
"""Cosine between two voxel axes up to which an affine is a scanner's."""
DISAGREEMENT_MM = 1.0
"""Distance between the places that sform and qform give a corner from which they disagree."""
MOST_INSIDE = 0.1
"""Share of such voxels in the middle of the others from which they are no background."""
MOST_INSIDE_ONE = 0.3
"""The same of a single volume of a series: a map may be undefined where there is only fluid."""
UNREADABLE = (ImageFileError, HeaderDataError, EOFError, OSError, zlib.error, ValueError, MemoryError)


def open_scan(path: Path, where: str, *, constant: bool = False) -> Volume:
    """Read a scan of any orientation, data type and NIfTI flavour as RAS+ float32; 4D of one volume becomes 3D.

    Args:
        path: NIfTI-1 or NIfTI-2, one file or a pair; may be compressed.
        where: how a message names it, for instance ``sub-01_T1w.nii.gz (row 3)``.
        constant: all voxels may have one value, as in the mask of lesions of someone who has none.

    Raises:
        UserError: one line that says what is wrong and what to do.
    """
    return _canonical(*_stored(path, where, volumes=False, constant=constant))


def open_series(path: Path, where: str) -> tuple[Volume, NDArray[np.float64]]:
    """Read a 4D scan as `open_scan` does; beside it the affine of the voxels as stored, before they were turned.

    Raises:
        UserError: one line that says what is wrong and what to do.
    """
    data, affine = _stored(path, where, volumes=True, constant=False)
    return _canonical(data, affine), affine


def _stored(
    path: Path, where: str, *, volumes: bool, constant: bool
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """The voxels in the order of the file, and the affine to use."""
    if path.is_dir():
        raise UserError(f"{where}: a folder; convert DICOM to NIfTI, e.g. with dcm2niix, and name the file")
    if not path.is_file():
        raise UserError(f"{where}: no such file; correct the path in the sheet, or cohort.root")
    try:
        _check_compression(path)
        image = nib.load(path)
        raw = np.asanyarray(image.dataobj) if isinstance(image, SpatialImage) else None
    except UNREADABLE as error:
        raise UserError(f"{where}: {_why_unreadable(path, error)}") from None
    if raw is None or not isinstance(image, SpatialImage):
        raise UserError(f"{where}: not a volume but {type(image).__name__}; give a NIfTI file")
    if isinstance(image, nib.AnalyzeImage) and not isinstance(image, nib.Nifti1Pair):
        raise UserError(f"{where}: Analyze 7.5 does not say where left is; convert the scan again from DICOM to NIfTI")
    if raw.dtype.fields is not None:
        raise UserError(f"{where}: colour (RGB) voxels; give the scalar image")
    if np.iscomplexobj(raw):
        raise UserError(f"{where}: complex voxels; give the magnitude image")
    affine, _ = _affine(image, where)
    data = _finite(_shaped(raw, where, volumes).astype(np.float32), where)
    if not constant and float(np.ptp(data)) == 0:
        raise UserError(f"{where}: every voxel is {data.flat[0]:g}, the image is empty; export the scan again")
    return data, affine


def _check_compression(path: Path) -> None:
    """Read to the end, where the checksum is: a reader of the voxels alone never gets there."""
    if path.suffix == ".gz":
        with gzip.open(path) as file:
            while file.read(1 << 20):
                pass


def coordinates(path: Path) -> str:
    """Which affine of a scan that can be opened is used, and why, where the header holds two that differ."""
    image = nib.load(path)
    assert isinstance(image, SpatialImage)
    return _affine(image, path.name)[1]


def open_mask(path: Path, where: str, like: Volume) -> NDArray[np.bool_]:
    """Read a mask on the grid of ``like``.

    Raises:
        UserError: when its shape or affine differ from the scan's.
    """
    mask = open_scan(path, where, constant=True)
    if mask.data.shape != like.data.shape[:3]:
        raise UserError(
            f"{where}: mask of {_by(mask.data.shape)} voxels for a scan of {_by(like.data.shape[:3])}; "
            "give a mask on the scan's own grid"
        )
    if _apart(mask.affine, like.affine, mask.data.shape) > DISAGREEMENT_MM:
        raise UserError(f"{where}: mask and scan have different affines; give a mask on the scan's own grid")
    return mask.data > 0.5


def _why_unreadable(path: Path, error: Exception) -> str:
    if path.stat().st_size == 0:
        return "the file is empty; copy it again"
    if isinstance(error, MemoryError):
        return "its header promises more voxels than memory holds; the file is damaged, copy it again"
    if (
        isinstance(error, EOFError | zlib.error | gzip.BadGzipFile)
        or "Expected" in str(error)
        or "buffer" in str(error)
    ):
        return "the file is truncated or damaged; copy it again"
    return f"cannot be read as an image ({' '.join(str(error).split())[:120]}); convert it to NIfTI, e.g. with dcm2niix"


def _shaped(raw: NDArray[np.generic], where: str, volumes: bool) -> NDArray[np.generic]:
    while raw.ndim > 3 and raw.shape[-1] == 1:
        raw = raw[..., 0]
    if volumes and raw.ndim == 3:
        raw = raw[..., None]
    wanted = 4 if volumes else 3
    if raw.ndim != wanted:
        hint = "name one volume, or correct the modality" if raw.ndim > wanted else "give a volume, not a slice"
        raise UserError(f"{where}: {raw.ndim}D ({_by(raw.shape)}) where {wanted}D is meant; {hint}")
    if min(raw.shape[:3]) < 2:
        raise UserError(f"{where}: {_by(raw.shape)} voxels, a single slice; give a volume")
    return raw


def _finite(data: NDArray[np.float32], where: str) -> NDArray[np.float32]:
    """NaN and infinite voxels: few, or a background, become 0; a scan full of them is refused."""
    bad = ~np.isfinite(data)
    share = float(bad.mean())
    if share > MOST_NOT_FINITE:
        raise UserError(f"{where}: {share:.0%} of the voxels are NaN or infinite; export the scan again")
    if share > 0:
        middle = bad[_middle(~bad)]
        if middle.mean() > MOST_INSIDE or middle.mean(axis=(0, 1, 2)).max() > MOST_INSIDE_ONE:
            raise UserError(f"{where}: NaN or infinite voxels in the middle of the head; export the scan again")
        data = np.where(bad, np.float32(0), data)
    return data


def _middle(good: NDArray[np.bool_]) -> tuple[slice, ...]:
    """The middle third, along each axis, of the box that holds all good voxels."""
    box = []
    for axis in range(3):
        places = np.flatnonzero(good.any(tuple(n for n in range(good.ndim) if n != axis)))
        third = (places[-1] - places[0] + 1) // 3
        box.append(slice(places[0] + third, places[-1] + 1 - third))
    return tuple(box)


def _affine(image: SpatialImage, where: str) -> tuple[NDArray[np.float64], str]:
    """The affine to use, and which it is.

    | sform code | qform code | used                                                             |
    |------------|------------|------------------------------------------------------------------|
    | > 0        | any        | sform, unless it is singular or sheared and the qform is not     |
    | 0          | > 0        | qform                                                            |
    | 0          | 0          | none: the scan is refused, left and right cannot be told apart   |
    """
    header = image.header
    candidates = []
    if isinstance(header, nib.Nifti1Header):
        if int(header["sform_code"]) > 0:
            candidates.append(("sform", header.get_sform()))
        if int(header["qform_code"]) > 0 and not _lacks_sizes(image):
            try:
                candidates.append(("qform", header.get_qform()))
            except (HeaderDataError, ValueError, np.linalg.LinAlgError):
                log.debug("%s: its qform is not a rotation and is not used", where)
    else:
        candidates.append(("affine", image.affine))
    usable = [(name, np.asarray(affine, dtype=np.float64)) for name, affine in candidates if _usable(affine)]
    if not usable:
        raise UserError(
            f"{where}: no valid affine (sform and qform unset, singular or without voxel sizes), so left and right cannot be told apart; "
            "convert the scan again from DICOM"
        )
    name, affine = usable[0]
    if len(usable) == 2:
        apart = _apart(usable[0][1], usable[1][1], image.shape)
        if apart > DISAGREEMENT_MM:
            return affine, f"sform; the qform differs by up to {apart:.0f} mm, and an sform outranks it"
    elif len(candidates) == 2:
        other = next(other for other, _ in candidates if other != name)
        return affine, f"{name}; the {other} is singular or sheared"
    return affine, name


def _lacks_sizes(image: SpatialImage) -> bool:
    """Whether a voxel size is 0 in the file, which nibabel takes for 1 mm."""
    holder = image.file_map["header" if "header" in image.file_map else "image"]
    header: Any = type(image.header)  # its types leave `check` out
    with holder.get_prepare_fileobj("rb") as file:
        sizes = header.from_fileobj(file, check=False)["pixdim"][1:4]
    return bool((sizes == 0).any())


def _apart(a: NDArray[np.float64], b: NDArray[np.float64], shape: tuple[int, ...]) -> float:
    """Largest distance, mm, between where two affines put a corner of the volume."""
    corners = np.array(np.meshgrid(*([0, n - 1] for n in shape[:3]), [1])).reshape(4, -1)
    return float(np.linalg.norm(((a - b) @ corners)[:3], axis=0).max())


def _usable(affine: NDArray[np.float64] | None) -> bool:
    if affine is None or not np.isfinite(affine).all():
        return False
    columns = affine[:3, :3]
    sizes = np.linalg.norm(columns, axis=0)
    if sizes.min() < 1e-3 or sizes.max() > 100:
        return False
    unit = columns / sizes
    return bool(np.abs(unit.T @ unit - np.eye(3)).max() < LARGEST_SHEAR)


def _canonical(data: NDArray[np.float32], affine: NDArray[np.float64]) -> Volume:
    orientation = io_orientation(affine)
    turned = apply_orientation(data, orientation)
    return Volume(np.ascontiguousarray(turned, np.float32), affine @ inv_ornt_aff(orientation, data.shape[:3]))


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)
