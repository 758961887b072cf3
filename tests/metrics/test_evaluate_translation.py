"""Translation evaluation: floor below, ceiling above, people averaged and not images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.errors import UserError
from pipeline_lib.files import read_json
from pipeline_lib.metrics.evaluate_translation import channel_names, evaluate_translation

ERRORS = {"floor": 0.4, "prediction": 0.2, "ceiling": 0.1}


def recipe(**sampling: Any) -> RecipeOptions:
    return RecipeOptions.model_validate(
        {
            "task": "translation",
            "data": {"modality": "dwi", "target": "noddi", "size": [64, 64]},
            "autoencoder": {"kind": "vqgan", "channels": [8, 8]},
            "sampling": sampling,
            "evaluation": {"bootstrap": 50},
        }
    )


@pytest.fixture
def make_translated(make_images: Callable, tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """A chunk whose results are off by a constant: MAE and PSNR are known."""

    def make(name: str, people: list[str]) -> tuple[Path, Path]:
        packed = make_images(name, people, seed=5)
        inferred = tmp_path / "inference" / name
        inferred.mkdir(parents=True)
        target = np.load(packed / "data.npy").repeat(3, axis=1)
        np.save(packed / "target.npy", target)
        for method, error in ERRORS.items():
            np.save(inferred / f"{method}.npy", target + error)
        (inferred / "index.tsv").write_text((packed / "index.tsv").read_text())
        return inferred, packed

    return make


def test_known_errors_are_found_between_floor_and_ceiling(
    make_translated: Callable, make_model: Callable, tmp_path: Path
) -> None:
    inferred, packed = make_translated("test-dmri-0001", ["a", "b", "c"])
    evaluate_translation(recipe(), make_model(["z"]), [inferred], [packed], tmp_path / "out")
    rows = read_json(tmp_path / "out/metrics.json")
    values = {(r["name"], r["method"].split(":")[0]): r for r in rows if r["group"] == "all"}
    for method, error in (("floor", 0.4), ("diffusion", 0.2), ("ceiling", 0.1)):
        for channel in ("ICVF", "ODI", "ISOVF"):
            mae, psnr = values[f"MAE, {channel}", method], values[f"PSNR, {channel}", method]
            assert mae["value"] == pytest.approx(error / 2, abs=1e-5)
            assert psnr["value"] == pytest.approx(20 * np.log10(2 / error), abs=1e-3)
            assert (mae["n_subjects"], mae["n_images"]) == (3, 6)
            assert mae["low"] <= mae["value"] + 1e-6
    ssim = [values["SSIM, ICVF", method]["value"] for method in ("floor", "diffusion", "ceiling")]
    assert ssim == sorted(ssim)
    assert len(pd.read_csv(tmp_path / "out/per_subject.tsv", sep="\t")) == 3 * 3 * 3
    assert (tmp_path / "out/examples.png").is_file()


def test_only_test_people_are_judged(make_translated: Callable, make_model: Callable, tmp_path: Path) -> None:
    chunks = [make_translated("validation-dmri-0001", ["v"]), make_translated("test-dmri-0001", ["a", "b"])]
    evaluate_translation(recipe(), make_model([]), [c[0] for c in chunks], [c[1] for c in chunks], tmp_path / "out")
    assert set(pd.read_csv(tmp_path / "out/per_subject.tsv", sep="\t")["participant"]) == {"a", "b"}


def test_people_trained_on_and_absent_people_are_refused(
    make_translated: Callable, make_model: Callable, tmp_path: Path
) -> None:
    inferred, packed = make_translated("test-dmri-0001", ["a", "b"])
    with pytest.raises(UserError, match="a_FLAIR"):
        evaluate_translation(recipe(), make_model(["a"]), [inferred], [packed], tmp_path / "out")
    with pytest.raises(UserError, match="no test pair"):
        evaluate_translation(recipe(), make_model(["a"]), [], [], tmp_path / "out")


def test_channels_are_named_where_known() -> None:
    assert channel_names(recipe()) == ("ICVF", "ODI", "ISOVF")
    other = recipe().model_copy(update={"data": recipe().data.model_copy(update={"target": "T2w"})})
    assert channel_names(other)[0] == "channel 1"
