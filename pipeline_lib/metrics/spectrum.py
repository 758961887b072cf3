"""Power spectra: how much detail an image has, and seams at the grid of a network that works on blocks of voxels.

A pattern that repeats every `block` voxels has power at multiples of 1 / block cycles a voxel (Odena et al., 2016,
"Deconvolution and checkerboard artifacts"); images of brains have none that stands out from the frequencies beside it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

APART = np.array([-6, -5, -4, -3, 3, 4, 5, 6])
"""Neighbours of a frequency, in steps of 1 / length: beyond the two that a brain's own extent widens a peak by."""
RADIAL_BINS = 16
"""Between 0 and 1/2 cycles a voxel."""
LEAST = 32
"""Voxels along an axis from which on 1/4 cycles a voxel has such neighbours."""
SEAM_FREQUENCIES = (1 / 4, 1 / 2)
"""Cycles a voxel of seams of blocks of 4 voxels; those of 2 have the second only."""


def seam_power(images: NDArray[np.floating], frequency: float) -> float:
    """Power at `frequency` over what the neighbouring frequencies let expect of it: 1 where nothing stands out.

    The ratio is taken along each axis from the power averaged over everything else, and its geometric mean over the axes
    is given. Set the value of generated images beside that of real ones of the same size.

    Args:
        images: (N, C, *spatial), at least LEAST voxels along each axis.
        frequency: cycles a voxel, above 0 and at most 1/2, e.g. one of SEAM_FREQUENCIES.
    """
    if not 0 < frequency <= 0.5:
        raise ValueError(f"frequency is {frequency}; above 0 to 0.5 cycles a voxel is needed")
    ratios = []
    for axis in range(2, images.ndim):
        length = images.shape[axis]
        power = spectrum_along(images, axis)
        here = round(frequency * length)
        beside = here + APART
        if length < LEAST or beside.min() < 1:
            raise ValueError(f"images have shape {images.shape}; {LEAST} voxels or more along each axis are needed")
        # The spectrum of an image falls as a power of the frequency; above 1/2 it is what it is as far below.
        law = np.polynomial.Polynomial.fit(np.log(beside), np.log(power[np.minimum(beside, length - beside)]), 1)
        ratios.append(np.log(power[min(here, length - here)]) - law(np.log(here)))
    return float(np.exp(np.mean(ratios)))


def radial_power(
    image: NDArray[np.floating], mask: NDArray[np.bool_], bins: int = RADIAL_BINS
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Power of an image ``(*spatial)`` by the length of the frequency, what lies outside the mask being its mean inside.

    Returns:
        Middles of the bins, cycles a voxel, from 0 to 1/2 along an axis (the corners beyond are left out), and the mean
        power in each; NaN where an image is so small that no frequency falls into it.
    """
    values = np.where(mask, image - image[mask].mean(), 0).astype(np.float64)
    power = np.abs(np.fft.fftn(values)) ** 2
    axes = np.meshgrid(*(np.fft.fftfreq(length) for length in image.shape), indexing="ij")
    length = np.sqrt(sum(axis**2 for axis in axes))
    place = np.minimum((length / 0.5 * bins).astype(int), bins).ravel()
    total = np.bincount(place, power.ravel(), bins + 1)[:bins]
    count = np.bincount(place, minlength=bins + 1)[:bins]
    with np.errstate(invalid="ignore"):
        return (np.arange(bins) + 0.5) / bins / 2, total / count


def spectrum_along(images: NDArray[np.floating], axis: int) -> NDArray[np.float64]:
    """Power at k / length cycles a voxel along `axis`, k from 0 to length / 2, averaged over everything else."""
    values = np.asarray(images, dtype=np.float64)
    power = np.abs(np.fft.rfft(values - values.mean(), axis=axis)) ** 2
    others = tuple(a for a in range(values.ndim) if a != axis)
    mean: NDArray[np.float64] = power.mean(axis=others)
    return mean
