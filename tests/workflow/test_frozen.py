"""One command applies a bundle to a folder of scans: a report and a map each, and nothing is trained."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny_finished import finished
from workspace import Workspace, environment

from pipeline_lib.bundle_plan import FITTED
from pipeline_lib.bundles.build import build
from pipeline_lib.cohort.synthetic import make_cohort
from pipeline_lib.config.load import load_config
from pipeline_lib.config.part import recipe_part
from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.files import read_json, read_table, write_json
from pipeline_lib.tasks import TASKS

pytestmark = pytest.mark.dag

QUALITY = "preprocess={quality: {brain_volume_ml: [200, 4000], min_template_overlap: 0.3}}"


def test_a_folder_of_scans_in_one_command(repository: Path, tmp_path: Path) -> None:
    made = make_cohort(tmp_path / "made", range(1, 4), root=tmp_path, voxel_mm=6.0, workers=2)
    scans = tmp_path / "scans"
    scans.mkdir()
    for scan in made:
        if scan.modality == "T1w":
            shutil.copyfile(tmp_path / scan.path, scans / f"{scan.participant}.nii.gz")
    (scans / "broken.nii.gz").write_bytes((scans / f"{made[0].participant}.nii.gz").read_bytes()[:3000])
    build(finished(tmp_path / "trained", "anomaly"), "balls", tmp_path, data="Made-up balls.")

    def apply() -> subprocess.CompletedProcess[str]:
        words = [tmp_path / "balls", scans, "--out", "results/study", "--cores", "2", "--", "--config", QUALITY]
        command = [sys.executable, "-m", "pipeline_lib.apply", *map(str, words)]
        return subprocess.run(
            command, cwd=tmp_path, text=True, capture_output=True, env=environment() | {"PYTHONPATH": str(repository)}
        )

    done = apply()
    study = tmp_path / "results" / "study"
    given = tmp_path / "results" / "study_config"
    log = (given / "apply.log").read_text()
    assert done.returncode == 0, log[-6000:]
    for line in (
        "4 scans of 4 people",
        "3 of 4 scans were used",
        "left out: sub-broken_T1w: ",
        "Report: results/study/report/index.html",
    ):
        assert line in done.stdout, done.stdout
    assert "100%" in done.stdout, "how far it is"
    assert (study / "report" / "index.html").is_file()
    maps = sorted(path.name for path in study.glob("balls/native/*/*.nii.gz"))
    assert maps == [
        f"sub-{scan.participant}_T1w_space-individual_desc-anomaly_map.nii.gz"
        for scan in made
        if scan.modality == "T1w"
    ]
    assert "train_" not in log
    assert not list((tmp_path / "state").rglob("step-*")), "nothing was trained"
    assert read_json(study / "balls/diffusion/model.json") == read_json(tmp_path / "balls/model.json")
    assert {row["split"] for row in read_table(given / "splits.tsv")} == {"test"}
    page = (study / "report" / "balls.html").read_text()
    assert "Nothing was trained on these scans: the model balls was applied" in page
    assert str(tmp_path) not in page

    again = apply()
    assert again.returncode == 0
    assert "Nothing to be done" in (given / "apply.log").read_text()


def untrained(folder: Path, recipe: RecipeOptions) -> Path:
    """What a finished recipe leaves, as far as a plan looks at it."""
    task = TASKS[recipe.task]
    networks = ["diffusion", *(f"autoencoder/{role}" for role in (task.roles if recipe.autoencoder else ()))]
    networks += ["regression"] if recipe.regression else []
    for network in networks:
        write_json(folder / network / "model.json", {"format": 1, "weights_sha256": "0" * 64, "prepared": {}})
        (folder / network / "model.safetensors").touch()
    fitted = {"anomaly": "standards", "translation": "floor"}
    for place in FITTED[fitted[recipe.task]].values() if recipe.task in fitted else ():
        write_json(folder / place, {})
    options = json.loads(recipe_part(recipe, task.stage("evaluation").reads))
    write_json(folder / "evaluation" / "provenance.json", {"options": options})
    return folder


def test_every_task_is_planned_without_a_training(fresh_workspace: Workspace, tmp_path: Path) -> None:
    config = fresh_workspace.configuration()
    recipes = load_config(config).recipes
    frozen = {
        name: {"weights": str(untrained(tmp_path / "trained" / name, recipe))} for name, recipe in recipes.items()
    }
    modalities = ("T1w", "dwi", "noddi")
    rows = [f"p{n}\t{modality}\t{n}_{modality}.nii.gz" for n in range(3) for modality in modalities]
    sheet = tmp_path / "subjects.tsv"
    sheet.write_text("\n".join(["participant\tmodality\tpath", *rows]) + "\n")
    cohort = {"subjects": str(sheet), "splits": str(tmp_path / "splits.tsv"), "results": str(tmp_path / "results")}
    (tmp_path / "frozen.yaml").write_text(
        yaml.safe_dump({**config, "cohort": {**cohort, "root": str(tmp_path)}, "recipes": frozen})
    )
    planned = fresh_workspace.snakemake("-n", "all", config=str(tmp_path / "frozen.yaml")).stdout
    table = planned.split("Job stats:")[1].split("total")[0]
    counts = {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, flags=re.MULTILINE)}
    assert counts["from_bundle"] == 5 + 3 + 1 + 1 + 2, "denoisers, autoencoders, a regression, units and floors"
    assert not {rule for rule in counts if rule.startswith("train_")} | (
        counts.keys() & {"fit_floor", "anomaly_standards"}
    )
    assert counts["infer_translation"] == 2
    for rule in (
        "infer_anomaly",
        "native_maps",
        "sample_generation",
        "sample_synthesis",
        "report_index",
    ):
        assert counts[rule] == 1, rule
    assert "will be trained" not in planned
