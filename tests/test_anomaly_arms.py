"""Arms that learn from validation people (benchmarks/anomaly_arms.py): nobody is scored by what was learned from him."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny_finished
import torch
from script_modules import load_script
from tiny_finished import finished, tiny_recipe
from tiny_training import NETWORK, TRAINING

from pipeline_lib.dataset.index import read_index
from pipeline_lib.dataset.packed import PackedDataset
from pipeline_lib.files import read_json

LESIONS = {
    "diffusion": {"timesteps": 10, "prediction": "x0"},
    "denoiser": {**NETWORK, "synthetic_lesions": {}, "training": TRAINING},
    "evaluation": {"bootstrap": 20, "score": {"levels": [1], "weights": {"segmentation": 1}}},
}


@pytest.fixture(scope="module")
def script(repository: Path) -> ModuleType:
    return load_script(repository / "benchmarks" / "anomaly_arms.py")


def seen(script: ModuleType, *, folds: list[int], seed: int = 0) -> Any:
    """Images of two parts: the first tells lesions, the second nothing."""
    random = np.random.default_rng(seed)
    brain = np.ones((len(folds), 1, 12, 12), bool)
    brain[..., 0] = False
    lesion = brain & (random.random(brain.shape) < 0.3)
    parts = random.normal(size=(*brain.shape, 2)) + np.stack([2.0 * lesion, 0.0 * lesion], axis=-1)
    return script.Seen(parts.astype(np.float32), brain, lesion, parts[..., 0], np.array(folds))


def test_weights_are_those_of_the_parts_that_tell_lesions_and_of_other_folds_only(script: ModuleType) -> None:
    images = seen(script, folds=[0, 0, 1, 1])
    weights = script.fitted([images]).coef_[0]
    assert weights[0] == pytest.approx(2, abs=0.5), "log odds of two normals of one variance, two apart"
    assert abs(weights[1]) < 0.4
    turned = images.lesion.copy()
    turned[2:] = ~turned[2:]
    other = script.Seen(images.parts, images.brain, turned, images.reconstruction, images.folds)
    np.testing.assert_array_equal(script.fitted([images], without=1).coef_, script.fitted([other], without=1).coef_)
    assert not np.allclose(script.fitted([images]).coef_, script.fitted([other]).coef_)
    found = script.weighed(script.fitted([images]), images, 0)
    assert (found[~images.brain[0]] == 0).all()
    assert found[images.lesion[0]].mean() > found[images.brain[0] & ~images.lesion[0]].mean()


def test_every_arm_is_judged_on_the_same_people(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    monkeypatch.setitem(tiny_finished.PEOPLE, "validation", "efik")
    monkeypatch.setattr(script, "FOLDS", 2)
    monkeypatch.setattr(script, "EVERY", 2)
    own = script.Finished(tiny_recipe("anomaly", **LESIONS), finished(tmp_path / "anomaly", "anomaly", **LESIONS))
    work = tmp_path / "work"
    arms = {
        "anomaly": own.folder,
        "tuned": script.arm(own, work / "tuned", script.tuned),
        "supervised": script.arm(
            own, work / "supervised", lambda recipe, out: script.supervised(recipe, out, steps=4, batch_size=2)
        ),
    }
    for folder in arms.values():
        subjects = pd.read_csv(folder / "evaluation" / "per_subject.tsv", sep="\t")
        assert set(subjects.loc[subjects["split"] == "test", "participant"]) == {"g", "h"}
        brain = np.load(own.folder / "dataset" / "test-anat-0001" / "mask.npy") > 0
        assert (np.load(folder / "inference" / "test-anat-0001" / "maps.npy")[~brain] == 0).all()

    # A fold has half of the people, and what was drawn in them as labels.
    folds = [work / "supervised" / "people" / str(fold) for fold in range(2)]
    people = [set(read_index(fold)["participant"]) for fold in folds]
    assert people[0] | people[1] == set("efik")
    assert not people[0] & people[1]
    whole = np.load(own.folder / "dataset" / "validation-anat-0001" / "lesion.npy")
    labels = [np.load(fold / "label.npy") for fold in folds]
    assert sum(int(label.sum()) for label in labels) == int(whole.sum()) > 0
    assert PackedDataset(folds)[0]["label"].shape == (1, 16, 16)
    for state, count in (("0", "label of the other"), ("all", "everybody")):
        assert (work / "supervised" / "state" / state / "averages" / "step-00000004.safetensors").is_file(), count

    text = script.table(arms)
    values = {row["method"]: row for row in read_json(own.folder / "evaluation" / "metrics.json")}
    assert "intensity" in values
    assert [line.split(" | ")[0] for line in text.splitlines() if "pixel" not in line and "---" not in line] == [
        "| floor: intensity", "| floor: intensity + left-right asymmetry",
        *(line for name in arms for line in (f"| {name}", line_of(text))),
    ]  # fmt: skip
    rows = script.differences(own.recipe, arms, own.chunks("test")).splitlines()
    assert rows[0] == "| pixel AP minus that of | anomaly | tuned |"
    assert len(rows) == 4
    # Nothing is made a second time.
    monkeypatch.setattr(script, "tuned", None)
    assert script.arm(own, work / "tuned", script.tuned) == work / "tuned"


def line_of(text: str) -> str:
    """The first cell of the lines of differences, which is the same of all arms."""
    (found,) = {line.split(" | ")[0] for line in text.splitlines() if line.startswith("| - minus")}
    return found
