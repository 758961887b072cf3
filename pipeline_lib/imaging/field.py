"""What of a brain a scan does not show: beyond its field of view, in empty slices, in holes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from pipeline_lib.imaging.brain import foreground
from pipeline_lib.imaging.nifti import Volume
from pipeline_lib.imaging.registration import resample, template

Mask = NDArray[np.bool_]

ABRUPT = 0.3
"""Foreground of the last slice over that of the slice that has most, from which a head is cut there and does not end."""
NEAR_MM = 8.0
"""Distance from a brain to where the scan ends within which skull and scalp have no room: the brain may go on."""
BLACK = 0.05
"""Brightness of what is empty, over that of a brain."""
INNER_MM = 6.0
"""Distance from the surface of the template's brain from which there is brain in everyone."""
ENDS = (("left", "right"), ("back", "front"), ("bottom", "top"))


@dataclass(frozen=True)
class Cut:
    """An end of a RAS+ volume where a brain may go on: its axis, 0 the lower or 1 the upper end, the last plane."""

    axis: int
    end: int
    plane: int

    @property
    def name(self) -> str:
        return ENDS[self.axis][self.end]


def cuts(scan: Volume, brain: Mask) -> list[Cut]:
    """Where a scan stops near its brain, though the head does not end: at the last plane that is not one value."""
    shown = foreground(scan)
    found = []
    for axis in range(3):
        others = tuple(n for n in range(3) if n != axis)
        planes = np.flatnonzero(np.ptp(scan.data, axis=others) > 0)
        levels = np.flatnonzero(brain.any(others))
        areas = shown.sum(others)
        for end, plane, level in ((0, planes[0], levels[0]), (1, planes[-1], levels[-1])):
            near = abs(int(level) - int(plane)) * scan.zooms[axis] <= NEAR_MM
            if near and areas[plane] > ABRUPT * areas.max():
                found.append(Cut(axis, end, int(plane)))
    return found


def cropped(volume: Volume, where: list[Cut]) -> Volume:
    """``volume`` without what lies beyond its cuts, which was not scanned."""
    kept = [[0, n] for n in volume.data.shape]
    for cut in where:
        kept[cut.axis][cut.end] = cut.plane + cut.end
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [start for start, _ in kept]
    return Volume(volume.data[tuple(slice(*each) for each in kept)], affine)


def outside_field(field: Volume, transform: sitk.Transform) -> float:
    """Share of the template's brain that lies outside the volume ``field``, registered by ``transform``."""
    reference, brain = template()
    seen = resample(Volume(np.ones(field.data.shape, np.float32), field.affine), reference, transform).data > 0
    return float((brain & ~seen).sum() / brain.sum())


def empty_inside(scan: Volume, brain: Mask, field: Volume, transform: sitk.Transform) -> float:
    """Share of the template's inner brain, as far as it lies in ``field``, that is black and without any detail in ``scan``.

    Without detail: all 27 voxels of a cube have one value, which noise does not leave. Black: nearer than a twentieth
    to the scan's least value, on the way to the median of its ``brain``.
    """
    reference, outline = template()
    inner = ndimage.distance_transform_edt(outline, reference.zooms) > INNER_MM
    shown = resample(Volume(np.ones(field.data.shape, np.float32), field.affine), reference, transform).data > 0
    flat = ndimage.maximum_filter(scan.data, 3) == ndimage.minimum_filter(scan.data, 3)
    least = float(scan.data.min())
    black = scan.data - least <= BLACK * (float(np.median(scan.data[brain])) - least)
    empty = ndimage.maximum_filter(flat & black, 3)
    there = resample(Volume(empty.astype(np.float32), scan.affine), reference, transform).data > 0.5
    return float((inner & shown & there).sum() / inner.sum())


def empty_slices(scan: Volume, brain: Mask) -> tuple[int, str]:
    """How many planes through a brain are one value through and through, along the axis that has most; which they are."""
    worst, text = 0, ""
    for axis in range(3):
        planes = np.moveaxis(scan.data, axis, 0)
        flat = np.ptp(planes.reshape(len(planes), -1), axis=1) == 0
        levels = np.flatnonzero(brain.any(tuple(n for n in range(3) if n != axis)))
        within = np.flatnonzero(flat[levels[0] : levels[-1]]) + levels[0]
        if len(within) > worst:
            names = ", ".join(str(n) for n in within[:4])
            worst, text = len(within), f"slices {names}{' ...' if len(within) > 4 else ''} along {'xyz'[axis]}"
    return worst, text
