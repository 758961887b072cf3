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
    "affine": Measure("Coordinates from", "", "Which of the header's affines says where left, front and up are."),
    "brain_method": Measure("Brain extraction", "", "How the brain was found."),
    "seconds": Measure("Time", "s", "Time spent on this scan."),
}  # fmt: skip
