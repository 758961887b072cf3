"""The figures of a scan, the verdict on them, and its picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline_lib.cohort.sheet import Scan
from pipeline_lib.config.schema import QualityOptions
from pipeline_lib.imaging.intensity import normalise
from pipeline_lib.imaging.nifti import Volume, read_volume
from pipeline_lib.imaging.quality import draw_anatomy, measure_native, verdict
from pipeline_lib.imaging.registration import template


def test_many_pieces_or_an_odd_median_are_a_reason_to_exclude() -> None:
    limits = QualityOptions()
    figures = {"brain_volume_ml": 1500.0, "template_overlap": 0.95, "mask_components": 1.0, "brain_median": 0.5,
               "registration_cost": -0.7}  # fmt: skip
    assert verdict(figures, limits, extracted=True) == ""
    pieces = figures | {"mask_components": 25.0}
    assert "25 pieces, more than 20 (quality.max_mask_components)" in verdict(pieces, limits, extracted=True)
    assert verdict(pieces, limits) == "", "a given mask may have specks"
    unlike = figures | {"registration_cost": -0.41}
    assert "-0.41 is above -0.57 (quality.max_registration_cost)" in verdict(unlike, limits, extracted=True)
    for figure, value, said in (
        ("outside_field", 0.07, "7.0% of the template's brain lies beyond what was scanned, more than 3.0%"),
        ("empty_inside", 0.05, "5.0% of the template's inner brain is empty in the scan"),
        ("empty_slices", 4.0, "4 slices through the brain are empty, more than 0 (quality.max_empty_slices)"),
    ):
        assert said in verdict(figures | {figure: value}, limits, extracted=True)
    dark = figures | {"brain_median": 0.02}
    assert "0.02 is outside 0.1 to 0.95 (quality.brain_median)" in verdict(dark, limits, extracted=True)


def test_picture_shows_no_face(people: tuple[Path, list[Scan]], tmp_path: Path) -> None:
    folder, scans = people
    head = read_volume(folder / scans[0].path)
    truth = read_volume(
        folder / "truth" / f"sub-{scans[0].participant}" / f"sub-{scans[0].participant}_ses-1_brain.nii.gz"
    )
    bright = Volume(np.full_like(head.data, 1000.0), head.affine)
    brain = truth.data > 0
    draw_anatomy(tmp_path / "qc.png", bright, brain, None, bright, brain, brain)
    pixels = np.asarray(Image.open(tmp_path / "qc.png").convert("L"))[20 : 20 + 128]  # the first row of slices
    assert (pixels > 200).mean() < 0.6
    assert (pixels == 0).mean() > 0.25, "what is far from the brain is black though the scan is bright everywhere"


@pytest.mark.parametrize("unit", [1e-6, 1e-3, 1.0, 1e3])
def test_figures_do_not_depend_on_the_unit_of_intensity(unit: float) -> None:
    reference, mask = template()
    noise = np.random.default_rng(0).normal(0, 0.02, reference.data.shape)
    scan = (np.abs(reference.data + noise)).astype(np.float32)
    figures, wanted = (measure_native(Volume(scan * np.float32(k), reference.affine), mask, 1) for k in (unit, 1))
    assert figures == pytest.approx(wanted, rel=1e-3)
    assert figures["fber"] > 1
    np.testing.assert_allclose(
        normalise(scan * np.float32(unit), mask, "percentile"), normalise(scan, mask, "percentile"), atol=1e-4
    )


def test_background_of_nothing_has_no_fber() -> None:
    reference, mask = template()
    assert measure_native(Volume(np.where(mask, reference.data, 0), reference.affine), mask, 1)["fber"] == -1


def test_quality_falls_with_noise() -> None:
    reference, mask = template()
    random = np.random.default_rng(0)
    noisy = Volume(
        (reference.data + 0.1 * random.standard_normal(reference.data.shape)).astype(np.float32), reference.affine
    )
    clean, poor = measure_native(reference, mask, 1), measure_native(noisy, mask, 1)
    assert poor["snr"] < clean["snr"]
    assert poor["cnr"] < clean["cnr"]
    assert clean["brain_volume_ml"] == pytest.approx(mask.sum() * 0.008)
