"""Quality of a scan in numbers and one picture.

MRIQC's terms (Esteban et al. 2017, doi:10.1371/journal.pone.0184661).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage.filters import threshold_otsu

from pipeline_lib.config.schema import QualityOptions
from pipeline_lib.imaging.nifti import Volume

Mask = NDArray[np.bool_]


def measure_native(volume: Volume, mask: Mask, components: int) -> dict[str, float]:
    """Figures of the scan as it came: SNR, CNR, EFC, FBER, brain volume (mL), mask components.

    SNR and CNR split the brain in two by Otsu's threshold; the noise is the standard deviation of
    the image's finest detail (difference to a 3 x 3 x 3 median) within the brain. FBER is -1 where
    the background is exactly 0.
    """
    inside = volume.data[mask]
    split = threshold_otsu(inside) if np.ptp(inside) > 0 else inside[0]
    dark, bright = inside[inside <= split], inside[inside > split]
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    detail = (volume.data[box] - ndimage.median_filter(volume.data[box], 3))[mask[box]]
    noise = max(1.4826 * float(np.median(np.abs(detail - np.median(detail)))), 1e-6 * max(float(np.ptp(inside)), 1e-6))
    return {
        "brain_volume_ml": float(mask.sum()) * volume.voxel_ml,
        "mask_components": float(components),
        "snr": float(inside.mean()) / noise,
        "cnr": float(abs(bright.mean() - dark.mean())) / noise if len(bright) and len(dark) else 0.0,
        "efc": _entropy_focus(volume.data),
        "fber": _foreground_background(volume.data, mask),
    }


def _entropy_focus(data: NDArray[np.float32]) -> float:
    """Shannon entropy of the voxels over that of an image with all energy spread evenly (Atkinson 1997)."""
    values = np.abs(data.ravel()).astype(np.float64)
    energy = float(np.sqrt((values**2).sum()))
    highest = values.size * (1 / np.sqrt(values.size)) * np.log(1 / np.sqrt(values.size))
    share = values / energy
    return float((share * np.log(share + 1e-16)).sum() / highest)


def _foreground_background(data: NDArray[np.float32], mask: Mask) -> float:
    outside = float(np.median(np.abs(data[~mask]) ** 2)) if (~mask).any() else 0.0
    return float(np.median(np.abs(data[mask]) ** 2)) / outside if outside > 1e-3 else -1.0


def dice(a: Mask, b: Mask) -> float:
    """2 |a and b| / (|a| + |b|)."""
    total = int(a.sum()) + int(b.sum())
    return 2 * float((a & b).sum()) / total if total else 0.0


def verdict(figures: dict[str, float], limits: QualityOptions, *, extracted: bool = False) -> str:
    """Empty, or the first limit that a scan breaks, with number and limit.

    The number of pieces of a mask is judged only where it was ``extracted`` from a head here: there
    many pieces mean that the network did not know what it saw.
    """
    low, high = limits.brain_volume_ml
    if "brain_volume_ml" in figures and not low <= figures["brain_volume_ml"] <= high:
        volume = f"{figures['brain_volume_ml']:.0f} mL"
        return f"brain volume {volume} is outside {low:g} to {high:g} mL (quality.brain_volume_ml)"
    overlap = figures.get("template_overlap")
    if overlap is not None and overlap < limits.min_template_overlap:
        limit = f"{limits.min_template_overlap:g} (quality.min_template_overlap)"
        return f"overlap with the template {overlap:.2f} is below {limit}"
    pieces = figures.get("mask_components", 0)
    if extracted and pieces > limits.max_mask_components:
        limit = f"{limits.max_mask_components} (quality.max_mask_components)"
        return f"brain mask was found in {pieces:.0f} pieces, more than {limit}"
    low, high = limits.brain_median
    if "brain_median" in figures and not low <= figures["brain_median"] <= high:
        limit = f"{low:g} to {high:g} (quality.brain_median)"
        return f"median intensity of the brain {figures['brain_median']:.2f} is outside {limit}"
    return ""


def draw_anatomy(path: Path, native: Volume, mask: Mask, normalised: Volume, outline: Mask) -> None:
    """Slices as scanned with the brain mask's outline, slices in template space with the template's, a histogram."""
    figure = Figure(figsize=(9.6, 7.4), facecolor="black")
    axes = figure.subplots(5, 6, gridspec_kw={"height_ratios": [1, 1, 1, 1, 0.7]})
    _mosaic(axes[0:2], native.data, mask, native.zooms, "#ff5a36")
    _mosaic(axes[2:4], normalised.data, outline, normalised.zooms, "#35c2ff")
    for axis in axes[4]:
        axis.remove()
    histogram = figure.add_subplot(5, 1, 5)
    inside = normalised.data[outline]
    histogram.hist(inside, bins=80, color="#35c2ff")
    histogram.set_facecolor("black")
    histogram.tick_params(colors="white", labelsize=7)
    histogram.set_yticks([])
    histogram.set_xlabel("intensity within the brain, normalised", color="white", fontsize=8)
    axes[0][0].set_title("as scanned, brain mask outlined", color="white", fontsize=8, loc="left")
    axes[2][0].set_title("template space, template's brain outlined", color="white", fontsize=8, loc="left")
    _save(figure, path)


def draw_maps(path: Path, volume: Volume, mask: Mask, names: Sequence[str]) -> None:
    """Three axial slices of every channel of a 4D scan."""
    count = min(volume.data.shape[3], 4)
    figure = Figure(figsize=(7.2, 2.5 * count), facecolor="black")
    axes = figure.subplots(count, 3, squeeze=False)
    levels = np.flatnonzero(mask.any((0, 1)))
    chosen = levels[(len(levels) * np.array([0.35, 0.5, 0.65])).astype(int)]
    for channel, row in enumerate(axes):
        for axis, level in zip(row, chosen, strict=True):
            axis.imshow(volume.data[:, :, level, channel].T, cmap="gray", origin="lower", vmin=0, vmax=1)
            axis.contour(mask[:, :, level].T, [0.5], colors="#ff5a36", linewidths=0.6)
            axis.axis("off")
        row[0].set_title(names[channel], color="white", fontsize=8, loc="left")
    _save(figure, path)


def draw_pictures(path: Path, slices: NDArray[np.uint8]) -> None:
    """Up to eight of a person's slices."""
    chosen = slices[np.unique(np.linspace(0, len(slices) - 1, 8).astype(int))]
    figure = Figure(figsize=(1.6 * len(chosen), 1.8), facecolor="black")
    for axis, pixels in zip(np.atleast_1d(figure.subplots(1, len(chosen))), chosen, strict=True):
        axis.imshow(pixels.squeeze(), cmap="gray")
        axis.axis("off")
    _save(figure, path)


def _mosaic(axes: Any, data: NDArray[np.float32], mask: Mask, zooms: Sequence[float], colour: str) -> None:
    """Four slices of each plane across the mask, with its outline."""
    high = float(np.percentile(data[mask], 99.5)) if mask.any() else float(data.max())
    places = [(axis, share) for axis in (2, 1, 0) for share in (0.25, 0.45, 0.6, 0.8)]
    for panel, (axis, share) in zip(np.ravel(axes), places, strict=True):
        levels = np.flatnonzero(mask.any(tuple(n for n in range(3) if n != axis)))
        level = int(levels[int(share * (len(levels) - 1))]) if len(levels) else data.shape[axis] // 2
        kept = [n for n in range(3) if n != axis]
        panel.imshow(
            data.take(level, axis).T,
            cmap="gray",
            origin="lower",
            vmin=0,
            vmax=high,
            aspect=zooms[kept[1]] / zooms[kept[0]],
        )
        outline = mask.take(level, axis).T
        if outline.any() and not outline.all():
            panel.contour(outline, [0.5], colors=colour, linewidths=0.7)
        panel.axis("off")


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.subplots_adjust(left=0.02, right=0.98, bottom=0.08, top=0.95, wspace=0.03, hspace=0.12)
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(80)
    canvas.draw()
    # A palette of 64 colours is a third of the size of true colour, and a cohort has thousands of these.
    Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).quantize(64).save(path, format="PNG", optimize=True)
