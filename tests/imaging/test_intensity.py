"""Bias field and intensity normalisation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline_lib.imaging.bias import correct_bias
from pipeline_lib.imaging.brain import extract_brain
from pipeline_lib.imaging.canonical import open_scan
from pipeline_lib.imaging.intensity import fit_normalisation, normalise, white_stripe
from pipeline_lib.imaging.nifti import Volume, read_volume
from pipeline_lib.imaging.registration import template


def test_bias_field_is_removed() -> None:
    reference, mask = template()
    x = np.linspace(-1, 1, reference.data.shape[0])[:, None, None]
    biased = Volume((reference.data * np.exp(0.4 * x)).astype(np.float32), reference.affine)
    flat = correct_bias(biased, mask).data[mask] / np.maximum(reference.data[mask], 1e-3)
    before = biased.data[mask] / np.maximum(reference.data[mask], 1e-3)
    assert np.std(flat) / np.mean(flat) < 0.6 * np.std(before) / np.mean(before)


def test_dark_voxels_that_leaked_into_the_mask_do_not_bend_the_field(shared_data: Path) -> None:
    """The mask of this head reaches into air; its field once grew sevenfold in the cerebellum."""
    head = read_volume(shared_data / "ixi_t1_2mm_rawhead" / "t1" / "IXI572-HH-2605_T1.nii.gz")
    mask = extract_brain(head, "learned").mask
    ratio = correct_bias(head, mask).data[mask] / np.maximum(head.data[mask], 1)
    seen = head.data[mask] > 0.2 * np.median(head.data[mask])
    assert ratio[seen].max() < 1.6 * np.median(ratio[seen])


def test_intensity_methods_do_what_they_say() -> None:
    random = np.random.default_rng(0)
    data, mask = random.normal(50, 10, (20, 20, 20)).astype(np.float32), np.zeros((20, 20, 20), bool)
    mask[5:15, 5:15, 5:15] = True
    scaled = normalise(data, mask, "percentile")
    assert (scaled[mask].min(), scaled[mask].max()) == (0, 1)
    z = normalise(data, mask, "zscore")
    assert z[mask].mean() == pytest.approx(0, abs=1e-3)
    assert z[mask].std() == pytest.approx(1, abs=1e-3)
    for changed in (scaled, z, normalise(data, mask, "none")):
        assert not changed[~mask].any()


@pytest.mark.parametrize("modality", ["T1w", "FLAIR"])
def test_white_stripe_finds_white_matter(modality: str) -> None:
    random = np.random.default_rng(0)
    white = {"T1w": 800.0, "FLAIR": 500.0}[modality]
    grey = {"T1w": 550.0, "FLAIR": 680.0}[modality]
    tissues = [random.normal(mean, 40, n) for mean, n in ((200.0, 15_000), (grey, 35_000), (white, 50_000))]
    brain = np.concatenate([*tissues, random.uniform(900, 1500, 500)]).astype(np.float32)
    data, mask = brain.reshape(1, 1, -1), np.ones((1, 1, len(brain)), bool)
    scaled = normalise(data, mask, "whitestripe", modality).ravel()
    at = np.interp(white, np.sort(brain), np.sort(scaled))
    assert abs(at) < 0.6
    stripe = white_stripe(brain, modality)
    assert len(stripe) == pytest.approx(0.1 * len(brain), rel=0.05)
    assert stripe.mean() == pytest.approx(white, abs=12)


METHODS = ("percentile", "zscore", "median_mad", "whitestripe", "none")


def test_constants_are_those_of_the_definitions() -> None:
    brain = np.random.default_rng(0).normal(50, 10, 100_000).astype(np.float32)
    robust = fit_normalisation(np.append(brain, np.full(10_000, 500, np.float32)), "median_mad")
    plain = fit_normalisation(brain, "median_mad")
    assert (plain.centre, plain.scale) == (pytest.approx(50, abs=0.1), pytest.approx(10, abs=0.1))
    assert robust.scale == pytest.approx(plain.scale, rel=0.15), "a tenth of the brain, ten times as bright"
    assert fit_normalisation(brain, "zscore").scale == pytest.approx(10, abs=0.1)
    assert fit_normalisation(np.linspace(0, 1, 100, dtype=np.float32), "none").high == 1
    assert fit_normalisation(np.full(10, 7, np.float32), "median_mad").scale == 1


@pytest.mark.parametrize("method", METHODS)
def test_every_setting_shows_a_network_the_brains_of_three_real_heads(shared_data: Path, method: str) -> None:
    levels = []
    for name in (
        "ixi_t1_2mm_rawhead/t1/IXI049-HH-1358_T1.nii.gz",
        "ds002748_mdd_vs_control_stripped_2mm/sub-13_T1w_2mm.nii.gz",
        "ds000011_t1_rawhead_defaced/sub-12_T1w.nii.gz",
    ):
        head = open_scan(shared_data / name, name)
        mask = extract_brain(head, "learned").mask
        even = correct_bias(head, mask).data
        used = fit_normalisation(even[mask], method, "T1w")
        inside = used.apply(even, mask)[mask]
        assert used.clipped(inside) < 0.01, (
            f"{name}: {used.clipped(inside):.1%} of the brain beyond {used.low} to {used.high}"
        )
        seen = np.clip((inside - used.low) / (used.high - used.low), 0, 1)
        levels.append(float(np.percentile(seen, 95) - np.percentile(seen, 5)))
    assert min(levels) > 0.2, "the brain takes up the range"
