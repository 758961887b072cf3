"""Anomaly evaluation: right numbers for known maps, honest words where there is nothing to score."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter, uniform_filter
from sklearn.metrics import average_precision_score, f1_score, precision_recall_curve

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.anomaly import ASYMMETRY, DIFFUSION, INTENSITY, evaluate_anomaly
from pipeline_lib.evaluation.detection import CHANCE
from pipeline_lib.files import read_json, write_json
from pipeline_lib.inference.baselines import Standard, excess_map, intensity_map
from pipeline_lib.inference.standards import FLOORS, measure_standards
from pipeline_lib.metrics.detection import average_precision

NO_SMOOTHING = {"smoothing_mm": 0, "bootstrap": 50}


def recipe(
    evaluation: dict[str, Any] | None = None, train_groups: list[str] | None = None, **sampling: Any
) -> RecipeOptions:
    return RecipeOptions.model_validate(
        {
            "task": "anomaly",
            "data": {"modality": "FLAIR", "train_groups": train_groups or []},
            "sampling": sampling,
            "evaluation": evaluation or NO_SMOOTHING,
        }
    )


def evaluated(
    chunks: list, model: Path, out: Path, options: RecipeOptions | None = None, train: list[Path] | None = None
) -> list[dict[str, Any]]:
    folders = [c.inference for c in chunks], [c.dataset for c in chunks]
    standards = out.with_name(f"{out.name}-standards")
    if not standards.exists():
        measure_standards(options or recipe(), model, train or [], standards)
    evaluate_anomaly(options or recipe(), model, *folders, standards, out)
    rows: list[dict[str, Any]] = read_json(out / "metrics.json")
    return rows


def row_of(
    rows: list[dict[str, Any]],
    name: str,
    method: str = DIFFUSION,
    group: str = "all",
    part: str = "",
    against: str = "",
) -> dict[str, Any]:
    wanted = (name, method, group, part, against)
    (row,) = [r for r in rows if tuple(r[key] for key in ("name", "method", "group", "part", "against")) == wanted]
    return row


def test_numbers_equal_scikit_learn_and_the_threshold_is_not_from_test(
    make_anomaly_chunk: Callable, make_model: Callable, tmp_path: Path
) -> None:
    validation = make_anomaly_chunk("validation-anat-0001", ["v", "w"], seed=1)
    test = make_anomaly_chunk("test-anat-0001", ["a", "b", "c"], seed=2)
    train = make_anomaly_chunk("train-anat-0001", ["x", "y"], lesions=False, seed=3)
    rows = evaluated([validation, test], make_model(["z"]), tmp_path / "out", train=[train.dataset])

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
    assert row_of(rows, "pixel AP", CHANCE)["value"] == pytest.approx(truth.mean())
    assert {row["method"]: row["role"] for row in rows} == {
        DIFFUSION: "result", INTENSITY: "floor", ASYMMETRY: "floor", CHANCE: "floor",
    }  # fmt: skip
    assert row_of(rows, "pixel AP", ASYMMETRY)["value"] < 2 * truth.mean()
    assert row_of(rows, "pixel AP", group="B")["people"] == 1
    assert (row_of(rows, "pixel AP")["people"], row_of(rows, "pixel AP")["images"]) == (3, 6)


def test_a_person_of_two_groups_counts_in_each_with_the_images_of_it(
    make_anomaly_chunk: Callable, make_model: Callable, tmp_path: Path
) -> None:
    """Sessions may be of two groups: one person of all, and of each group the images that are of it."""
    test = make_anomaly_chunk("test-anat-0001", ["a", "b", "c"], seed=2)
    for folder in (test.dataset, test.inference):
        index = pd.read_csv(folder / "index.tsv", sep="\t", dtype=str, keep_default_na=False)
        first = index.index[index["participant"] == "a"][0]
        index["group"] = ["B" if row == first else "A" for row in index.index]
        index.to_csv(folder / "index.tsv", sep="\t", index=False)
    rows = evaluated([test], make_model([]), tmp_path / "out")
    counts = {group: row_of(rows, "pixel AP", group=group) for group in ("all", "A", "B")}
    assert {group: (row["people"], row["images"]) for group, row in counts.items()} == {
        "all": (3, 6), "A": (3, 5), "B": (1, 1),
    }  # fmt: skip
    inside = np.load(test.dataset / "mask.npy")[first] > 0
    scores, truth = (
        np.load(path)[first][inside] for path in (test.inference / "maps.npy", test.dataset / "lesion.npy")
    )
    assert counts["B"]["value"] == pytest.approx(average_precision_score(truth > 0, scores))


@pytest.mark.parametrize("kernel", ["gaussian", "box"])
def test_floors_are_smoothed_as_maps_are(
    kernel: str, make_anomaly_chunk: Callable, make_model: Callable, tmp_path: Path
) -> None:
    """Maps come smoothed; a box of 6 mm on voxels of 2 mm is 3 of them, of 3 mm a sigma of 1.5."""
    test = make_anomaly_chunk("test-anat-0001", ["a", "b"])
    width = 3.0 if kernel == "gaussian" else 6.0
    rows = evaluated(
        [test], make_model([]), tmp_path / "out", recipe({"smoothing_mm": width, "smoothing": kernel, "bootstrap": 20})
    )
    inside = np.load(test.dataset / "mask.npy") > 0
    truth = np.load(test.dataset / "lesion.npy")[inside]
    maps = np.load(test.inference / "maps.npy")[inside]
    assert row_of(rows, "pixel AP", DIFFUSION)["value"] == pytest.approx(average_precision_score(truth, maps), abs=1e-4)
    expected = []
    for image, brain in zip(intensity_map(np.load(test.dataset / "data.npy"), inside)[:, 0], inside[:, 0], strict=True):
        if kernel == "gaussian":
            expected.append(gaussian_filter(image, 1.5)[brain])
            continue
        padded, within = np.pad(image, 1), np.pad(brain, 1)
        near = [np.s_[place[0] : place[0] + 3, place[1] : place[1] + 3] for place in np.argwhere(brain)]
        expected.append(np.array([padded[box][within[box]].mean() for box in near]))
    value = row_of(rows, "pixel AP", INTENSITY)["value"]
    assert value == pytest.approx(average_precision_score(truth, np.concatenate(expected)), abs=1e-3)


def test_differences_to_every_floor_are_paired_over_people(
    make_anomaly_chunk: Callable, make_model: Callable, tmp_path: Path
) -> None:
    validation = make_anomaly_chunk("validation-anat-0001", ["v", "w"], seed=1)
    test = make_anomaly_chunk("test-anat-0001", [f"p{n}" for n in range(10)], seed=2)
    train = make_anomaly_chunk("train-anat-0001", ["x", "y"], lesions=False, seed=3)
    rows = evaluated([validation, test], make_model(["z"]), tmp_path / "out", train=[train.dataset])
    people = pd.read_csv(tmp_path / "out/per_subject.tsv", sep="\t").query("split == 'test'")
    of = {method: table.set_index("participant")["pixel_ap"] for method, table in people.groupby("method")}
    for floor in (INTENSITY, ASYMMETRY):
        difference = row_of(rows, "pixel AP per person", against=floor)
        each = of[DIFFUSION] - of[floor]
        assert difference["value"] == pytest.approx(each.mean())
        rng = np.random.default_rng(7)
        means = [each.iloc[rng.integers(0, 10, 10)].mean() for _ in range(4000)]
        assert (difference["low"], difference["high"]) == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.03)
        pooled = row_of(rows, "pixel AP", against=floor)
        level, other = row_of(rows, "pixel AP"), row_of(rows, "pixel AP", floor)
        assert pooled["value"] == pytest.approx(level["value"] - other["value"], abs=5e-3)
        assert (pooled["people"], pooled["direction"]) == (10, "higher")


def test_lesions_are_counted_one_by_one_and_healthy_people_show_false_positives(
    make_anomaly_chunk: Callable, make_model: Callable, tmp_path: Path
) -> None:
    """Maps that equal the lesion, but for one missed lesion and 3 x 3 pixels of 4 mm2 on each healthy image."""
    validation = make_anomaly_chunk("validation-anat-0001", ["v"], seed=1)
    test = make_anomaly_chunk("test-anat-0001", ["a", "b", "c"], seed=2)
    healthy = make_anomaly_chunk("test-anat-0002", ["h"], lesions=False)
    for chunk in (validation, test):
        np.save(chunk.inference / "maps.npy", np.load(chunk.dataset / "lesion.npy").astype(np.float32))
    maps = np.load(test.inference / "maps.npy")
    maps[0] = 0
    np.save(test.inference / "maps.npy", maps)
    false = np.zeros((2, 1, 32, 32), np.float32)
    false[:, :, 8:11, 8:11] = 1
    np.save(healthy.inference / "maps.npy", false)
    rows = evaluated([validation, test, healthy], make_model([]), tmp_path / "out")
    assert row_of(rows, "lesion sensitivity")["value"] == pytest.approx(5 / 6)
    assert row_of(rows, "false detections per person")["value"] == pytest.approx(2 / 4)
    size = row_of(rows, "false-positive size on healthy people")
    assert (size["value"], size["unit"], size["people"]) == (pytest.approx(9 * 4.0), "mm²", 1)
    dice = row_of(rows, "Dice per person")
    assert dice["value"] == pytest.approx((2 * 36 / (36 + 72) + 1 + 1) / 3)
    assert (dice["people"], dice["images"]) == (3, 6), "the healthy person's images are not its own"


def test_small_and_large_half_are_apart(make_anomaly_chunk: Callable, make_model: Callable, tmp_path: Path) -> None:
    test = make_anomaly_chunk("test-anat-0001", [f"p{n}" for n in range(9)], seed=2)
    lesion = np.load(test.dataset / "lesion.npy")
    lesion[8:, :, :, ::2] = 0
    np.save(test.dataset / "lesion.npy", lesion)
    rows = evaluated([test], make_model([]), tmp_path / "out")
    halves = {r["part"]: r["people"] for r in rows if r["name"] == "pixel AP" and r["part"] and r["role"] == "result"}
    assert sorted(halves.values()) == [4, 5]
    assert all(part.startswith("people with") for part in halves)


def test_who_was_never_looked_at_is_not_healthy(
    make_anomaly_chunk: Callable, make_model: Callable, tmp_path: Path
) -> None:
    """A perfect detector stays perfect when the labels of five of ten patients are missing."""
    labelled = make_anomaly_chunk("test-anat-0001", [f"p{n}" for n in range(5)], seed=2)
    unlabelled = make_anomaly_chunk("test-anat-0002", [f"q{n}" for n in range(5)], seed=3, known=False)
    for chunk in (labelled, unlabelled):
        np.save(chunk.inference / "maps.npy", np.load(chunk.dataset / "lesion.npy").astype(np.float32))
    (unlabelled.dataset / "lesion.npy").unlink()
    rows = evaluated([labelled, unlabelled], make_model([]), tmp_path / "out")
    ap = row_of(rows, "pixel AP")
    assert (ap["value"], ap["people"]) == (1.0, 5)
    assert "5 test people (q0, q1, q2, q3, q4)" in ap["note"]
    healthy = evaluated([labelled, unlabelled], make_model([]), tmp_path / "out", recipe(train_groups=["B"]))
    assert row_of(healthy, "pixel AP")["people"] == 7, "unknown people of a group trained on as healthy are healthy"


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
    assert (tmp_path / "out/examples.npz").is_file()
    assert not (tmp_path / "out/precision_recall.tsv").exists()


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


def test_training_free_floor_on_real_strokes(shared_data: Path) -> None:
    """RESEARCH: .646 (box 5) to .657 (box 7) on 80 x 64 for people with 100 lesion pixels or more."""
    folder = shared_data / "soop_flair_axial"
    index = pd.read_csv(folder / "index.csv")
    lesioned = index[index["lesion_px_axial68"] >= 100].iloc[::4]
    healthy = index[index["lesion_px_axial68"] == 0].iloc[::4]

    def read(path: Path) -> np.ndarray:
        return np.asarray(Image.open(path).resize((64, 80), Image.Resampling.BOX), dtype=np.float32)[None]

    def truth_of(name: str) -> np.ndarray:
        mask = Image.open(folder / "mask" / f"{name}_mask.png").point(lambda value: 255 * (value > 0))
        return np.asarray(mask.resize((64, 80), Image.Resampling.BOX), dtype=np.float32)[None] >= 127.5

    truth = np.stack([truth_of(name) for name in lesioned["id"]])

    def smoothed(names: pd.Series) -> tuple[np.ndarray, np.ndarray]:
        images = np.stack([read(folder / "image" / f"{name}.png") for name in names])
        brain = images > 0
        return uniform_filter(intensity_map(images, brain), size=(1, 1, 7, 7)), brain

    free, free_brain = smoothed(healthy["id"])
    levels, brain = smoothed(lesioned["id"])
    found = {"intensity": average_precision(levels[brain], truth[brain])}
    for axis, name in ((1, "asymmetry"), (0, "other axis")):
        level = Standard.of(free, free_brain)(levels)
        excess = Standard.of(excess_map(free, free_brain, axis), free_brain)(excess_map(levels, brain, axis))
        found[name] = average_precision((level + excess)[brain], truth[brain])
    assert found["asymmetry"] == pytest.approx(0.65, abs=0.05)
    assert found["asymmetry"] > found["intensity"] + 0.05
    assert found["other axis"] < found["asymmetry"] - 0.05


def test_thresholds_and_units_of_a_bundle_stand_for_validation_and_training_people(
    make_anomaly_chunk: Callable, make_model: Callable, tmp_path: Path
) -> None:
    validation, test = (
        make_anomaly_chunk(name, people, seed=seed)
        for seed, (name, people) in enumerate((("validation-anat-0001", "vw"), ("test-anat-0001", "abc")))
    )
    train = make_anomaly_chunk("train-anat-0001", ["x", "y"], lesions=False, seed=3)
    there = evaluated([validation, test], make_model(["z"]), tmp_path / "there", train=[train.dataset])

    standards = tmp_path / "here-standards"
    standards.mkdir()
    for source in (tmp_path / "there-standards" / FLOORS, tmp_path / "there" / "thresholds.tsv"):
        (standards / source.name).write_bytes(source.read_bytes())
    here = evaluated([test], tmp_path / "diffusion", tmp_path / "here")
    assert here == there, "the same figures, with nobody but the test people"


def test_scans_without_truth_are_mapped_and_not_scored(
    make_anomaly_chunk: Callable, make_model: Callable, tmp_path: Path
) -> None:
    test = make_anomaly_chunk("test-anat-0001", ["a", "b"], lesions=False, known=False)
    rows = evaluated([test], make_model([]), tmp_path / "out")
    assert all(row["value"] is None for row in rows)
    assert all("nobody said whether they have lesions: 2 test people (a, b)" in row["note"] for row in rows)


def test_people_with_two_contrasts_are_judged_once_and_by_contrast_too(
    make_anomaly_chunk: Callable, make_model: Callable, tmp_path: Path
) -> None:
    recipe = RecipeOptions.model_validate(
        {"task": "anomaly", "data": {"modality": ["FLAIR", "T1w"]}, "evaluation": {"bootstrap": 20}}
    )
    chunks = [
        make_anomaly_chunk(f"{split}-anat-0001", list("abcd"), seed=n) for n, split in enumerate(("validation", "test"))
    ]
    for chunk in chunks:
        for folder in (chunk.dataset, chunk.inference):
            index = pd.read_csv(folder / "index.tsv", sep="\t")
            index["modality"] = ["FLAIR", "T1w"] * 4
            index.to_csv(folder / "index.tsv", sep="\t", index=False)
    standards = tmp_path / "standards"
    for name in ("standards.json", "floors.json"):
        write_json(standards / name, {})
    evaluate_anomaly(
        recipe,
        make_model(["z"]),
        [chunk.inference for chunk in chunks],
        [chunk.dataset for chunk in chunks],
        standards,
        tmp_path / "out",
    )
    metrics = pd.read_csv(tmp_path / "out" / "metrics.tsv", sep="\t", keep_default_na=False)
    found = metrics[(metrics["name"] == "pixel AP") & (metrics["role"] == "result") & (metrics["against"] == "")]
    found = found[found["group"] == "all"].set_index("part")
    assert set(found.index) == {"", "FLAIR", "T1w"}
    assert found["people"].astype(int).tolist() == [4, 4, 4], "a person is one, however many scans there are"
    assert found.loc["", "images"] == 8
    assert found.loc["FLAIR", "images"] == 4
    truth, scores, mask = (
        np.load(folder / name)[::2]
        for folder, name in (
            (chunks[1].dataset, "lesion.npy"),
            (chunks[1].inference, "maps.npy"),
            (chunks[1].dataset, "mask.npy"),
        )
    )
    wanted = average_precision_score(truth[mask > 0], scores[mask > 0])
    assert float(found.loc["FLAIR", "value"]) == pytest.approx(wanted, abs=1e-4)
