"""Intensity: what makes scans comparable."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks

LOW, HIGH = 0.5, 99.5
BRIGHTEST = 99.9
Z = 4.0
DEVIATIONS = 5.0
NORMAL_MAD = 1.4826
"""Standard deviations in a median absolute deviation of a normal distribution."""
STRIPES = {"T1w": (-80.0, 25.0), "FLAIR": (-100.0, 50.0)}
OTHER_STRIPES = (-80.0, 150.0)
STRIPE = 0.05
HISTOGRAM_BINS, HISTOGRAM_SIGMA, PROMINENCE = 256, 5.0, 0.02
"""Bins of the histogram that white matter is looked for in, its smoothing in bins, the least rise of a peak."""


@dataclass(frozen=True)
class Normalisation:
    """``(x - centre) / scale`` within the brain; a network sees ``low`` to ``high`` of that as -1 to 1, clipped.

    | method      | centre, scale                          | low, high                                         |
    |-------------|----------------------------------------|---------------------------------------------------|
    | percentile  | 0.5th percentile, its way to the 99.5th | 0, 1, and clipped to them                         |
    | zscore      | mean, standard deviation               | -4, 4                                             |
    | median_mad  | median, 1.4826 median |x - median|     | -5, 5                                             |
    | whitestripe | mean and SD of normal white matter     | -80, 25 (T1w), -100, 50 (FLAIR), -80, 150 (others) |
    | none        | 0, 1                                   | 0, 1 where all lies there, otherwise the brain's least value or 0 and its 99.9th percentile |

    The limits of whitestripe are wide because its unit is the spread of the tenth of the brain about the peak of
    white matter, some 2 % of its brightness: they hold at least 99 % of the brains in docs/preprocessing.md.
    """

    method: str
    centre: float
    scale: float
    low: float
    high: float

    def apply(self, data: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """``data`` normalised within ``mask``; 0 outside."""
        scaled = (data - self.centre) / self.scale
        if self.method == "percentile":
            scaled = np.clip(scaled, self.low, self.high)
        return np.where(mask, scaled, 0).astype(np.float32)

    def clipped(self, normalised: NDArray[np.float32]) -> float:
        """Share of normalised values beyond what a network sees."""
        return float(((normalised < self.low) | (normalised > self.high)).mean())


def fit_normalisation(inside: NDArray[np.float32], method: str, modality: str = "T1w") -> Normalisation:
    """The constants of ``method`` for a brain whose intensities are ``inside``.

    ``median_mad`` is robust to what is unlike the rest: a lesion does not change its own scale (MAD: median absolute
    deviation; Rousseeuw and Croux 1993, doi:10.1080/01621459.1993.10476408).
    """
    if method == "percentile":
        low, high = np.percentile(inside, [LOW, HIGH])
        return Normalisation(method, float(low), _spread(float(high - low)), 0.0, 1.0)
    if method == "zscore":
        return Normalisation(method, float(inside.mean()), _spread(float(inside.std())), -Z, Z)
    if method == "median_mad":
        median = float(np.median(inside))
        deviation = NORMAL_MAD * float(np.median(np.abs(inside - median)))
        return Normalisation(method, median, _spread(deviation), -DEVIATIONS, DEVIATIONS)
    if method == "whitestripe":
        stripe = white_stripe(inside, modality)
        return Normalisation(
            method, float(stripe.mean()), _spread(float(stripe.std())), *STRIPES.get(modality, OTHER_STRIPES)
        )
    if method == "none":
        least, most = float(inside.min()), float(inside.max())
        if least >= 0 and most <= 1 and most > least:
            return Normalisation(method, 0.0, 1.0, 0.0, 1.0)
        low, high = min(least, 0.0), float(np.percentile(inside, BRIGHTEST))
        return Normalisation(method, 0.0, 1.0, low, high if high > low else low + 1)
    raise ValueError(f"no normalisation {method!r}")


def normalise(
    data: NDArray[np.float32], mask: NDArray[np.bool_], method: str, modality: str = "T1w"
) -> NDArray[np.float32]:
    """Intensities made comparable within the brain by `fit_normalisation`; 0 outside."""
    return fit_normalisation(data[mask], method, modality).apply(data, mask)


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
