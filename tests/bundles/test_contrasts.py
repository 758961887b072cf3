"""A model of several contrasts is applied to a folder that says which scan is which."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline_lib.apply import write_study
from pipeline_lib.bundle_plan import SHIPPED, finished_recipe
from pipeline_lib.config.load import load_config
from pipeline_lib.errors import UserError
from pipeline_lib.files import read_json, read_table, write_json
from pipeline_lib.plan import Plan


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The bundle that ships, as if it had seen FLAIR scans, too."""
    folder = tmp_path / "both"
    shutil.copytree(SHIPPED / "anomaly-t1", folder)
    plan = read_json(folder / "model.json")
    for data in (plan["data"], plan["prepared"]["data"], plan["recipe"]["data"]):
        data["modality"] = "FLAIR+T1w"
    write_json(folder / "model.json", plan)
    return folder


def test_both_contrasts_of_a_folder_are_taken(bundle: Path, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    for name in ("a_T1w", "a_FLAIR", "b_T1w", "b_T2w"):
        (scans / f"{name}.nii.gz").write_bytes(name.encode())
    finished = finished_recipe(bundle)
    with pytest.raises(UserError, match=r"the model is for FLAIR and T1w; say where each is, .*modality"):
        write_study(finished, str(bundle), scans, tmp_path / "out", "", "")
    study, notes = write_study(finished, str(bundle), scans, tmp_path / "out", "{participant}_{modality}.nii.gz", "")
    rows = read_table(study.given / "subjects.tsv")
    assert sorted((row["participant"], row["modality"]) for row in rows) == [("a", "FLAIR"), ("a", "T1w"), ("b", "T1w")]
    assert notes[-1].startswith("3 scans of 2 people")
    recipe = load_config({"recipes": {"mine": {"weights": str(bundle)}}}).recipes["mine"]
    assert recipe.data.modalities == ("FLAIR", "T1w")
    cohort = {"subjects": str(study.given / "subjects.tsv"), "splits": str(tmp_path / "splits.tsv"), "root": str(scans)}
    plan = Plan({"cohort": cohort, "recipes": {"mine": {"weights": str(bundle)}}})
    assert plan.chunks(recipe="mine") == ["test-anat-0001"]
