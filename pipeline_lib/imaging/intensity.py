"""Bias field and intensity: what makes scans comparable."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks

from pipeline_lib.imaging.nifti import Volume
from pipeline_lib.imaging.registration import to_sitk

FIELD_MM = 8.0
"""The bias field is smooth: it is estimated at about this voxel size."""
DARK = 0.1
"""Voxels below this share of the brain's median carry no signal; their logarithm makes the field diverge."""
LOW, HIGH = 0.5, 99.5
STRIPE = 0.05
HISTOGRAM_BINS, HISTOGRAM_SIGMA, PROMINENCE = 256, 5.0, 0.02
"""Bins of the histogram that white matter is looked for in, its smoothing in bins, the least rise of a peak."""


def correct_bias(volume: Volume, mask: NDArray[np.bool_]) -> Volume:
    """N4 (Tustison et al. 2010, doi:10.1109/TMI.2010.2046908), estimated within the brain on a shrunk image."""
    image = to_sitk(Volume(np.clip(volume.data, 0, None), volume.affine))
    signal = mask & (volume.data > DARK * np.median(volume.data[mask]))
    inside = to_sitk(Volume(signal.astype(np.uint8), volume.affine))
    factors = [max(1, round(FIELD_MM / zoom)) for zoom in volume.zooms]
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations([50, 50, 50])
    n4.SetConvergenceThreshold(1e-3)
    n4.Execute(sitk.Shrink(image, factors), sitk.Shrink(inside, factors))
    field = sitk.GetArrayFromImage(sitk.Exp(n4.GetLogBiasFieldAsImage(image))).T
    return Volume((volume.data / np.maximum(field, 1e-3)).astype(np.float32), volume.affine)


def normalise(
    data: NDArray[np.float32], mask: NDArray[np.bool_], method: str, modality: str = "T1w"
) -> NDArray[np.float32]:
    """Intensities made comparable within the brain; 0 outside.

    ``percentile`` maps the 0.5th and 99.5th percentile of the brain to 0 and 1 and clips; ``zscore``
    gives the brain mean 0 and standard deviation 1, ``whitestripe`` its normal white matter; ``none``
    only masks.
    """
    inside = data[mask]
    if method == "percentile":
        low, high = np.percentile(inside, [LOW, HIGH])
        data = np.clip((data - low) / _spread(high - low), 0, 1)
    elif method == "zscore":
        data = (data - inside.mean()) / _spread(float(inside.std()))
    elif method == "whitestripe":
        stripe = white_stripe(inside, modality)
        data = (data - stripe.mean()) / _spread(float(stripe.std()))
    return np.where(mask, data, 0).astype(np.float32)


def _spread(value: float) -> float:
    """What intensities are divided by; 1 where all are equal."""
    return value if value > 0 else 1.0


def white_stripe(brain: NDArray[np.float32], modality: str) -> NDArray[np.float32]:
    """The values of normal white matter among those of the brain (Shinohara et al. 2014, doi:10.1016/j.nicl.2014.08.008).

    White matter is the last peak of a T1-weighted scan's smoothed histogram and the highest of other
    contrasts'; the stripe holds the 5 % of the brain's voxels on either side of it.
    """
    low, high = np.percentile(brain, [LOW, HIGH])
    counts, edges = np.histogram(brain, bins=HISTOGRAM_BINS, range=(low, high))
    smooth = gaussian_filter1d(counts.astype(np.float64), HISTOGRAM_SIGMA, mode="constant")
    peaks, _ = find_peaks(smooth, prominence=PROMINENCE * smooth.max())
    peak = peaks[-1] if modality == "T1w" and len(peaks) else int(smooth.argmax())
    position = float((brain < (edges[peak] + edges[peak + 1]) / 2).mean())
    bounds = np.quantile(brain, [max(position - STRIPE, 0), min(position + STRIPE, 1)])
    stripe: NDArray[np.float32] = brain[(brain >= bounds[0]) & (brain <= bounds[1])]
    return stripe
