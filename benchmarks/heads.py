"""A head, and what may happen to it between two scanners: contrast, bias field, pose, cropping, voxels, axes."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from nibabel.orientations import inv_ornt_aff
from numpy.typing import NDArray
from scipy import ndimage

from pipeline_lib.imaging.canonical import open_scan
from pipeline_lib.imaging.nifti import Volume
from pipeline_lib.imaging.registration import resample
from pipeline_lib.imaging.train_brain_extraction import body_of

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Head:
    """A scan and its true brain, on one grid."""

    name: str
    scan: Volume
    brain: Mask


def _unit(head: Head) -> NDArray[np.float32]:
    low, high = np.percentile(head.scan.data, [0.5, 99.5])
    return np.clip((head.scan.data - low) / (high - low), 0, 1).astype(np.float32)


def inverted(head: Head) -> Head:
    """Bright becomes dark within the head; the air stays dark."""
    unit = _unit(head)
    return replace(head, scan=Volume(np.where(body_of(unit), 1 - unit, unit).astype(np.float32), head.scan.affine))


def _recontrasted(head: Head, inside: Sequence[float]) -> Head:
    unit = _unit(head)
    soft = ndimage.uniform_filter(head.brain.astype(np.float32), 3)
    curve = np.interp(unit, np.linspace(0, 1, len(inside)), inside)
    return replace(head, scan=Volume((soft * curve + (1 - soft) * 0.6 * unit).astype(np.float32), head.scan.affine))


def t2_like(head: Head) -> Head:
    """Fluid brightest, white matter darkest within the brain; the rest as it was, darker."""
    return _recontrasted(head, (1.0, 0.95, 0.6, 0.45, 0.35))


def flair_like(head: Head) -> Head:
    """Fluid dark, grey matter brighter than white within the brain; the rest as it was, darker."""
    return _recontrasted(head, (0.05, 0.2, 0.8, 0.6, 0.55))


def biased(head: Head) -> Head:
    """A strong smooth field: intensities between a third and three times."""
    random = np.random.default_rng(zlib.crc32(head.name.encode()))
    field = ndimage.zoom(
        random.normal(size=(3, 3, 3)), np.array(head.scan.data.shape) / 3, order=3, grid_mode=True, mode="nearest"
    )
    field *= np.log(3) / np.abs(field).max()
    return replace(head, scan=Volume((head.scan.data * np.exp(field)).astype(np.float32), head.scan.affine))


def cropped(head: Head) -> Head:
    """A quarter of the field of view is missing from below, in front or behind."""
    axis, end = ((2, 0), (1, 0), (1, 1))[zlib.crc32(head.name.encode()) % 3]
    size = head.scan.data.shape[axis]
    kept = slice(size // 4, None) if end == 0 else slice(0, size - size // 4)
    index = tuple(kept if n == axis else slice(None) for n in range(3))
    affine = head.scan.affine.copy()
    affine[:3, 3] += affine[:3, axis] * (kept.start or 0)
    return replace(head, scan=Volume(head.scan.data[index].copy(), affine), brain=head.brain[index].copy())


def rotated(head: Head, degrees: float = 30.0, zooms: tuple[float, float, float] | None = None) -> Head:
    """The head turned about its left-right and its vertical axis, on a grid that holds it."""
    turn = sitk.Euler3DTransform()
    turn.SetCenter([float(n) for n in np.diag([-1, -1, 1]) @ _centre(head.scan)])
    turn.SetRotation(np.deg2rad(degrees), 0.0, np.deg2rad(degrees))
    size = np.array(zooms or head.scan.zooms)
    extent = np.array(head.scan.data.shape) * head.scan.zooms * 1.3
    shape = np.ceil(extent / size).astype(int)
    affine = np.diag([*size, 1.0])
    affine[:3, 3] = _centre(head.scan) - (shape - 1) / 2 * size
    grid = Volume(np.zeros(tuple(shape), np.float32), affine)
    brain = resample(Volume(head.brain.astype(np.float32), head.scan.affine), grid, turn).data > 0.5
    return replace(head, scan=resample(head.scan, grid, turn), brain=brain)


def thick(head: Head) -> Head:
    """Turned by 17 degrees, with slices of 6 mm."""
    return rotated(head, 17.0, (1.0, 1.0, 6.0))


def fine(head: Head) -> Head:
    """The same head with voxels of 1 mm."""
    shape = np.array(head.scan.data.shape) * 2
    affine = head.scan.affine @ np.diag([0.5, 0.5, 0.5, 1.0])
    affine[:3, 3] -= affine[:3, :3] @ np.full(3, 0.5)
    grid = Volume(np.zeros(tuple(shape), np.float32), affine)
    brain = resample(Volume(head.brain.astype(np.float32), head.scan.affine), grid, None).data > 0.5
    return replace(head, scan=resample(head.scan, grid, None), brain=brain)


def turned_axes(head: Head) -> Head:
    """The same head stored along other axes, read back as any scan is read."""
    ornt = np.array([[2, -1], [0, 1], [1, -1]], float)
    with tempfile.TemporaryDirectory() as folder:
        for name, data in (("scan", head.scan.data), ("brain", head.brain.astype(np.float32))):
            moved = nib.orientations.apply_orientation(data, ornt)
            affine = head.scan.affine @ inv_ornt_aff(ornt, data.shape)
            nib.save(nib.Nifti1Image(moved, affine), f"{folder}/{name}.nii.gz")
        scan, brain = (open_scan(Path(folder, f"{name}.nii.gz"), name) for name in ("scan", "brain"))
    return replace(head, scan=scan, brain=brain.data > 0.5)


def _centre(volume: Volume) -> NDArray[np.float64]:
    middle = (np.array(volume.data.shape) - 1) / 2
    centre: NDArray[np.float64] = volume.affine[:3, :3] @ middle + volume.affine[:3, 3]
    return centre
