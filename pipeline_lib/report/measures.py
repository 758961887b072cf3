"""What the quality numbers of a scan are called, and how to read them (terms as in MRIQC)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    title: str
    unit: str = ""
    meaning: str = ""


MEASURES = {
    "brain_volume_ml": Measure("Brain volume", "mL", "Volume inside the brain mask, in the scan's own space."),
    "template_overlap": Measure("Template overlap", "Dice", "Agreement of the brain mask with the template's. Higher is better."),
    "registration_cost": Measure("Registration cost", "", "Value of the similarity that registration minimised. Lower is better."),
    "registration_similarity": Measure("Registration similarity", "", "Similarity to the template. Higher is better."),
    "snr": Measure("SNR", "", "Signal-to-noise ratio. Higher is better."),
    "cnr": Measure("CNR", "", "Contrast between grey and white matter relative to noise. Higher is better."),
    "efc": Measure("EFC", "", "Entropy focus criterion, a sign of ghosting and motion. Lower is better."),
    "fber": Measure("FBER", "", "Foreground to background energy ratio. Higher is better."),
    "mask_components": Measure("Mask components", "", "Connected parts of the brain mask. One is expected."),
    "seconds": Measure("Time", "s", "Time spent on this scan."),
}  # fmt: skip
