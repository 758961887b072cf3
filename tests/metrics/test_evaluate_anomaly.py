"""Anomaly evaluation: right numbers for known maps, honest words where there is nothing to score."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.metrics import average_precision_score, f1_score, precision_recall_curve

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.errors import UserError
from pipeline_lib.files import read_json
from pipeline_lib.inference.baselines import asymmetry_map, intensity_map
from pipeline_lib.metrics.detection import average_precision
from pipeline_lib.metrics.evaluate_anomaly import ASYMMETRY, DIFFUSION, evaluate_anomaly
from pipeline_lib.metrics.smoothing import smooth

NO_SMOOTHING = {"smoothing_mm": 0, "bootstrap": 50}


def recipe(evaluation: dict[str, Any] | None = None, **sampling: Any) -> RecipeOptions:
    return RecipeOptions.model_validate(
        {"task": "anomaly", "sampling": sampling, "evaluation": evaluation or NO_SMOOTHING}
    )


def evaluated(chunks: list, model: Path, out: Path, options: RecipeOptions | None = None) -> list[dict[str, Any]]:
    evaluate_anomaly(options or recipe(), model, [c.inference for c in chunks], [c.dataset for c in chunks], out)
    rows: list[dict[str, Any]] = read_json(out / "metrics.json")
    return rows


def row_of(rows: list[dict[str, Any]], name: str, method: str = DIFFUSION, group: str = "all") -> dict[str, Any]:
    (row,) = [r for r in rows if (r["name"], r["method"], r["group"]) == (name, method, group)]
    return row


def test_numbers_equal_scikit_learn_and_the_threshold_is_not_from_test(
    make_anomaly_chunk: Callable, make_model: Callable, tmp_path: Path
) -> None:
    validation = make_anomaly_chunk("validation-anat-0001", ["v", "w"], seed=1)
    test = make_anomaly_chunk("test-anat-0001", ["a", "b", "c"], seed=2)
    rows = evaluated([validation, test], make_model(["z"]), tmp_path / "out")

    def flat(chunk: Any) -> tuple[np.ndarray, np.ndarray]:
        inside = np.load(chunk.dataset / "mask.npy") > 0
        return np.load(chunk.inference / "maps.npy")[inside], np.load(chunk.dataset / "lesion.npy")[inside] > 0

    scores, truth = flat(test)
    assert row_of(rows, "pixel AP")["value"] == pytest.approx(average_precision_score(truth, scores))
    known, known_truth = flat(validation)
    precision, recall, levels = precision_recall_curve(known_truth, known)
    threshold = levels[np.argmax((precision * recall / np.maximum(precision + recall, 1e-12))[:-1])]
    dice = row_of(rows, "Dice")
    assert dice["value"] == pytest.approx(f1_score(truth, scores >= threshold))
    assert dice["low"] <= dice["value"] <= dice["high"]
    assert "chosen on validation people" in dice["note"]
    best = row_of(rows, "best achievable Dice")
    assert best["value"] >= dice["value"]
    assert "upper bound" in best["note"]
    assert row_of(rows, "chance level of pixel AP")["value"] == pytest.approx(truth.mean())
    assert row_of(rows, "pixel AP", ASYMMETRY)["value"] < 2 * truth.mean()
    assert row_of(rows, "pixel AP", group="B")["n_subjects"] == 1
    assert (row_of(rows, "pixel AP")["n_subjects"], row_of(rows, "pixel AP")["n_images"]) == (3, 6)


def test_all_methods_get_the_same_smoothing_in_millimetres(
    make_anomaly_chunk: Callable, make_model: Callable, tmp_path: Path
) -> None:
    test = make_anomaly_chunk("test-anat-0001", ["a", "b"])
    smoothed = recipe({"smoothing_mm": 3.0, "bootstrap": 20})
    rows = evaluated([test], make_model([]), tmp_path / "out", smoothed)
    inside = np.load(test.dataset / "mask.npy") > 0
    truth = np.load(test.dataset / "lesion.npy")[inside]
    for method, name in ((DIFFUSION, "maps"), (ASYMMETRY, "baseline_asymmetry")):
        maps = np.where(inside, np.load(test.inference / f"{name}.npy"), 0)
        expected = np.stack([gaussian_filter(image[0], 1.5)[None] for image in maps])[inside]
        value = row_of(rows, "pixel AP", method)["value"]
        assert value == pytest.approx(average_precision_score(truth, expected), abs=1e-4)


def test_without_any_lesion_it_says_so_and_reports_healthy_maps(
    make_anomaly_chunk: Callable, make_model: Callable, tmp_path: Path
) -> None:
    test = make_anomaly_chunk("test-anat-0001", ["a", "b"], lesions=False)
    rows = evaluated([test], make_model([]), tmp_path / "out")
    for name in ("pixel AP", "pixel AUROC", "Dice"):
        assert row_of(rows, name)["value"] is None
        assert "cannot be scored" in row_of(rows, name)["note"]
    healthy = row_of(rows, "mean score of healthy brain")
    inside = np.load(test.dataset / "mask.npy") > 0
    assert healthy["value"] == pytest.approx(np.load(test.inference / "maps.npy")[inside].mean(), abs=1e-4)
    assert (tmp_path / "out/examples.png").is_file()
    assert not (tmp_path / "out/precision_recall.png").exists()


def test_without_a_validation_lesion_no_threshold_is_invented(
    make_anomaly_chunk: Callable, make_model: Callable, tmp_path: Path
) -> None:
    validation = make_anomaly_chunk("validation-anat-0001", ["v"], lesions=False)
    test = make_anomaly_chunk("test-anat-0001", ["a", "b"])
    rows = evaluated([validation, test], make_model([]), tmp_path / "out")
    assert row_of(rows, "Dice")["value"] is None
    assert "no lesion among validation people" in row_of(rows, "Dice")["note"]
    assert row_of(rows, "pixel AP")["value"] > 0.5


def test_one_test_person_gives_no_interval(make_anomaly_chunk: Callable, make_model: Callable, tmp_path: Path) -> None:
    rows = evaluated([make_anomaly_chunk("test-anat-0001", ["a"])], make_model([]), tmp_path / "out")
    ap = row_of(rows, "pixel AP")
    assert ap["value"] is not None
    assert (ap["low"], ap["high"]) == (None, None)


def test_people_trained_on_are_refused_unless_allowed(
    make_anomaly_chunk: Callable, make_model: Callable, tmp_path: Path
) -> None:
    test = make_anomaly_chunk("test-anat-0001", ["a", "b"])
    model = make_model(["b"])
    with pytest.raises(UserError, match="b_FLAIR"):
        evaluated([test], model, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    rows = evaluated([test], model, tmp_path / "out", recipe(allow_trained_people=True))
    assert all("people the model was trained on" in row["note"] for row in rows)


def test_no_test_person_is_an_error_a_user_can_read(
    make_anomaly_chunk: Callable, make_model: Callable, tmp_path: Path
) -> None:
    chunk = make_anomaly_chunk("validation-anat-0001", ["a"])
    with pytest.raises(UserError, match="no test image"):
        evaluated([chunk], make_model([]), tmp_path / "out")


def test_untrained_baseline_on_real_strokes(shared_data: Path) -> None:
    folder = shared_data / "soop_flair_axial"
    index = pd.read_csv(folder / "index.csv")
    ids = index.loc[index["lesion_px_axial68"] > 0, "id"].iloc[::6]

    def read(path: Path) -> np.ndarray:
        return np.asarray(Image.open(path), dtype=np.float32)[None]

    images = np.stack([read(folder / "image" / f"{name}.png") for name in ids])
    truth = np.stack([read(folder / "mask" / f"{name}_mask.png") for name in ids]) > 0
    brain = images > 0
    z = intensity_map(images, brain, modality="FLAIR")
    found = {
        name: average_precision(smooth(maps, brain, 4.0)[brain], truth[brain])
        for name, maps in (("intensity", z), ("asymmetry", asymmetry_map(z, 1)), ("other axis", asymmetry_map(z, 0)))
    }
    assert found["asymmetry"] == pytest.approx(0.60, abs=0.05)
    assert found["asymmetry"] > found["intensity"] + 0.05
    assert found["other axis"] < found["intensity"], "mirroring front to back only does harm"
