"""What a scan shows: a head and its tissues, or values of two signs.

Tissues are compared by ranks, the probability that a voxel of one is brighter than a voxel of the other, so that
nothing depends on the unit of intensity. Where they lie is taken from the template's tissue maps (Fonov et al. 2011).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
from nilearn.datasets import load_mni152_gm_template, load_mni152_wm_template
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import mannwhitneyu

from pipeline_lib.imaging.contrasts import CONTRASTS, MOST_BELOW
from pipeline_lib.imaging.nifti import Volume
from pipeline_lib.imaging.registration import TEMPLATE_MM, template

Mask = NDArray[np.bool_]

FAINT = 0.05
"""Share of the largest difference from the background up to which a voxel counts as background."""
DEEP_VOXELS, DARK = 8, 0.45
"""Erosion of the template's brain and brightness within which what is neither grey nor white is fluid."""
FEWEST = 50
"""Voxels of a tissue inside the brain that a comparison needs."""
COMPARED = 5000
"""Voxels of a tissue that are compared at most."""
TWO_SIGNS = "values of two signs"
LEAST_OF_TWO_SIGNS = 0.58
"""Least ``grey_over_fluid`` of a T1w scan with values of two signs: one that was standardised, not a map."""


def below_background(volume: Volume) -> float:
    """Share of what differs from the background that is negative and lies below it: of a magnitude, hardly anything."""
    faces = [volume.data.take(end, axis).ravel() for axis in range(3) for end in (0, -1)]
    difference = volume.data - np.median(np.concatenate(faces))
    seen = np.abs(difference) > FAINT * np.percentile(np.abs(difference), 99.5)
    return float(((difference < 0) & (volume.data < 0))[seen].mean()) if seen.any() else 0.0


@functools.lru_cache(maxsize=1)
def tissues() -> dict[str, Mask]:
    """Where the template has grey matter, white matter and, deep inside, fluid."""
    reference, brain = template()
    grey, white = (
        np.asarray(load(TEMPLATE_MM).dataobj, dtype=np.float32)
        for load in (load_mni152_gm_template, load_mni152_wm_template)
    )
    deep = ndimage.binary_erosion(brain, iterations=DEEP_VOXELS)
    return {"grey": grey > 0.8, "white": white > 0.9, "fluid": deep & (grey + white < 0.3) & (reference.data < DARK)}


def tissue_contrast(image: NDArray[np.float32], inside: Mask) -> dict[str, float]:
    """``white_over_grey`` and so on: how probably a voxel of the one tissue is the brighter one, .5 if alike.

    Args:
        image: a scan on the template's grid, its bias field removed.
        inside: its brain there. A tissue that has hardly a voxel in it is not compared.
    """
    random = np.random.default_rng(0)
    values = {}
    for name, where in tissues().items():
        found = image[where & inside]
        values[name] = random.choice(found, min(len(found), COMPARED), replace=False)
    return {
        f"{one}_over_{other}": float(mannwhitneyu(values[one], values[other]).statistic)
        / (len(values[one]) * len(values[other]))
        for one, other in (("white", "grey"), ("grey", "fluid"), ("white", "fluid"))
        if min(len(values[one]), len(values[other])) >= FEWEST
    }


def content_fault(figures: Mapping[str, float], modality: str) -> str:
    """Empty, or why a scan with these figures is none of its modality."""
    below = figures.get("below_background", 0.0)
    odd = _odd_contrast(figures, modality)
    if below > MOST_BELOW and (odd or figures.get("grey_over_fluid", 1.0) < LEAST_OF_TWO_SIGNS):
        return (
            f"{TWO_SIGNS}: {below:.0%} lie below the background (limit {MOST_BELOW:.0%}), as in a statistical map "
            "or a difference; give the scan itself"
        )
    return odd


def _odd_contrast(figures: Mapping[str, float], modality: str) -> str:
    for pair, (low, high) in CONTRASTS.get(modality, {}).items():
        if pair in figures and not low <= figures[pair] <= high:
            one, _, other = pair.partition("_over_")
            like = [name for name in CONTRASTS if name != modality and _fits(figures, name)]
            hint = f"it is like a {' or a '.join(like)} scan's" if like else "it is like no scan's of a head"
            return (
                f"its contrast is not that of a {modality} scan: {NAMES[one]} is brighter than {NAMES[other]} with "
                f"probability {figures[pair]:.2f}, where {low:g} to {high:g} is meant (quality.contrast); {hint}; "
                "correct the modality, or leave it out"
            )
    return ""


NAMES = {"white": "white matter", "grey": "grey matter", "fluid": "fluid"}


def _fits(figures: Mapping[str, float], modality: str) -> bool:
    return all(low <= figures.get(pair, -1) <= high for pair, (low, high) in CONTRASTS[modality].items())
