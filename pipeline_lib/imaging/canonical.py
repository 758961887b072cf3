"""Opening a scan whatever its faults: either it becomes canonical, or one line says why not."""

from __future__ import annotations

import gzip
import logging
import os
import re
import stat
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from nibabel.spatialimages import HeaderDataError, SpatialImage
from numpy.typing import NDArray

from pipeline_lib.errors import UserError
from pipeline_lib.files import image_files
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
MOST_VOXELS = 2**31
"""Voxels of a file, 8 GiB as float32, above which its header is not believed."""
SLACK = 1 << 24
"""Bytes that a compressed file may hold beyond what its header announces (extensions, a footer)."""
SMALLEST_MM = 1.0
"""Extent up to which a scan was not measured in millimetres."""
UNITS = {"meter": ("metres", 1000.0), "micron": ("micrometres", 0.001)}
"""NIfTI's units of length other than mm: what they are called, and how many mm they are."""
WRAPPED = 50_000
"""Difference of neighbours stored as int16 from which one of them went past 32767."""
MOST_WRAPPED = 1e-4
READ = re.compile(r"\.(nii|hdr|img)(\.gz|\.bz2)?$|\.(mgh|mgz|mnc)$", re.IGNORECASE)
"""Names of files that are read: NIfTI, FreeSurfer's and MINC."""
UNREADABLE = (ImageFileError, HeaderDataError, EOFError, OSError, zlib.error, ValueError, OverflowError, MemoryError)


@dataclass(frozen=True)
class Opened:
    """A scan as it is used, the affine of the voxels as stored, and what the status table says of both."""

    volume: Volume
    stored: NDArray[np.float64]
    notes: dict[str, str]


def open_scan(path: Path, where: str, *, constant: bool = False) -> Volume:
    """Read a scan of any orientation, data type and NIfTI flavour as RAS+ float32; 4D of one volume becomes 3D.

    Args:
        path: NIfTI-1 or NIfTI-2, one file or a pair; may be compressed.
        where: how a message names it, for instance ``sub-01_T1w.nii.gz (row 3)``.
        constant: all voxels may have one value, as in the mask of lesions of someone who has none.

    Raises:
        UserError: one line that says what is wrong and what to do.
    """
    return open_described(path, where, constant=constant).volume


def open_described(path: Path, where: str, *, volumes: bool = False, constant: bool = False) -> Opened:
    """Read a scan as `open_scan` does, or with ``volumes`` a series ``(X, Y, Z, V)``.

    The notes are ``affine``, which affine was used and why where the header holds two that differ; ``orientation``, where the
    file's axes run to (e.g. ``LPS``); and ``not_finite``, the share of NaN and infinite voxels, which became 0, where there
    are any.
    """
    _require_file(path, where)
    try:
        image = nib.load(path)
        raw = _voxels(path, image, where) if isinstance(image, SpatialImage) else None
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
    affine, used = _affine(image, where)
    shaped = _shaped(raw, where, volumes)
    _refuse_wrapped(shaped, where)
    with np.errstate(over="ignore"):  # beyond float32: infinite, and counted as such
        data, share = _finite(shaped.astype(np.float32), where)
    if not constant and float(np.ptp(data)) == 0:
        raise UserError(f"{where}: every voxel is {data.flat[0]:g}, the image is empty; export the scan again")
    notes = {"affine": used, "orientation": "".join(nib.aff2axcodes(affine))} | (
        {"not_finite": f"{share:.4g}"} if share else {}
    )
    return Opened(_canonical(data, affine), affine, notes)


def _require_file(path: Path, where: str) -> None:
    """A file of voxels is there, it is one, and it is what it is called."""
    if "\0" in str(path):
        raise UserError(f"{where}: a path with a NUL character; correct the path in the sheet")
    if path.is_dir():
        raise UserError(f"{where}: a folder; convert DICOM to NIfTI, e.g. with dcm2niix, and name the file")
    for half in image_files(path):
        if not os.path.lexists(half):
            missing = f"its {half.suffix} is missing ({half.name})" if half != path else "no such file"
            raise UserError(f"{where}: {missing}; correct the path in the sheet, or cohort.root")
        if not half.exists():
            target = os.readlink(half)
            if "annex/objects" in target:
                raise UserError(
                    f"{where}: not fetched, only git-annex's link is here; run datalad get or git annex get"
                )
            raise UserError(f"{where}: a link to {target}, which is not there; copy the file, or correct the link")
        if not stat.S_ISREG(half.stat().st_mode):
            raise UserError(f"{where}: a pipe or a device, not a file; name a NIfTI file")
    try:
        with open(path, "rb") as file:
            start = file.read(132)
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror}); check its permissions") from None
    if fault := _misnamed(path.name, start):
        raise UserError(f"{where}: {fault}")


def _misnamed(name: str, start: bytes) -> str:
    """Why a file of this name does not start with what it should, or nothing."""
    compressed = start.startswith(b"\x1f\x8b")
    if start.startswith(b"version https://git-lfs"):
        return "Git LFS's pointer, not the scan itself; run git lfs pull"
    if start.startswith(b"/annex/objects/"):
        return "git-annex's pointer, not the scan itself; run datalad get or git annex get"
    if start[128:132] == b"DICM":
        return "a DICOM file; convert its series to NIfTI, e.g. with dcm2niix"
    if start.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        return "a web page, not the scan itself; download it again, signed in where that is needed"
    if start.startswith(b"PK\x03\x04"):
        return "a ZIP archive; unpack it and name the scan in it"
    if name.endswith(".gz") and start[:4] in (b"\x5c\x01\0\0", b"\0\0\x01\x5c", b"\x1c\x02\0\0", b"\0\0\x02\x1c"):
        return f"not compressed though its name ends in .gz; rename it to {name.removesuffix('.gz')}"
    if compressed and name.endswith((".nii", ".hdr", ".img", ".mgh")):
        right = name.removesuffix(".mgh") + ".mgz" if name.endswith(".mgh") else f"{name}.gz"
        return f"compressed though its name does not say so; rename it to {right}"
    if start and not READ.search(name):
        return "no NIfTI file by its name (.nii, .nii.gz, .hdr with .img); convert it, or correct its name"
    return ""


def _voxels(path: Path, image: SpatialImage, where: str) -> NDArray[np.generic]:
    """The voxels of an opened file, which is as long as its header says."""
    count = int(np.prod([int(n) for n in image.shape], dtype=object))
    if min(image.shape, default=0) < 1 or count > MOST_VOXELS:
        raise UserError(
            f"{where}: its header promises {_by(image.shape)} voxels, which no scan has; the file is damaged, copy it again"
        )
    if path.suffix == ".gz":
        _check_compression(path, count * image.get_data_dtype().itemsize + SLACK, where)
    return np.asanyarray(image.dataobj)


def _check_compression(path: Path, most: int, where: str) -> None:
    """Read to the end, where the checksum is: a reader of the voxels alone never gets there."""
    with gzip.open(path) as file:
        while read := file.read(1 << 20):
            most -= len(read)
            if most < 0:
                raise UserError(
                    f"{where}: holds more bytes than its header announces; the file is damaged, copy it again"
                )


def _refuse_wrapped(raw: NDArray[np.generic], where: str) -> None:
    """int16 in which neighbours lie 50,000 apart, about a background near 0, went past 32767."""
    if raw.dtype != np.int16 or raw.min() > -(2**14) or raw.max() < 2**14:
        return
    values = raw.astype(np.int32)
    background = np.median(np.concatenate([values.take(end, axis).ravel() for axis in range(3) for end in (0, -1)]))
    share = max(float((np.abs(np.diff(values, axis=axis)) > WRAPPED).mean()) for axis in range(3))
    if abs(background) < 2**14 and share > MOST_WRAPPED:
        raise UserError(
            f"{where}: {share:.1%} of neighbours lie over {WRAPPED} apart: values above 32767 were stored as int16 and "
            "wrapped below 0; export the scan again as uint16 or float32"
        )


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
    if path.suffix == ".mnc":
        return "a MINC file that cannot be read here; convert it to NIfTI, e.g. with mnc2nii"
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


def _finite(data: NDArray[np.float32], where: str) -> tuple[NDArray[np.float32], float]:
    """NaN and infinite voxels: few, or a background, become 0; a scan full of them is refused; their share."""
    bad = ~np.isfinite(data)
    share = float(bad.mean())
    if share > MOST_NOT_FINITE:
        raise UserError(f"{where}: {share:.0%} of the voxels are NaN or infinite; export the scan again")
    if share > 0:
        middle = bad[_middle(~bad)]
        if middle.mean() > MOST_INSIDE or middle.mean(axis=(0, 1, 2)).max() > MOST_INSIDE_ONE:
            raise UserError(f"{where}: NaN or infinite voxels in the middle of the head; export the scan again")
        data = np.where(bad, np.float32(0), data)
    return data, share


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
    unit, scale = "", 1.0
    if isinstance(header, nib.Nifti1Header):
        unit, scale = _unit(header)
        millimetres = np.diag([scale, scale, scale, 1.0])
        if int(header["sform_code"]) > 0:
            candidates.append(("sform", millimetres @ header.get_sform()))
        if int(header["qform_code"]) > 0 and not _lacks_sizes(image):
            try:
                candidates.append(("qform", millimetres @ header.get_qform()))
            except (HeaderDataError, ValueError, np.linalg.LinAlgError):
                log.debug("%s: its qform is not a rotation and is not used", where)
    else:
        candidates.append(("affine", image.affine))
    usable = [(name, np.asarray(affine, dtype=np.float64)) for name, affine in candidates if _usable(affine)]
    _refuse_other_units([np.asarray(affine) for _, affine in candidates], image.shape, where)
    if not usable:
        raise UserError(
            f"{where}: no valid affine (sform and qform unset, singular, sheared or without voxel sizes), so left and right cannot be told apart; "
            "convert the scan again from DICOM"
        )
    name, affine = usable[0]
    name = f"{name}, given in {unit}" if unit else name
    if len(usable) == 2:
        apart = _apart(usable[0][1], usable[1][1], image.shape)
        if apart > DISAGREEMENT_MM:
            return affine, f"{name}; the qform differs by up to {apart:.0f} mm, and an sform outranks it"
    elif len(candidates) == 2:
        other = next(other for other, _ in candidates if other != usable[0][0])
        return affine, f"{name}; the {other} is singular or sheared"
    return affine, name


def _unit(header: nib.Nifti1Header) -> tuple[str, float]:
    """What a header measures in, and how many mm that is; nothing where that is mm, unknown, or makes no head."""
    try:
        name, scale = UNITS[header.get_xyzt_units()[0]]
    except KeyError:
        return "", 1.0
    sizes = np.asarray(header.get_zooms()[:3], dtype=np.float64) * scale
    return (name, scale) if 1e-3 <= sizes.max() <= 100 else ("", 1.0)


def _refuse_other_units(affines: list[NDArray[np.float64]], shape: tuple[int, ...], where: str) -> None:
    """Name the unit that a scan seems to be measured in where it says mm, or nothing."""
    for affine in affines:
        sizes = np.linalg.norm(affine[:3, :3], axis=0)
        extent = sizes * shape[:3]
        if not np.isfinite(extent).all() or not extent.all():
            continue
        guess = "metres" if extent.max() < SMALLEST_MM else "micrometres" if sizes.min() > 100 else ""
        if guess:
            raise UserError(
                f"{where}: the scan covers {' x '.join(f'{n:.3g}' for n in extent)} mm; its affine seems to be in {guess}: "
                "set xyzt_units in the header, or write the affine in mm"
            )


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
