"""One model of two contrasts, from preprocessed scans to the people it is judged on, by the functions of every stage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from tiny_chunks import FLAT, preprocessed
from tiny_finished import PEOPLE, tiny_recipe

from pipeline_lib.dataset.pack import pack_chunk
from pipeline_lib.evaluation.anomaly import evaluate_anomaly
from pipeline_lib.files import read_json, read_table
from pipeline_lib.imaging.status import write_status
from pipeline_lib.inference.anomaly import infer_anomaly
from pipeline_lib.inference.standards import measure_standards
from pipeline_lib.training.denoiser import train_denoiser


def both_contrasts(folder: Path, people: str, *, lesion: bool) -> Path:
    """A preprocessed chunk with a T1w and a FLAIR scan of everybody."""
    members = [(name, "CN" if name in PEOPLE["train"] else "AD") for name in people]
    one, other = (
        preprocessed(folder / modality, members, modality=modality, lesion=lesion) for modality in ("T1w", "FLAIR")
    )
    for path in (other / "scans").iterdir():
        shutil.copy(path, one / "scans")
    rows = [row for chunk in (one, other) for row in read_table(chunk / "status.tsv")]
    write_status(one / "status.tsv", [row | {"lesion": "mask" if lesion else "none"} for row in rows])
    return one


def test_a_model_of_two_contrasts_from_scans_to_people(tmp_path: Path) -> None:
    data = FLAT.model_dump(mode="json") | {"modality": ["T1w", "FLAIR"], "lesion_free": True}
    denoiser = tiny_recipe("anomaly").model_dump(mode="json", exclude_unset=True)["denoiser"]
    recipe = tiny_recipe(
        "anomaly",
        data=data,
        denoiser=denoiser | {"condition": ["modality"]},
        evaluation={
            "bootstrap": 20,
            "score": {"levels": [0.9], "residual": "signed", "weights": {"residual_by_place": 1, "intensity": 1}},
        },
    )
    chunks = {}
    for split, people in PEOPLE.items():
        chunks[split] = tmp_path / "dataset" / f"{split}-anat-0001"
        made = both_contrasts(tmp_path / split, people, lesion=split != "train")
        pack_chunk(made, recipe.data, chunks[split])
    model, standards = tmp_path / "diffusion", tmp_path / "standards"
    train_denoiser(recipe, [chunks["train"]], [chunks["validation"]], model, tmp_path / "state", {})
    info = read_json(model / "model.json")
    assert info["conditions"][0]["categories"] == ["FLAIR", "T1w"]
    assert (info["train_people"], info["train_scans"]) == (4, 8)

    measure_standards(recipe, model, [chunks["train"]], standards)
    inferred = []
    for split in ("validation", "test"):
        inferred.append(tmp_path / "inference" / chunks[split].name)
        infer_anomaly(recipe, model, standards, chunks[split], inferred[-1])
    assert np.isfinite(np.load(inferred[-1] / "maps.npy")).all()
    maps = {path.name.split("_")[1] for path in (inferred[-1] / "nifti").glob("*.nii.gz")}
    assert maps == {"T1w", "FLAIR"}

    datasets = [chunks["validation"], chunks["test"]]
    evaluate_anomaly(recipe, model, inferred, datasets, standards, tmp_path / "evaluation")
    metrics = pd.DataFrame(json.loads((tmp_path / "evaluation" / "metrics.json").read_text()))
    found = metrics[(metrics["name"] == "pixel AP") & (metrics["against"] == "") & (metrics["group"] == "all")]
    for _, rows in found[found["method"] != "chance: share of lesion pixels"].groupby("method"):
        assert rows.set_index("part")["people"].to_dict() == {"": 2, "FLAIR": 2, "T1w": 2}
    assert set(found["role"]) == {"result", "floor"}
    assert found["value"].notna().all()
