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
from pipeline_lib.evaluation.translation import channel_names, evaluate_translation
from pipeline_lib.files import read_json

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
    levels = [r for r in rows if r["group"] == "all" and not r["against"]]
    values = {(r["name"], r["part"], r["role"]): r for r in levels}
    for role, error in (("floor", 0.4), ("result", 0.2), ("ceiling", 0.1)):
        for channel in ("ICVF", "ODI", "ISOVF"):
            mae, psnr = values["MAE", channel, role], values["PSNR", channel, role]
            assert mae["value"] == pytest.approx(error / 2, abs=1e-5)
            assert psnr["value"] == pytest.approx(20 * np.log10(2 / error), abs=1e-3)
            assert (mae["people"], mae["images"]) == (3, 6)
            assert mae["low"] <= mae["value"] + 1e-6
    ssim = [values["SSIM", "ICVF", role]["value"] for role in ("floor", "result", "ceiling")]
    assert ssim == sorted(ssim)
    assert len(pd.read_csv(tmp_path / "out/per_subject.tsv", sep="\t")) == 3 * 3 * 3
    with np.load(tmp_path / "out/examples.npz") as views:
        assert views["prediction"].shape == views["target"].shape == (2 * 3, 32, 32)


def test_a_person_with_sessions_of_two_groups_is_one_person(
    make_translated: Callable, make_model: Callable, tmp_path: Path
) -> None:
    inferred, packed = make_translated("test-dmri-0001", ["a", "b", "c"])
    index = pd.read_csv(inferred / "index.tsv", sep="\t", dtype=str, keep_default_na=False)
    index["group"] = "CN"
    index.loc[index.index[index["participant"] == "a"][1:], "group"] = "AD"
    index.to_csv(inferred / "index.tsv", sep="\t", index=False)
    target, error = np.load(packed / "target.npy"), np.full((len(index), 1, 1, 1), 0.2, np.float32)
    error[index.index[index["group"] == "AD"]] = 0.6
    np.save(inferred / "prediction.npy", (target + error).astype(np.float32))
    evaluate_translation(recipe(), make_model(["z"]), [inferred], [packed], tmp_path / "out")
    rows = read_json(tmp_path / "out/metrics.json")
    mae = {
        r["group"]: r for r in rows if (r["name"], r["part"], r["role"], r["against"]) == ("MAE", "ODI", "result", "")
    }
    assert {group: (r["people"], r["images"]) for group, r in mae.items()} == {
        "all": (3, 6),
        "CN": (3, 5),
        "AD": (1, 1),
    }
    assert mae["all"]["value"] == pytest.approx((0.2 + 0.1 + 0.1) / 3, abs=1e-5), "a is the mean of .1 and .3"
    assert (mae["CN"]["value"], mae["AD"]["value"]) == (pytest.approx(0.1, abs=1e-5), pytest.approx(0.3, abs=1e-5))


def test_differences_are_paired_over_people(make_translated: Callable, make_model: Callable, tmp_path: Path) -> None:
    """Every person is .2 better than the floor, however much people differ: the interval has no width."""
    inferred, packed = make_translated("test-dmri-0001", ["a", "b", "c", "d"])
    target = np.load(packed / "target.npy")
    own = np.repeat([0.0, 0.2, 0.4, 0.6], 2).reshape(-1, 1, 1, 1)
    np.save(inferred / "floor.npy", (target + own + 0.4).astype(np.float32))
    np.save(inferred / "prediction.npy", (target + own + 0.2).astype(np.float32))
    evaluate_translation(recipe(), make_model(["z"]), [inferred], [packed], tmp_path / "out")
    rows = read_json(tmp_path / "out/metrics.json")
    (difference,) = [
        r for r in rows
        if (r["name"], r["part"], r["group"]) == ("MAE", "ODI", "all") and r["against"].startswith("linear fit")
    ]  # fmt: skip
    assert (difference["value"], difference["low"], difference["high"]) == pytest.approx((-0.1, -0.1, -0.1), abs=1e-5)
    assert (difference["people"], difference["direction"]) == (4, "lower")


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
