"""What the quality numbers of a scan are called, and how to read them (terms as in MRIQC)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """``absent`` is the value that stands for none."""

    title: str
    unit: str = ""
    meaning: str = ""
    absent: float | None = None


MEASURES = {
    "brain_volume_ml": Measure("Brain volume", "mL", "Volume inside the brain mask, in the scan's own space."),
    "template_overlap": Measure("Template overlap", "Dice", "Agreement of the brain mask with the template's. Higher is better."),
    "registration_cost": Measure("Registration cost", "", "Value of the similarity that registration minimised. Lower is better."),
    "snr": Measure("SNR", "", "Signal-to-noise ratio: mean of the brain over its noise, which is estimated from the finest detail (not from the air, as MRIQC does). Higher is better. Of diffusion MRI, this and the next three are of the mean b0."),
    "cnr": Measure("CNR", "", "Difference of the means of the brain's dark and bright half (Otsu) over the same noise. Higher is better."),
    "efc": Measure("EFC", "", "Entropy focus criterion, a sign of ghosting and motion. Lower is better."),
    "fber": Measure("FBER", "", "Foreground to background energy ratio: median energy of the brain over that of all else, -1 (not drawn) where the background is exactly 0. Higher is better.", absent=-1),
    "mask_components": Measure("Mask components", "", "Connected parts of the mask before the largest was kept. Compare it with the other scans."),
    "shells": Measure("Shells", "", "Shells of the diffusion scan, by b-value."),
    "brain_median": Measure("Brain median", "", "Median of the brain's intensities, its 0.5th percentile being 0 and its 99.5th 1."),
    "outside_field": Measure("Outside the field", "", "Share of the template's brain that lies beyond what was scanned."),
    "empty_inside": Measure("Empty inside", "", "Share of the template's brain, 6 mm from its surface inwards, that is black and without any noise in the scan."),
    "empty_slices": Measure("Empty slices", "", "Slices through the brain that are one value."),
    "below_background": Measure("Below background", "", "Share of the foreground that is darker than the background: more than a little has two signs, or was raised."),
    "white_over_grey": Measure("White over grey", "", "Probability that a voxel of white matter is brighter than one of grey, found by the template."),
    "grey_over_fluid": Measure("Grey over fluid", "", "The same of grey matter and fluid."),
    "white_over_fluid": Measure("White over fluid", "", "The same of white matter and fluid."),
    "not_finite": Measure("Not finite", "", "Share of voxels that were NaN or infinite and became 0."),
    "intensity": Measure("Intensity", "", "How intensities were normalised: (x - centre) / scale."),
    "intensity_centre": Measure("Intensity centre", "", "What was subtracted."),
    "intensity_scale": Measure("Intensity scale", "", "What was divided by."),
    "intensity_low": Measure("Intensity low", "", "Normalised value that a network sees as -1."),
    "intensity_high": Measure("Intensity high", "", "Normalised value that a network sees as 1."),
    "intensity_clipped": Measure("Intensity clipped", "", "Share of the brain beyond these two."),
    "orientation": Measure("Axes", "", "Where the axes of the scan's file run to: right or left, front (A) or back (P), up (S) or down (I)."),
    "affine": Measure("Coordinates from", "", "Which of the header's affines says where left, front and up are."),
    "brain_method": Measure("Brain extraction", "", "How the brain was found."),
    "seconds": Measure("Time", "s", "Time spent on this scan."),
}  # fmt: skip
