"""A synthetic scanner: grid, contrast, bias field and noise of an anatomical scan."""

from __future__ import annotations

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline_lib.cohort.anatomy import TISSUES, Anatomy

CENTRE = np.array([0.0, -20.0, 0.0])
FIELD_OF_VIEW = np.array([190.0, 230.0, 200.0])
LARGEST = 1000
CONTRASTS = {
    "T1w": (0.60, 0.85, 0.22, 0.08, 0.80),
    "T2w": (0.62, 0.45, 1.00, 0.06, 0.55),
    "FLAIR": (0.72, 0.55, 0.14, 0.06, 0.55),
}
"""Brightness of grey matter, white matter, fluid, skull and scalp."""
LESION = {"T1w": (0.25, 1.15), "T2w": (0.95, 0.95), "FLAIR": (1.15, 1.15)}
"""A lesion's brightness, one or the other by chance."""


@dataclass(frozen=True)
class Grid:
    """Voxel grid of a scan: shape and affine (voxel to scanner mm), and the head's pose in the scanner."""

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    pose: NDArray[np.float64]  # 4 x 4, head mm -> scanner mm

    def head_points(self) -> NDArray[np.float64]:
        """Where each voxel lies in the head, (3, X, Y, Z) mm."""
        grid = np.stack(np.meshgrid(*(np.arange(n) for n in self.shape), indexing="ij")).astype(np.float64)
        to_head = np.linalg.inv(self.pose) @ self.affine
        return np.tensordot(to_head[:3, :3], grid, 1) + to_head[:3, 3].reshape(3, 1, 1, 1)

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel, mL."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000


def draw_pose(random: np.random.Generator) -> NDArray[np.float64]:
    """A head turned by up to some degrees and shifted by some mm."""
    pose = np.eye(4)
    for axis, angle in enumerate(np.deg2rad(random.normal(0, 4, 3))):
        turn = np.eye(4)
        i, j = [n for n in range(3) if n != axis]
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        pose = pose @ turn
    pose[:3, 3] = random.normal(0, 4, 3)
    return pose


def draw_grid(random: np.random.Generator, pose: NDArray[np.float64], voxel_mm: float) -> Grid:
    """Voxels of about ``voxel_mm``, a little anisotropic, in a random axis order, oblique by up to 15 degrees."""
    sizes = voxel_mm * random.uniform(0.9, 1.2, 3)
    shape = np.ceil(FIELD_OF_VIEW / sizes).astype(int)
    affine = np.diag([*sizes, 1.0])
    tilt = np.deg2rad(random.uniform(-15, 15))
    turn = np.eye(4)
    turn[1, 1] = turn[2, 2] = np.cos(tilt)
    turn[1, 2], turn[2, 1] = -np.sin(tilt), np.sin(tilt)
    affine = turn @ affine
    centre = pose[:3, :3] @ CENTRE + pose[:3, 3]
    affine[:3, 3] = centre - affine[:3, :3] @ ((shape - 1) / 2)
    order = random.permutation(3)
    flips = random.choice([-1, 1], 3)
    ornt = np.stack([order, flips], 1).astype(float)
    new_shape = np.empty(3, int)
    new_shape[order] = shape
    affine = affine @ nib.orientations.inv_ornt_aff(ornt, tuple(shape))
    return Grid((int(new_shape[0]), int(new_shape[1]), int(new_shape[2])), affine, pose)


def scan_head(
    random: np.random.Generator, anatomy: Anatomy, grid: Grid, modality: str
) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """A scan of int16 with the contrast of ``modality``, and the tissue fractions (6, X, Y, Z) it was made from."""
    tissues = anatomy.tissues(grid.head_points())
    lesion = LESION[modality][0 if random.random() < 0.5 else 1]
    contrast = np.array([*CONTRASTS[modality], lesion]) + random.normal(0, 0.02, len(TISSUES))
    texture = ndimage.gaussian_filter(random.standard_normal(grid.shape), 1.0)
    signal = np.tensordot(contrast, tissues, 1) * (1 + 0.05 * texture / texture.std())
    signal *= np.exp(0.25 * _smooth_field(random, grid.shape))
    sigma = random.uniform(0.012, 0.035)
    noisy = np.hypot(signal + sigma * random.standard_normal(grid.shape), sigma * random.standard_normal(grid.shape))
    return np.clip(noisy * LARGEST / 1.6, 0, 32000).astype(np.int16), tissues


def _smooth_field(random: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """A smooth multiplicative bias field's logarithm, about -1 to 1."""
    coarse = random.standard_normal((4, 4, 4))
    field: NDArray[np.float64] = ndimage.zoom(coarse, np.array(shape) / 4, order=3, mode="nearest", grid_mode=True)
    return (field - field.mean()) / (2 * field.std())
