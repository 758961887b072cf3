"""Quality of a scan in numbers and one picture.

MRIQC's terms (Esteban et al. 2017, doi:10.1371/journal.pone.0184661).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.measure import find_contours

from pipeline_lib.config.schema import QualityOptions
from pipeline_lib.imaging.nifti import Volume

Mask = NDArray[np.bool_]
TILE, COLUMNS, DPI = 128, 6, 80
"""Pixels of a slice, slices in a row, pixels an inch."""
SHOWN_MM = 10.0
NOTHING = 1e-9
"""Share of the brain's energy below which a background's is rounding."""
BEYOND = "lies beyond what was scanned"
EMPTY_SLICES = "slices through the brain are empty"
ALL = [(axis, share) for axis in (2, 1, 0) for share in (0.25, 0.45, 0.6, 0.8)]
SOME = [(axis, share) for axis in (2, 1, 0) for share in (0.35, 0.6)]


def measure_native(volume: Volume, mask: Mask, components: int) -> dict[str, float]:
    """Figures of the scan as it came: SNR, CNR, EFC, FBER, brain volume (mL), mask components.

    SNR and CNR split the brain in two by Otsu's threshold; the noise is the standard deviation of
    the image's finest detail (difference to a 3 x 3 x 3 median) within the brain. FBER is -1 where
    the background is 0.
    """
    inside = volume.data[mask]
    split = threshold_otsu(inside) if np.ptp(inside) > 0 else inside[0]
    dark, bright = inside[inside <= split], inside[inside > split]
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    detail = (volume.data[box] - ndimage.median_filter(volume.data[box], 3))[mask[box]]
    noise = max(1.4826 * float(np.median(np.abs(detail - np.median(detail)))), 1e-6 * float(np.ptp(inside))) or 1.0
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
    inside = float(np.median(data[mask].astype(np.float64) ** 2))
    outside = float(np.median(data[~mask].astype(np.float64) ** 2)) if (~mask).any() else 0.0
    return inside / outside if outside > NOTHING * inside else -1.0


def dice(a: Mask, b: Mask) -> float:
    """2 |a and b| / (|a| + |b|)."""
    total = int(a.sum()) + int(b.sum())
    return 2 * float((a & b).sum()) / total if total else 0.0


def incomplete(figures: Mapping[str, float], limits: QualityOptions) -> bool:
    """Whether so much of the brain is missing that what the rest looks like proves nothing."""
    return bool(_missing(figures, limits))


def _missing(figures: Mapping[str, float], limits: QualityOptions) -> str:
    beyond = figures.get("outside_field", 0.0)
    if beyond > limits.max_outside_field:
        limit = f"{limits.max_outside_field:.1%} (quality.max_outside_field)"
        return f"{beyond:.1%} of the template's brain {BEYOND}, more than {limit}"
    if figures.get("empty_slices", 0) > limits.max_empty_slices:
        limit = f"{limits.max_empty_slices} (quality.max_empty_slices)"
        return f"{figures['empty_slices']:.0f} {EMPTY_SLICES}, more than {limit}"
    empty = figures.get("empty_inside", 0.0)
    if empty > limits.max_empty_inside:
        limit = f"{limits.max_empty_inside:.1%} (quality.max_empty_inside)"
        return f"{empty:.1%} of the template's inner brain is empty in the scan, a hole of more than {limit}"
    return ""


def verdict(figures: Mapping[str, float], limits: QualityOptions, *, extracted: bool = False) -> str:
    """Empty, or the first limit that a scan breaks, with number and limit, and what to do.

    The number of pieces of a mask is judged only where it was ``extracted`` from a head here: there
    many pieces mean that the network did not know what it saw.
    """
    fault = _missing(figures, limits) or _odd(figures, limits, extracted)
    return f"{fault}; look at its picture, then give a mask or change the limit" if fault else ""


def _odd(figures: Mapping[str, float], limits: QualityOptions, extracted: bool) -> str:
    low, high = limits.brain_volume_ml
    if "brain_volume_ml" in figures and not low <= figures["brain_volume_ml"] <= high:
        volume = f"{figures['brain_volume_ml']:.0f} mL"
        return f"brain volume {volume} is outside {low:g} to {high:g} mL (quality.brain_volume_ml)"
    overlap = figures.get("template_overlap")
    if overlap is not None and overlap < limits.min_template_overlap:
        limit = f"{limits.min_template_overlap:g} (quality.min_template_overlap)"
        return f"overlap with the template {overlap:.2f} is below {limit}"
    cost = figures.get("registration_cost")
    if cost is not None and cost > limits.max_registration_cost:
        limit = f"{limits.max_registration_cost:g} (quality.max_registration_cost)"
        return f"registration cost {cost:.2f} is above {limit}: what was taken for a brain is not like the template's"
    pieces = figures.get("mask_components", 0)
    if extracted and pieces > limits.max_mask_components:
        limit = f"{limits.max_mask_components} (quality.max_mask_components)"
        return f"brain mask was found in {pieces:.0f} pieces, more than {limit}"
    low, high = limits.brain_median
    if "brain_median" in figures and not low <= figures["brain_median"] <= high:
        limit = f"{low:g} to {high:g} (quality.brain_median)"
        return f"median intensity of the brain {figures['brain_median']:.2f} is outside {limit}"
    return ""


def draw_anatomy(
    path: Path, native: Volume, mask: Mask, before: Volume | None, normalised: Volume, outline: Mask, inside: Mask
) -> None:
    """Slices of the scan with its brain mask, before and after registration with the template's, and a histogram.

    Of the scan as it came, nothing is shown further than a centimetre from the brain: no face.

    Args:
        mask: brain on the grid of ``native``.
        before: the brain with its centre of mass on the template's, where it was registered.
        outline: the template's brain on the grid of ``normalised``.
        inside: the person's brain there, whose histogram is drawn.
    """
    parts = [
        _caption("as scanned, up to 1 cm around the brain; brain mask outlined"),
        mosaic(native.data, mask, native.zooms, "#ff5a36", ALL, around=SHOWN_MM),
    ]
    if before is not None:
        parts += [
            _caption("before registration (centres of mass aligned), template's brain outlined"),
            mosaic(before.data, outline, before.zooms, "#35c2ff", SOME),
        ]
    parts += [
        _caption("template space, template's brain outlined" if before is not None else "resampled, brain outlined"),
        mosaic(normalised.data, outline, normalised.zooms, "#35c2ff", ALL),
        _histogram(normalised.data[inside], "intensity within the brain, normalised"),
    ]
    sheet = Image.new("RGB", (parts[0].width, sum(part.height for part in parts)))
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    _write(sheet, path)


def draw_maps(path: Path, volume: Volume, mask: Mask, names: Sequence[str]) -> None:
    """Three axial slices of every channel of a 4D scan, and its histogram within the mask."""
    count = volume.data.shape[3]
    figure = Figure(figsize=(9.6, 2.5 * count), facecolor="black")
    axes = figure.subplots(count, 4, squeeze=False)
    levels = np.flatnonzero(mask.any((0, 1)))
    chosen = levels[(len(levels) * np.array([0.35, 0.5, 0.65])).astype(int)]
    for channel, row in enumerate(axes):
        for axis, level in zip(row[:3], chosen, strict=True):
            axis.imshow(volume.data[:, :, level, channel].T, cmap="gray", origin="lower", vmin=0, vmax=1)
            axis.contour(mask[:, :, level].T, [0.5], colors="#ff5a36", linewidths=0.6)
            axis.axis("off")
        row[0].set_title(names[channel], color="white", fontsize=8, loc="left")
        _draw_histogram(row[3], volume.data[..., channel][mask])
    _save(figure, path)


def mosaic(
    data: NDArray[np.float32],
    mask: Mask,
    zooms: Sequence[float],
    colour: str,
    places: Sequence[tuple[int, float]],
    around: float = np.inf,
) -> Image.Image:
    """Slices at ``places`` (axis, share of the mask's extent) with the mask's outline, black ``around`` mm from it."""
    high = float(np.percentile(data[mask], 99.5)) if mask.any() else float(data.max())
    high = high if high > 0 else 1.0
    sheet = Image.new("RGB", (COLUMNS * TILE, -(-len(places) // COLUMNS) * TILE))
    for number, (axis, share) in enumerate(places):
        levels = np.flatnonzero(mask.any(tuple(n for n in range(3) if n != axis)))
        level = int(levels[int(share * (len(levels) - 1))]) if len(levels) else data.shape[axis] // 2
        size = [zooms[n] for n in range(3) if n != axis]
        cut = tuple(level if n == axis else slice(None) for n in range(3))
        near = ndimage.distance_transform_edt(~mask[cut], size) <= around
        panel = _panel(np.where(near, data[cut] / high, 0), mask[cut], size, colour)
        row, column = divmod(number, COLUMNS)
        sheet.paste(panel, (column * TILE + (TILE - panel.width) // 2, row * TILE + (TILE - panel.height) // 2))
    return sheet


def _panel(pixels: NDArray[np.float32], mask: Mask, size: Sequence[float], colour: str) -> Image.Image:
    """A slice, its second axis upwards, as large as a tile allows; pixels of ``size`` mm."""
    extent = np.array(pixels.shape) * size
    width, height = np.maximum(1, np.round(extent * (TILE - 6) / extent.max())).astype(int)
    grey = (np.clip(pixels, 0, 1) * 255).astype(np.uint8).T[::-1]
    panel = Image.fromarray(np.ascontiguousarray(grey)).resize((int(width), int(height)), Image.Resampling.BILINEAR)
    panel = panel.convert("RGB")
    scale = np.array([width, height]) / pixels.shape
    for line in find_contours(np.pad(mask, 1).astype(float), 0.5):
        points = (line - 0.5) * scale  # a pad of 1, and pixels start half a pixel before their centre
        points[:, 1] = height - points[:, 1]
        ImageDraw.Draw(panel).line([(float(x), float(y)) for x, y in points], fill=colour)
    return panel


def _caption(text: str) -> Image.Image:
    strip = Image.new("RGB", (COLUMNS * TILE, 20))
    ImageDraw.Draw(strip).text((8, 4), text, fill="white", font_size=12)
    return strip


def _histogram(values: NDArray[np.float32], label: str) -> Image.Image:
    figure = Figure(figsize=(COLUMNS * TILE / DPI, 1.6), facecolor="black", dpi=DPI)
    axis = figure.add_axes((0.03, 0.36, 0.94, 0.6))
    _draw_histogram(axis, values)
    axis.set_xlabel(label, color="white", fontsize=8)
    return _rendered(figure)


def _draw_histogram(axis: Axes, values: NDArray[np.float32]) -> None:
    axis.set_facecolor("black")
    axis.hist(values, bins=80, color="#35c2ff")
    axis.tick_params(colors="white", labelsize=7)
    axis.set_yticks([])


def _rendered(figure: Figure) -> Image.Image:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])


def _save(figure: Figure, path: Path) -> None:
    figure.set_dpi(DPI)
    figure.subplots_adjust(left=0.02, right=0.98, bottom=0.08, top=0.95, wspace=0.03, hspace=0.12)
    _write(_rendered(figure), path)


def _write(image: Image.Image, path: Path) -> None:
    """With a palette of 64 colours, a third of the size of true colour: a cohort has thousands of these."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.quantize(64).save(path, format="PNG", optimize=True)
