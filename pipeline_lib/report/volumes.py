"""Volumes that travel inside a page: cropped to the brain, of no more voxels than a page can carry, a byte each."""

from __future__ import annotations

import base64
import gzip
from dataclasses import dataclass
from typing import Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from pipeline_lib.imaging.nifti import Volume
from pipeline_lib.imaging.registration import resample

MOST_VOXELS = 750_000
"""Of a layer; a whole brain at 2 mm has fewer."""
MARGIN_MM = 4.0
SHADES, STEPS = 48, 100
"""Of a scan and of a map: what the eye tells apart."""
Mask = NDArray[np.bool_]
Kind = Literal["scan", "map", "mask"]


@dataclass(frozen=True)
class Layer:
    """A volume as the viewer draws it.

    Attributes:
        content: NIfTI, gzipped, in base64.
        low, high: values that span the colours.
        threshold: below it nothing is drawn at first; of maps only.
    """

    title: str
    kind: Kind
    content: str
    low: float
    high: float
    threshold: float = 0.0


@dataclass(frozen=True)
class Frame:
    """The part of a grid around a brain, in voxels ``times`` as long: what all layers of a page share."""

    grid: Volume
    first: tuple[int, ...]
    shape: tuple[int, ...]
    times: tuple[int, ...]

    @classmethod
    def around(cls, mask: Volume) -> Frame:
        """The box of a mask with a margin.

        Raises:
            ValueError: the mask is empty.
        """
        places = np.argwhere(mask.data >= 0.5)
        if not len(places):
            raise ValueError("an empty mask has no box")
        zooms = np.array(mask.zooms)
        margin = np.ceil(MARGIN_MM / zooms).astype(int)
        low = np.maximum(places.min(axis=0) - margin, 0)
        high = np.minimum(places.max(axis=0) + 1 + margin, mask.data.shape)
        size = high - low
        times = np.ones(3, dtype=int)
        while np.prod(-(-size // times)) > MOST_VOXELS:
            times[np.argmin(times * zooms)] += 1
        shape = -(-size // times)
        return cls(mask, tuple(low.tolist()), tuple(shape.tolist()), tuple(times.tolist()))

    @property
    def affine(self) -> NDArray[np.float64]:
        """From voxels of the frame to mm."""
        scale = np.diag([*map(float, self.times), 1.0])
        scale[:3, 3] = np.array(self.first) + (np.array(self.times) - 1) / 2
        return np.asarray(self.grid.affine @ scale)

    def __call__(self, volume: Volume) -> Volume:
        """Means over blocks of voxels; a volume on another grid is interpolated first."""
        same = volume.data.shape == self.grid.data.shape and np.allclose(volume.affine, self.grid.affine, atol=1e-3)
        data = volume.data if same else resample(volume, self.grid, None).data
        ends = np.array(self.first) + np.array(self.shape) * self.times
        data = np.pad(data, [(0, max(0, int(end) - size)) for end, size in zip(ends, data.shape, strict=True)])
        data = data[tuple(slice(low, int(end)) for low, end in zip(self.first, ends, strict=True))]
        blocks = data.reshape([n for pair in zip(self.shape, self.times, strict=True) for n in pair])
        return Volume(blocks.mean(axis=(1, 3, 5), dtype=np.float64).astype(np.float32), self.affine)


def scan_layer(frame: Frame, image: Volume, mask: Volume) -> Layer:
    """A scan in greys, black outside the brain."""
    small, inside = frame(image).data, frame(mask).data >= 0.5
    low, high = np.percentile(small[inside] if inside.any() else small, [0.5, 99.5])
    shades = 1 + np.clip((small - low) / max(high - low, 1e-6), 0, 1) * (SHADES - 2)
    return Layer("Scan", "scan", _packed(np.where(inside, np.round(shades), 0), frame.affine), 0, SHADES - 1)


def map_layer(frame: Frame, title: str, values: Volume, threshold: float | None) -> Layer:
    """Scores; drawn from ``threshold`` up, or from their 98th percentile where there is none."""
    small = np.maximum(frame(values).data, 0)
    positive = small[small > 0]
    high = float(positive.max()) if len(positive) else 1.0
    start = threshold if threshold is not None else float(np.percentile(positive, 98)) if len(positive) else 0.0
    stepped = np.round(small * (STEPS / high)) * (high / STEPS)
    return Layer(title, "map", _packed(stepped, frame.affine), 0.0, max(high, start), start)


def mask_layer(frame: Frame, title: str, mask: Volume) -> Layer:
    """A mask, drawn whole."""
    return Layer(title, "mask", _packed((frame(mask).data >= 0.5).astype(np.float32), frame.affine), 0, 1)


def _packed(data: NDArray[np.floating], affine: NDArray[np.float64]) -> str:
    """NIfTI of a byte a voxel, with the slope by which a byte is its value."""
    image = nib.Nifti1Image(np.asarray(data, np.float32), affine)
    image.set_data_dtype(np.uint8)
    return base64.b64encode(gzip.compress(image.to_bytes(), 9, mtime=0)).decode()
