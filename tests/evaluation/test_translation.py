"""Translation evaluation: floor below, ceiling above, people averaged and not images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.translation import channel_names, evaluate_translation
from pipeline_lib.files import read_json
from pipeline_lib.metrics.powder import powder_mean
from pipeline_lib.report.figures import figures_of

ERRORS = {"floor": 0.4, "prediction": 0.2, "draw": 0.3, "ceiling": 0.1}


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
    (remark,) = read_json(tmp_path / "out/remarks.json")
    assert "25.39 dB" in remark
    assert "other data" in remark


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


def test_a_regression_is_the_reference_and_there_need_be_no_ceiling(
    make_translated: Callable, make_model: Callable, tmp_path: Path
) -> None:
    inferred, packed = make_translated("test-dmri-0001", ["a", "b", "c"])
    (inferred / "ceiling.npy").rename(inferred / "regression.npy")
    evaluate_translation(recipe(), make_model(["z"]), [inferred], [packed], tmp_path / "out")
    rows = read_json(tmp_path / "out/metrics.json")
    assert {row["role"] for row in rows} == {"result", "floor", "reference"}
    assert not (tmp_path / "out/remarks.json").exists(), "published of latents alone"
    (difference,) = [
        r for r in rows if (r["name"], r["part"], r["group"], r["against"]) == ("MAE", "ODI", "all", "regression")
    ]
    assert difference["value"] == pytest.approx(0.05, abs=1e-5)


def test_detail_is_that_of_one_draw_in_decibels_over_the_truth(
    make_translated: Callable, make_model: Callable, tmp_path: Path
) -> None:
    """What is the truth's at half amplitude has a quarter of its power, 6.02 dB less, at every frequency."""
    inferred, packed = make_translated("test-dmri-0001", ["a", "b"])
    target = np.load(packed / "target.npy")
    np.save(inferred / "floor.npy", 0.5 * target)
    np.save(inferred / "draw.npy", target + 0.1)
    evaluate_translation(recipe(), make_model(["z"]), [inferred], [packed], tmp_path / "out")
    rows = read_json(tmp_path / "out/metrics.json")
    values = {
        r["role"]: r["value"]
        for r in rows
        if (r["name"], r["part"], r["group"], r["against"]) == ("spectral distance", "ICVF", "all", "")
    }
    assert values["floor"] == pytest.approx(20 * np.log10(2), abs=1e-4)
    assert values["result"] == pytest.approx(0, abs=1e-4), "a constant is no detail"
    spectrum = pd.read_csv(tmp_path / "out/spectrum.tsv", sep="\t")
    floor = spectrum[(spectrum["role"] == "floor") & (spectrum["channel"] == "ICVF")].dropna()
    assert floor["frequency"].is_monotonic_increasing
    np.testing.assert_allclose(floor["decibels"], -20 * np.log10(2), atol=1e-4)


def test_coverage_is_the_level_where_the_truth_is_as_the_draws(
    make_translated: Callable, make_model: Callable, tmp_path: Path
) -> None:
    inferred, packed = make_translated("test-dmri-0001", ["a", "b", "c"])
    target, draws = np.load(packed / "target.npy"), 4
    random = np.random.default_rng(0)
    centre = target - 0.1 * random.normal(size=target.shape)
    drawn = centre + 0.1 * random.normal(size=(draws, *target.shape))
    np.save(inferred / "prediction.npy", drawn.mean(0).astype(np.float32))
    np.save(inferred / "spread.npy", drawn.std(0, ddof=1).astype(np.float32))
    evaluate_translation(recipe(count=draws), make_model(["z"]), [inferred], [packed], tmp_path / "out")
    rows = [r for r in read_json(tmp_path / "out/metrics.json") if (r["part"], r["group"]) == ("ODI", "all")]
    values = {r["name"]: r for r in rows if not r["against"] and r["role"] == "result"}
    for level in (0.5, 0.8, 0.95):
        assert values[f"coverage of {level:.0%} intervals"]["value"] == pytest.approx(level, abs=0.03)
    assert values["spread over error"]["value"] == pytest.approx(1, abs=0.05)
    assert values["spread over error"]["people"] == 3
    assert (tmp_path / "out/calibration.tsv").is_file()


def test_spread_that_is_too_sure_is_scaled_by_what_validation_people_ask_for(
    make_translated: Callable, make_model: Callable, tmp_path: Path
) -> None:
    """Draws with a third of the spread that they should have."""
    chunks, draws, random = [], 8, np.random.default_rng(0)
    for name, people in (("validation-dmri-0001", ["v", "w"]), ("test-dmri-0001", ["a", "b", "c"])):
        inferred, packed = make_translated(name, people)
        target = np.load(packed / "target.npy")
        drawn = random.normal(size=(draws, *target.shape))
        centre = target - 0.1 * random.normal(size=target.shape) + 0.1 * drawn.mean(0)
        np.save(inferred / "prediction.npy", centre.astype(np.float32))
        np.save(inferred / "spread.npy", (0.1 / 3 * drawn.std(0, ddof=1)).astype(np.float32))
        chunks.append((inferred, packed))
    evaluate_translation(
        recipe(count=draws), make_model(["z"]), [c[0] for c in chunks], [c[1] for c in chunks], tmp_path / "out"
    )
    rows = [r for r in read_json(tmp_path / "out/metrics.json") if (r["part"], r["group"]) == ("ODI", "all")]
    values = {r["name"]: r for r in rows if not r["against"] and r["role"] == "result"}
    assert values["coverage of 95% intervals"]["value"] < 0.7
    for level in (0.5, 0.8, 0.95):
        scaled = values[f"coverage of {level:.0%} intervals, spread scaled"]
        assert scaled["value"] == pytest.approx(level, abs=0.04)
        assert scaled["people"] == 3
        assert "from 2 validation people" in scaled["note"]
    assert "times 3.0" in scaled["note"] or "times 2.9" in scaled["note"]


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


def test_regions_and_signal_are_judged_where_they_are_told_of(
    make_translated: Callable, make_model: Callable, tmp_path: Path
) -> None:
    inferred, packed = make_translated("test-dmri-0001", ["a", "b", "c"])
    index = pd.read_csv(inferred / "index.tsv", sep="\t", dtype=str, keep_default_na=False)
    index.assign(space="MNI152").to_csv(inferred / "index.tsv", sep="\t", index=False)
    labels = np.ones((32, 32, 3), np.int16)
    labels[16:] = 2
    nib.save(nib.Nifti1Image(labels, np.diag([2.0, 2.0, 2.0, 1.0])), tmp_path / "atlas.nii.gz")
    target = (np.load(packed / "target.npy") + 1) / 2
    signal = np.stack([powder_mean(maps, b) for maps in target for b in (1000, 2000)]).reshape(
        len(target), 2, *target.shape[2:]
    )
    np.save(
        packed / "data.npy", np.concatenate([np.ones_like(target[:, :1]), 2 * signal / 1.5 - 1], 1).astype(np.float32)
    )
    asked = recipe().model_dump(exclude_unset=True)
    asked["data"]["channels"] = 3
    asked["evaluation"] |= {"regions": str(tmp_path / "atlas.nii.gz"), "shells": [1000, 2000]}
    chosen = RecipeOptions.model_validate(asked)
    evaluate_translation(chosen, make_model(["z"]), [inferred], [packed], tmp_path / "out")
    table = pd.read_csv(tmp_path / "out/regions.tsv", sep="\t")
    assert list(zip(table["map"], table["label"], strict=True)) == [
        (m, n) for m in ("ICVF", "ODI", "ISOVF") for n in (1, 2)
    ]
    np.testing.assert_allclose(table["diffusion"], 1, atol=1e-5, err_msg="a constant error leaves correlation")
    rows = [
        r
        for r in read_json(tmp_path / "out/metrics.json")
        if r["name"] == "error of the signal" and r["group"] == "all"
    ]
    values = {(r["part"], r["method"]): r["value"] for r in rows if not r["against"]}
    assert values["b1000", "measured maps"] == pytest.approx(0, abs=1e-6)
    for b in ("b1000", "b2000"):
        assert values[b, "measured maps"] < values[b, "diffusion"] < values[b, "linear fit of the interpolated source"]
    assert {r["people"] for r in rows} == {3}
    asked["evaluation"]["source_voxel_size"] = 4.0
    chosen = RecipeOptions.model_validate(asked)
    checkered = np.indices(target.shape[2:]).sum(0) % 2 * 0.1 - 0.05  # gone in the mean of 2 x 2 pixels
    np.save(packed / "data.npy", np.load(packed / "data.npy") + checkered.astype(np.float32))
    evaluate_translation(chosen, make_model(["z"]), [inferred], [packed], tmp_path / "blocks")
    rows = read_json(tmp_path / "blocks/metrics.json")
    (found,) = [
        r["value"] for r in rows
        if (r["name"], r["part"], r["method"], r["group"], r["against"]) == ("error of the signal", "b1000", "measured maps", "all", "")
    ]  # fmt: skip
    assert found == pytest.approx(0, abs=1e-6)
    assert "regions" in dict(figures_of(tmp_path / "out"))


def test_shells_that_do_not_fit_the_channels_are_refused() -> None:
    asked = recipe().model_dump(exclude_unset=True)
    asked["data"]["channels"] = 4
    asked["evaluation"]["shells"] = [1000, 2000]
    with pytest.raises(ValueError, match="data.channels must be 3 .* or 5"):
        RecipeOptions.model_validate(asked)
