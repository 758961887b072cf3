"""What a scan shows: labels and maps are told from scans, contrasts from each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline_lib.errors import UserError
from pipeline_lib.imaging.canonical import open_scan
from pipeline_lib.imaging.content import below_background, content_fault, tissue_contrast, tissues
from pipeline_lib.imaging.labels import refuse_labels
from pipeline_lib.imaging.nifti import Volume
from pipeline_lib.imaging.registration import template

LEVELS = {
    "T1w": {"white": 100, "grey": 70, "fluid": 30},
    "T2w": {"white": 40, "grey": 60, "fluid": 100},
    "FLAIR": {"white": 60, "grey": 80, "fluid": 15},
    "PD": {"white": 80, "grey": 100, "fluid": 95},
    "flat": {"white": 80, "grey": 80, "fluid": 80},
}
ALIKE = {("T2w", "PD"), ("FLAIR", "PD"), ("PD", "T2w")}
"""Grey brighter than white, and fluid anywhere: ranks do not tell these apart."""


def scan_of(levels: dict[str, int], noise: float = 8) -> np.ndarray:
    """A scan on the template's grid with these tissues."""
    _, brain = template()
    image = np.where(brain, levels["fluid"], 0).astype(np.float32)
    for name in ("grey", "white"):
        image[tissues()[name]] = levels[name]
    return image + np.random.default_rng(0).normal(0, noise, image.shape).astype(np.float32)


def test_probability_is_that_of_two_normal_distributions() -> None:
    image = scan_of({"white": 100, "grey": 90, "fluid": 90}, noise=10)
    found = tissue_contrast(image, template()[1])
    assert found["white_over_grey"] == pytest.approx(0.760, abs=0.015)  # Phi(1 / sqrt 2)
    assert found["grey_over_fluid"] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("contrast", LEVELS)
@pytest.mark.parametrize("modality", ["T1w", "T2w", "FLAIR", "PD"])
def test_a_contrast_is_accepted_as_what_it_is_alone(contrast: str, modality: str) -> None:
    figures = tissue_contrast(scan_of(LEVELS[contrast]), template()[1])
    fault = content_fault(figures, modality)
    if contrast == modality:
        assert fault == ""
    elif (contrast, modality) not in ALIKE:
        assert f"its contrast is not that of a {modality} scan" in fault
        assert contrast == "flat" or contrast in fault.partition("it is like")[2]


def test_contrast_does_not_depend_on_the_unit_of_intensity() -> None:
    image, brain = scan_of(LEVELS["T1w"]), template()[1]
    assert tissue_contrast(image * 1e-4 - 7, brain) == pytest.approx(tissue_contrast(image, brain), abs=1e-3)


def test_values_of_two_signs_are_a_map_unless_they_are_a_standardised_scan() -> None:
    reference, brain = template()
    z = np.where(brain, np.random.default_rng(0).normal(size=brain.shape), 0).astype(np.float32)
    below = below_background(Volume(z, reference.affine))
    assert below == pytest.approx(0.5, abs=0.02)
    figures = {"below_background": below} | tissue_contrast(z, brain)
    assert "values of two signs: 50% lie below the background" in content_fault(figures, "T1w")
    image = scan_of(LEVELS["T1w"])
    standard = np.where(brain, (image - image[brain].mean()) / image[brain].std(), 0).astype(np.float32)
    figures = {"below_background": below_background(Volume(standard, reference.affine))}
    assert figures["below_background"] > 0.1
    assert content_fault(figures | tissue_contrast(standard, brain), "T1w") == ""
    lowered = Volume(np.where(brain, image, np.abs(image) / 20) - 1024, reference.affine)
    assert below_background(lowered) < 0.01, "all lowered alike: the background, too"


def test_masks_and_labels_are_refused_and_a_scan_is_not() -> None:
    brain = template()[1]
    blocks = np.add.reduce(
        np.meshgrid(*(np.arange(n) // 12 * k for n, k in zip(brain.shape, (1, 10, 100), strict=True)), indexing="ij")
    )
    for data, said in (
        (brain.astype(np.float32), "1 inside and 0 outside, one value: a mask"),
        (np.where(brain, 0.5, 0).astype(np.float32), "one value: a mask"),
        (np.where(brain, 1 + blocks, 0).astype(np.float32), "a map of labels; give the scan itself"),
    ):
        with pytest.raises(UserError, match=said):
            refuse_labels(data, "scan.nii.gz")
    refuse_labels(np.round(scan_of(LEVELS["T1w"])), "scan.nii.gz")
    refuse_labels(np.round(scan_of(LEVELS["T1w"]) / 16), "few grey levels")


def test_real_scans_are_no_labels(shared_data: Path) -> None:
    for pattern in ("ixi*/t1/IXI0*.nii.gz", "ds002748*/sub-0*.nii.gz"):
        for path in sorted(shared_data.glob(pattern))[:3]:
            volume = open_scan(path, path.name)
            refuse_labels(volume.data, path.name)
            assert below_background(volume) < 0.01
