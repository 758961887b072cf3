"""Synthetic anatomy: the MNI152 head, changed smoothly for each person.

Grey and white matter are the templates that nilearn ships; skull and scalp are built around the brain.
A person's anatomy is a stationary velocity field, integrated by scaling and squaring (Arsigny et al.
2006), and so a diffeomorphism; enlarged ventricles are part of it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import numpy as np
from nilearn.datasets import load_mni152_brain_mask, load_mni152_gm_template, load_mni152_wm_template
from numpy.typing import NDArray
from scipy import ndimage

TISSUES = ("grey", "white", "fluid", "skull", "scalp", "lesion")
TEMPLATE_MM = 2
VELOCITY_MM = 6.0
SQUARINGS = 5
FLUID_MM, SKULL_MM, SCALP_MM = 2.0, 6.0, 7.0
"""Thickness of the shells around the brain."""
TEMPLATE_SCALE = 1.09
"""The MNI152 brain is about so much longer along each axis than people's are."""
NECK = 0.6
"""Brightness of the neck's muscle beside the scalp's fat."""

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Head:
    """The template's head: tissue fractions (5, X, Y, Z), voxel to MNI mm, the lateral ventricles' box of fluid."""

    tissues: Array
    affine: NDArray[np.float64]
    ventricles: Array


@dataclass(frozen=True)
class Lesion:
    """A ball of altered white matter: centre in MNI mm, radius in mm."""

    centre: NDArray[np.float64]
    radius: float


@dataclass(frozen=True)
class Anatomy:
    """One person: displacement (3, X, Y, Z) in mm on a coarse grid, pulled back from the person to MNI space."""

    displacement: Array
    affine: NDArray[np.float64]
    lesions: tuple[Lesion, ...] = field(default=())

    def to_template(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Person's points (3, ...) in mm -> where in the template their tissue is, mm."""
        voxels = _to_voxels(self.affine, points)
        moved = [ndimage.map_coordinates(component, voxels, order=1, mode="nearest") for component in self.displacement]
        return points + np.stack(moved)

    def tissues(self, points: NDArray[np.float64]) -> Array:
        """Fractions (6, ...) of ``TISSUES`` at the person's points (3, ...), mm."""
        head = template_head()
        where = self.to_template(points)
        voxels = _to_voxels(head.affine, where)
        found = [ndimage.map_coordinates(tissue, voxels, order=1) for tissue in head.tissues]
        lesion = np.zeros(points.shape[1:], np.float32)
        for ball in self.lesions:
            distance = np.sqrt(((where - ball.centre.reshape(3, *[1] * (points.ndim - 1))) ** 2).sum(0))
            lesion = np.maximum(lesion, np.clip((ball.radius - distance) / 2 + 0.5, 0, 1)).astype(np.float32)
        lesion = lesion * (found[0] + found[1] > 0.5)
        return np.stack([*(tissue * (1 - lesion) for tissue in found), lesion]).astype(np.float32)

    def ventricles(self, points: NDArray[np.float64]) -> Array:
        """Fraction (...) of the lateral ventricles at the person's points (3, ...), mm."""
        head = template_head()
        inside: Array = ndimage.map_coordinates(
            head.ventricles, _to_voxels(head.affine, self.to_template(points)), order=1
        )
        return inside


@functools.lru_cache(maxsize=1)
def template_head() -> Head:
    """Tissue fractions of the template with skull and scalp around its brain, at 2 mm."""
    mask_image = load_mni152_brain_mask(TEMPLATE_MM)
    affine = np.asarray(mask_image.affine, np.float64)
    mask = np.asarray(mask_image.dataobj) > 0
    grey, white = (
        np.asarray(load(TEMPLATE_MM).dataobj, np.float32) for load in (load_mni152_gm_template, load_mni152_wm_template)
    )
    margin = 12
    mask = np.pad(mask, margin)
    grey, white = np.pad(grey, margin), np.pad(white, margin)
    affine = affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ np.full(3, margin)
    fluid = np.clip(mask - grey - white, 0, 1).astype(np.float32)

    depth = ndimage.distance_transform_edt(~mask) * TEMPLATE_MM
    rough = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(mask.shape), 5)
    depth = depth + 1.2 * rough / rough.std() * (depth > 0)
    z = _mm(affine, mask.shape)[2]
    neck = _neck(affine, mask.shape) & (z < -48) & (depth > 0)
    around = (depth > 0) & (depth <= FLUID_MM)
    skull = (depth > FLUID_MM) & (depth <= FLUID_MM + SKULL_MM) & (z > -65)
    scalp = (depth > FLUID_MM + SKULL_MM) & (depth <= FLUID_MM + SKULL_MM + SCALP_MM) & (z > -75)
    flesh = np.maximum(scalp, NECK * (neck & ~skull & ~around))
    shells = [ndimage.gaussian_filter(each.astype(np.float32), 0.8) for each in (skull, flesh)]
    parts = [grey, white, np.maximum(fluid, around), *shells]
    return Head(np.stack(parts).astype(np.float32), affine, _ventricles(fluid, affine))


def make_anatomy(
    random: np.random.Generator, *, enlargement: float, lesions: int, variation_mm: float = 5.0
) -> Anatomy:
    """Draw a person.

    Args:
        enlargement: how far the walls of the lateral ventricles are pushed outwards, mm; may be negative.
        lesions: number of white-matter lesions.
        variation_mm: standard deviation of the smooth velocity, mm.
    """
    head = template_head()
    step = round(VELOCITY_MM / TEMPLATE_MM)
    shape = tuple(-(-n // step) for n in head.tissues.shape[1:])
    affine = head.affine @ np.diag([step, step, step, 1.0])
    smooth = [ndimage.gaussian_filter(random.standard_normal(shape), 4) for _ in range(3)]
    velocity = np.stack([variation_mm * each / each.std() for each in smooth])
    points = _mm(affine, shape)
    scale = TEMPLATE_SCALE * (1 + random.normal(0, 0.03, 3))
    velocity = velocity * 0.6 + (points - points.mean((1, 2, 3), keepdims=True)) * np.log(scale).reshape(3, 1, 1, 1)
    inwards = np.stack(np.gradient(ndimage.gaussian_filter(head.ventricles, 2.5)))
    inwards /= np.abs(inwards).max() + 1e-6
    velocity += enlargement * np.stack([ndimage.zoom(each, np.array(shape) / each.shape, order=1) for each in inwards])
    return Anatomy(_exponential(velocity, VELOCITY_MM), affine, _draw_lesions(random, head, lesions))


def _exponential(velocity: NDArray[np.float64], spacing: float) -> Array:
    """Scaling and squaring: displacement of the flow along ``velocity`` for unit time, mm."""
    displacement = velocity / 2**SQUARINGS
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in velocity.shape[1:]), indexing="ij")).astype(np.float64)
    for _ in range(SQUARINGS):
        where = grid + displacement / spacing
        displacement = displacement + np.stack(
            [ndimage.map_coordinates(each, where, order=1, mode="nearest") for each in displacement]
        )
    return displacement.astype(np.float32)


def _draw_lesions(random: np.random.Generator, head: Head, count: int) -> tuple[Lesion, ...]:
    z = _mm(head.affine, head.tissues.shape[1:])[2]
    deep = np.argwhere((ndimage.uniform_filter(head.tissues[1], 5) > 0.85) & (z > 0) & (z < 35))
    chosen = deep[random.choice(len(deep), count, replace=False)]
    return tuple(
        Lesion(head.affine[:3, :3] @ voxel + head.affine[:3, 3], float(random.uniform(5, 10))) for voxel in chosen
    )


def _ventricles(fluid: Array, affine: NDArray[np.float64]) -> Array:
    x, y, z = _mm(affine, fluid.shape)
    box = (np.abs(x) < 34) & (y > -50) & (y < 32) & (z > -4) & (z < 32)
    core, _ = ndimage.label((fluid > 0.5) & box)
    sizes = np.bincount(core.ravel())
    sizes[0] = 0
    largest = np.isin(core, np.argsort(sizes)[-2:])
    return (fluid * ndimage.binary_dilation(largest) * box).astype(np.float32)


def _neck(affine: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    x, y, _ = _mm(affine, shape)
    inside: NDArray[np.bool_] = (x / 52) ** 2 + ((y + 28) / 60) ** 2 < 1
    return inside


def _mm(affine: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Coordinates (3, X, Y, Z) of the voxels' centres, mm."""
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")).astype(np.float64)
    return np.tensordot(affine[:3, :3], grid, 1) + affine[:3, 3].reshape(3, 1, 1, 1)


def _to_voxels(affine: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    inverse = np.linalg.inv(affine)
    moved: NDArray[np.float64] = np.tensordot(inverse[:3, :3], points, 1)
    return moved + inverse[:3, 3].reshape(3, *[1] * (points.ndim - 1))
