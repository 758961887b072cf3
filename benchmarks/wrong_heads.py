"""Real heads made into what they should not be: turned, of another contrast, no heads at all, incomplete.

Each kind is a function of a `Head`; its docstring says what is wrong, and `SAID` what the reason for its exclusion
has to say.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_multiotsu

from pipeline_lib.imaging.nifti import Volume

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Head:
    """A real T1w scan in RAS+ and its brain, on one grid."""

    name: str
    scan: Volume
    brain: Mask

    @property
    def tissues(self) -> NDArray[np.int64]:
        """1 fluid, 2 grey, 3 white by the intensities of the brain (Otsu's two thresholds), 0 outside."""
        inside = ndimage.gaussian_filter(self.scan.data, 0.5)
        classes = np.digitize(inside, threshold_multiotsu(inside[self.brain], 3)) + 1
        return np.where(self.brain, classes, 0)

    @property
    def white(self) -> float:
        """Brightness of white matter."""
        return float(np.median(self.scan.data[self.tissues == 3]))

    def levels(self, axis: int) -> NDArray[np.intp]:
        """Where along an axis there is brain."""
        return np.flatnonzero(self.brain.any(tuple(n for n in range(3) if n != axis)))

    def random(self) -> np.random.Generator:
        return np.random.default_rng(sum(self.name.encode()))


@dataclass(frozen=True)
class Wrong:
    """A scan to be written: voxels, affine, and what else its row of the sheet and its file need."""

    data: NDArray[np.generic]
    affine: NDArray[np.float64]
    mask: Mask | None = None
    modality: str = "T1w"
    suffix: str = ".nii.gz"
    spoil: Callable[[Path], None] | None = None


KINDS: dict[str, tuple[str, Callable[[Head], Wrong]]] = {}


def kind(said: str) -> Callable[[Callable[[Head], Wrong]], Callable[[Head], Wrong]]:
    """Register a kind of wrong input; ``said``: what its reason has to say, a regular expression."""

    def register(function: Callable[[Head], Wrong]) -> Callable[[Head], Wrong]:
        KINDS[function.__name__] = (said, function)
        return function

    return register


def _as(head: Head, data: NDArray[np.generic]) -> Wrong:
    return Wrong(data, head.scan.affine)


def _turned(head: Head, data: Array, axes: tuple[int, int, int]) -> Wrong:
    """With the voxel sizes that the axes have now, and nothing else said about it."""
    return Wrong(data, np.diag([*(head.scan.zooms[n] for n in axes), 1.0]))


def _contrast(head: Head, levels: tuple[float, float, float], scalp: float) -> Array:
    """Fluid, grey and white of the ``levels``, blended at their borders; all else darker by ``scalp``."""
    scan, brain = head.scan.data / head.white, ndimage.uniform_filter(head.brain.astype(np.float32), 3)
    inside = np.interp(scan, [0.3, 0.7, 1.0], levels)
    return (1000 * (brain * inside + (1 - brain) * scalp * scan)).astype(np.float32)


# The header says one thing, the voxels another.


@kind("turned by 180 degrees about z")
def front_to_back(head: Head) -> Wrong:
    """Mirrored between front and back."""
    return _as(head, head.scan.data[:, ::-1])


@kind("turned by 180 degrees about z")
def turned_180_z(head: Head) -> Wrong:
    """RAS and LPS mixed up."""
    return _as(head, head.scan.data[::-1, ::-1])


@kind("turned by 90 degrees about z")
def turned_90_z(head: Head) -> Wrong:
    """Lying on the side, seen from above."""
    return _turned(head, np.rot90(head.scan.data, 3, (0, 1)), (1, 0, 2))


@kind("turned by 180 degrees about [xy]")
def upside_down(head: Head) -> Wrong:
    """Mirrored between top and bottom."""
    return _as(head, head.scan.data[:, :, ::-1])


@kind("turned by 90 degrees about x")
def turned_90_x(head: Head) -> Wrong:
    """Coronal slices called axial."""
    return _turned(head, np.rot90(head.scan.data, 1, (1, 2)), (0, 2, 1))


@kind("turned by 90 degrees about y")
def turned_90_y(head: Head) -> Wrong:
    """Left and right called up and down."""
    return _turned(head, np.rot90(head.scan.data, 1, (0, 2)), (2, 1, 0))


@kind("turned by 120 degrees")
def axes_permuted(head: Head) -> Wrong:
    """Sagittal slices called axial."""
    return _turned(head, np.transpose(head.scan.data, (1, 2, 0)), (1, 2, 0))


# Not a T1w scan of a head.


@kind("labels")
def segmentation(head: Head) -> Wrong:
    """1 fluid, 2 grey, 3 white."""
    return _as(head, head.tissues.astype(np.int16))


@kind("labels")
def parcellation(head: Head) -> Wrong:
    """A hundred numbered regions."""
    blocks = np.stack(
        np.meshgrid(
            *(np.arange(n) * z // 40 for n, z in zip(head.brain.shape, head.scan.zooms, strict=True)), indexing="ij"
        )
    )
    return _as(head, np.where(head.brain, 1 + blocks[0] + 5 * blocks[1] + 25 * blocks[2], 0).astype(np.int16))


@kind("two signs")
def statistical_map(head: Head) -> Wrong:
    """z values within the brain."""
    noise = ndimage.gaussian_filter(head.random().normal(size=head.brain.shape), 3 / np.array(head.scan.zooms))
    return _as(head, np.where(head.brain, 2 * noise / noise.std(), 0).astype(np.float32))


@kind("two signs")
def difference(head: Head) -> Wrong:
    """The scan less a smooth copy of it, within the brain."""
    smooth = ndimage.gaussian_filter(head.scan.data, 6 / np.array(head.scan.zooms))
    return _as(head, np.where(head.brain, head.scan.data - smooth, 0).astype(np.float32))


@kind("mask")
def mask_as_scan(head: Head) -> Wrong:
    """The brain mask itself."""
    return _as(head, head.brain.astype(np.uint8))


@kind("contrast")
def mean_epi(head: Head) -> Wrong:
    """Fluid bright, white darker than grey, no scalp, blurred to 3 mm."""
    image = _contrast(head, (1.0, 0.75, 0.6), 0.1)
    image = ndimage.gaussian_filter(image, 3 / 2.355 / np.array(head.scan.zooms))
    return _as(head, image + head.random().normal(0, 15, image.shape).astype(np.float32))


@kind("contrast")
def t2_weighted(head: Head) -> Wrong:
    """T2w listed as T1w."""
    return _as(head, _contrast(head, (1.0, 0.6, 0.4), 0.6))


@kind("contrast")
def proton_density(head: Head) -> Wrong:
    """PDw listed as T1w: fluid and grey brighter than white."""
    return _as(head, _contrast(head, (0.95, 1.0, 0.8), 0.6))


@kind("contrast")
def flair(head: Head) -> Wrong:
    """FLAIR listed as T1w: fluid dark, grey brighter than white."""
    return _as(head, _contrast(head, (0.15, 0.8, 0.6), 0.6))


@kind("contrast")
def pet(head: Head) -> Wrong:
    """As of glucose: grey two to three times as bright as white, blurred to 6 mm, no scalp."""
    image = _contrast(head, (0.1, 1.0, 0.4), 0.05)
    return _as(head, ndimage.gaussian_filter(image, 6 / 2.355 / np.array(head.scan.zooms)))


@kind("contrast")
def t1_as_t2(head: Head) -> Wrong:
    """T1w listed as T2w."""
    return replace(_as(head, head.scan.data), modality="T2w")


@kind("contrast")
def t1_as_flair(head: Head) -> Wrong:
    """T1w listed as FLAIR."""
    return replace(_as(head, head.scan.data), modality="FLAIR")


@kind("wrapped")
def wrapped_int16(head: Head) -> Wrong:
    """Values over 32767 stored as int16."""
    return _as(head, (head.scan.data * (45000 / head.white)).astype(np.int64).astype(np.int16))


@kind("contrast|no brain|not like the template")
def sphere(head: Head) -> Wrong:
    """A uniform ball of 160 mm in noise."""
    grid = np.stack(
        np.meshgrid(
            *((np.arange(n) - n / 2) * z for n, z in zip(head.brain.shape, head.scan.zooms, strict=True)), indexing="ij"
        )
    )
    noise = np.abs(head.random().normal(0, 10, head.brain.shape))
    return _as(head, (np.where(np.linalg.norm(grid, axis=0) < 80, 1000, 0) + noise).astype(np.float32))


@kind("contrast|no brain|registration cost|pieces|volume")
def noise(head: Head) -> Wrong:
    """Nothing but noise."""
    return _as(head, np.abs(head.random().normal(0, 100, head.brain.shape)).astype(np.float32))


# Part of the head is missing.


@kind("beyond|missing")
def top_cut(head: Head) -> Wrong:
    """The uppermost 25 mm of the brain lie outside the field of view."""
    cut = head.levels(2)[-1] - round(25 / head.scan.zooms[2])
    return _as(head, head.scan.data[:, :, :cut])


@kind("beyond|missing")
def cerebellum_cut(head: Head) -> Wrong:
    """The lowest 45 mm of the brain lie outside the field of view."""
    cut = head.levels(2)[0] + round(45 / head.scan.zooms[2])
    affine = head.scan.affine.copy()
    affine[:3, 3] += affine[:3, 2] * cut
    return Wrong(head.scan.data[:, :, cut:], affine)


def _right_of(head: Head, mm: float) -> Mask:
    end = head.levels(0)[-1] - round(mm / head.scan.zooms[0])
    return np.broadcast_to((np.arange(head.brain.shape[0]) > end)[:, None, None], head.brain.shape)


@kind("beyond|missing")
def right_zero(head: Head) -> Wrong:
    """The rightmost 25 mm of the brain are 0."""
    return _as(head, np.where(_right_of(head, 25), 0, head.scan.data))


@kind("NaN")
def right_nan(head: Head) -> Wrong:
    """The rightmost 25 mm of the brain are NaN."""
    return _as(head, np.where(_right_of(head, 25), np.nan, head.scan.data))


@kind("beyond|missing")
def right_third_zero(head: Head) -> Wrong:
    """The right third of the brain is 0."""
    return _as(head, np.where(_right_of(head, len(head.levels(0)) * head.scan.zooms[0] / 3), 0, head.scan.data))


@kind("NaN")
def right_half_nan(head: Head) -> Wrong:
    """The right half of the brain is NaN."""
    return _as(head, np.where(_right_of(head, len(head.levels(0)) * head.scan.zooms[0] / 2), np.nan, head.scan.data))


@kind("slices through the brain are empty")
def black_slices(head: Head) -> Wrong:
    """Four slices in the middle are 0."""
    data, levels = head.scan.data.copy(), head.levels(2)
    data[:, :, levels[len(levels) // 2] + np.arange(4)] = 0
    return _as(head, data)


@kind("hole|empty")
def hole(head: Head) -> Wrong:
    """A cube of 40 mm within the brain is 0."""
    data = head.scan.data.copy()
    middle = [head.levels(n)[int(len(head.levels(n)) * share)] for n, share in enumerate((0.3, 0.5, 0.6))]
    half = [round(20 / zoom) for zoom in head.scan.zooms]
    data[tuple(slice(m - h, m + h) for m, h in zip(middle, half, strict=True))] = 0
    return _as(head, data)


@kind("beyond|missing|too little")
def slab(head: Head) -> Wrong:
    """The middle 60 mm only."""
    levels = head.levels(2)
    middle, half = levels[len(levels) // 2], round(30 / head.scan.zooms[2])
    return _as(head, head.scan.data[:, :, middle - half : middle + half])


# A mask that does not belong to its scan.


@kind("mask")
def mask_elsewhere(head: Head) -> Wrong:
    """The sheet's mask lies 40 mm too far back and 30 mm too high."""
    moved = np.roll(head.brain, (round(-40 / head.scan.zooms[1]), round(30 / head.scan.zooms[2])), (1, 2))
    return replace(_as(head, head.scan.data), mask=moved)


@kind("mask")
def mask_upside_down(head: Head) -> Wrong:
    """The sheet's mask is mirrored between top and bottom."""
    return replace(_as(head, head.scan.data), mask=head.brain[:, :, ::-1])


# Files that are not what they are called.


def _unpack(path: Path) -> None:
    path.write_bytes(gzip.decompress(path.read_bytes()))


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _pointer(path: Path) -> None:
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 8215304\n")


def _annexed(path: Path) -> None:
    path.unlink()
    path.symlink_to(f".git/annex/objects/k1/2Z/MD5E-s8215304--{'0' * 32}.nii.gz")


def _without_voxels(path: Path) -> None:
    path.with_suffix(".img").unlink()


@kind("not compressed")
def plain_called_gz(head: Head) -> Wrong:
    """Not compressed, called .nii.gz."""
    return replace(_as(head, head.scan.data), spoil=_unpack)


@kind("truncated")
def truncated(head: Head) -> Wrong:
    """The second half of the file is missing."""
    return replace(_as(head, head.scan.data), spoil=_truncate)


@kind("git lfs pull")
def pointer(head: Head) -> Wrong:
    """Git LFS's pointer."""
    return replace(_as(head, head.scan.data), spoil=_pointer)


@kind("datalad get")
def annexed(head: Head) -> Wrong:
    """git-annex's link to a file that was not fetched."""
    return replace(_as(head, head.scan.data), spoil=_annexed)


@kind(r"\.img")
def header_alone(head: Head) -> Wrong:
    """A .hdr without its .img."""
    return replace(_as(head, head.scan.data), suffix=".hdr", spoil=_without_voxels)


def write(wrong: Wrong, stem: Path) -> dict[str, str]:
    """Write a wrong input; its cells of the sheet."""
    path = stem.with_name(stem.name + wrong.suffix)
    path.unlink(missing_ok=True)  # of a run that was stopped: a link leads nowhere
    data = wrong.data.astype(np.uint8) if wrong.data.dtype == bool else wrong.data
    image = (nib.Nifti1Pair if wrong.suffix == ".hdr" else nib.Nifti1Image)(np.ascontiguousarray(data), wrong.affine)
    image.set_sform(wrong.affine, code=1)
    nib.save(image, path)
    cells = {"path": path.name, "modality": wrong.modality}
    if wrong.mask is not None:
        mask = stem.with_name(f"{stem.name}_mask.nii.gz")
        nib.save(nib.Nifti1Image(wrong.mask.astype(np.uint8), wrong.affine), mask)
        cells["mask"] = mask.name
    if wrong.spoil:
        wrong.spoil(path)
    return cells
