"""Maps of several contrasts by one model: each scan by the sign and in the units of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.errors import UserError
from pipeline_lib.inference.anomaly import infer_anomaly
from pipeline_lib.inference.baselines import intensity_map
from pipeline_lib.inference.chunks import read_index
from pipeline_lib.inference.denoise import load_denoiser
from pipeline_lib.inference.mapping import mapped
from pipeline_lib.inference.score import lesions_are_dark
from pipeline_lib.inference.standards import FLOORS, intensity_scores, measure_standards, read_standards
from pipeline_lib.metrics.smoothing import smooth

WEIGHTS = {"residual": 1, "intensity": 2}


@pytest.fixture
def both(make_recipe: Callable) -> RecipeOptions:
    values: dict[str, Any] = make_recipe("anomaly").model_dump(exclude_unset=True)
    values["data"] = {**values["data"], "modality": ["T1w", "FLAIR"]}
    score = {"levels": [1], "residual": "signed", "weights": WEIGHTS}
    return RecipeOptions.model_validate(
        {**values, "evaluation": {"smoothing": "box", "smoothing_mm": 6, "score": score}}
    )


def told_apart(chunk: Path, contrasts: list[str]) -> Path:
    """The chunk with the contrast of each person's scan."""
    index = pd.read_csv(chunk / "index.tsv", sep="\t")
    index["modality"] = np.repeat(contrasts, 2)
    index.to_csv(chunk / "index.tsv", sep="\t", index=False)
    return chunk


def test_lesions_are_dark_on_t1w_and_bright_on_flair(both: RecipeOptions, make_chunk: Callable) -> None:
    chunk = told_apart(make_chunk("test-anat-0001", ["a", "b"]), ["T1w", "FLAIR"])
    index = read_index(chunk)
    assert lesions_are_dark(both, index).tolist() == [True, True, False, False]
    images, mask = np.load(chunk / "data.npy"), np.load(chunk / "mask.npy") > 0
    bright = smooth(intensity_map(images, mask), mask, 3, "box")
    found = intensity_scores(both, chunk, index)
    np.testing.assert_allclose(found[:2], -bright[:2], atol=1e-5)
    np.testing.assert_allclose(found[2:], bright[2:], atol=1e-5)


def test_parts_stand_in_the_units_of_their_own_contrast(
    both: RecipeOptions, make_chunk: Callable, make_denoiser: Callable, tmp_path: Path
) -> None:
    diffusion = make_denoiser(both, ["z"], channels=1)
    train = told_apart(make_chunk("train-anat-0001", list("wxyz"), seed=1), ["T1w", "FLAIR"] * 2)
    test = told_apart(make_chunk("test-anat-0001", ["a", "b"], seed=2), ["FLAIR", "T1w"])
    measure_standards(both, diffusion, [train], tmp_path / "standards")
    infer_anomaly(both, diffusion, tmp_path / "standards", test, tmp_path / "out")

    denoiser = load_denoiser(both, diffusion)
    healthy, found = (mapped(both, denoiser, chunk, read_index(chunk)) for chunk in (train, test))
    maps = np.load(tmp_path / "out" / "maps.npy")
    for contrast in ("T1w", "FLAIR"):
        free, own = ((read_index(chunk)["modality"] == contrast).to_numpy() for chunk in (train, test))
        inside = healthy.mask[free]
        wanted = sum(
            weight * (found.parts[name][own] - part[free][inside].mean()) / part[free][inside].std()
            for name, weight in WEIGHTS.items()
            for part in [healthy.parts[name]]
        )
        brain = found.mask[own]
        np.testing.assert_allclose(maps[own][brain], np.asarray(wanted)[brain], rtol=1e-3, atol=1e-3)
    assert set(read_standards(tmp_path / "standards", FLOORS)) == {
        f"{part} {contrast}" for part in ("level", "excess") for contrast in ("T1w", "FLAIR")
    }


def test_a_contrast_without_a_healthy_scan_is_named(
    both: RecipeOptions, make_chunk: Callable, make_denoiser: Callable, tmp_path: Path
) -> None:
    diffusion = make_denoiser(both, ["z"], channels=1)
    train = told_apart(make_chunk("train-anat-0001", ["x", "y"]), ["T1w", "T1w"])
    with pytest.raises(UserError, match="no training image of FLAIR without a lesion"):
        measure_standards(both, diffusion, [train], tmp_path / "standards")
