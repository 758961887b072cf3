"""What will be trained again is said before it is, with its reason, and nothing else is."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline_lib.files import read_json, write_json, write_table
from pipeline_lib.imaging.status import COLUMNS
from pipeline_lib.plan import Plan
from pipeline_lib.retraining import retraining
from pipeline_lib.state import TRAINED_ON, trained_on

RECIPE: dict[str, Any] = {"task": "synthesis", "data": {"size": [64, 64]}, "autoencoder": {"channels": [8, 8]}}
GROUPED = {**RECIPE, "denoiser": {"condition": ["group"]}}
PEOPLE = [f"p{n:03d}" for n in range(12)]


class Cohort:
    """A sheet, and the traces of a finished run on it."""

    def __init__(self, folder: Path, recipe: dict[str, Any]) -> None:
        self.folder, self.recipe = folder, recipe
        self.values = {name: {"group": "AB"[n % 2], "age": str(20 + n), "site": "X"} for n, name in enumerate(PEOPLE)}
        self.broken = self.plan().scans(self.plan().chunks("train")[0])[0].participant
        self.plan().save_ledger()
        self.finish()

    def plan(self, **sections: Any) -> Plan:
        header = "participant\tmodality\tpath\tgroup\tage\tsex\tsite"
        rows = [
            f"{name}\tT1w\t{name}.nii.gz\t{v['group']}\t{v['age']}\tF\t{v['site']}" for name, v in self.values.items()
        ]
        (self.folder / "subjects.tsv").write_text("\n".join([header, *rows]) + "\n")
        cohort = {
            "subjects": str(self.folder / "subjects.tsv"),
            "splits": str(self.folder / "splits.tsv"),
            "root": str(self.folder),
            "chunk_size": 4,
        }
        return Plan({"cohort": cohort, "recipes": {"synthesis": self.recipe}, **sections})

    def finish(self) -> None:
        """What ingestion, preprocessing and training leave behind; one scan did not come through."""
        plan, results = self.plan(), self.folder / "results"
        for chunk in plan.chunks():
            scans = [
                {"scan": scan.id, "participant": scan.participant, "modality": "T1w", "sha256": scan.id}
                | {"group": scan.group, "age": f"{scan.age:g}", "site": scan.site}
                for scan in plan.scans(chunk)
            ]
            write_table(results / "preprocess" / chunk / "status.tsv", COLUMNS, scans)
            write_json(results / "ingest" / chunk / "inputs.json", {"key": plan.rows_key(chunk)})
            kept = [scan for scan in scans if scan["participant"] != self.broken]
            index = ["scan", "participant", "group", "age", "site", "sha256"]
            write_table(results / "synthesis" / "dataset" / chunk / "index.tsv", index, kept)
        lineage = {
            "preprocess": {
                "options": json.loads(plan.options("preprocess")),
                "code": plan.code("preprocess", None, "preprocess"),
            },
            "dataset": {"options": {}, "code": plan.code("dataset", "synthesis", "dataset")},
        }
        chunks = [results / "synthesis" / "dataset" / chunk for chunk in plan.chunks("train", "validation")]
        for model, script, part in (
            ("autoencoder/image", "train_vae", "autoencoder"),
            ("diffusion", "train_denoiser", "denoiser"),
        ):
            options = json.loads(plan.options(part, "synthesis"))
            made = {"options": options, "code": plan.code(script, "synthesis", part), "lineage": lineage}
            folder = results / "synthesis" / model
            write_json(folder / "provenance.json", made | {"inputs": [str(chunk) for chunk in chunks]})
            write_table(folder / TRAINED_ON, *trained_on(options, chunks))

    def said(self, **sections: Any) -> dict[str, str]:
        """Reasons by model."""
        lines = retraining(self.plan(**sections), self.folder / "results")
        parts = [re.fullmatch(r"synthesis: (\S+) will be trained again[^:]*: (.*)", line) for line in lines]
        return {part[1]: part[2] for part in parts if part}

    def somebody(self, split: str) -> str:
        """A person of a split whose scan came through."""
        plan = self.plan()
        people = [scan.participant for chunk in plan.chunks(split) for scan in plan.scans(chunk)]
        return next(name for name in people if name != self.broken)


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return Cohort(tmp_path, GROUPED)


def test_what_starts_from_a_denoiser_that_is_trained_again_is_trained_again(cohort: Cohort) -> None:
    finer = {**GROUPED, "denoiser": {"condition": ["group"], "start_from": "synthesis"}}
    recipes = {"finer": finer, "synthesis": GROUPED}
    results = cohort.folder / "results"
    plan = cohort.plan(recipes=recipes)
    shutil.copytree(results / "synthesis", results / "finer")
    sidecar = results / "finer" / "diffusion" / "provenance.json"
    options = {"options": json.loads(plan.options("denoiser", "finer"))}
    write_json(sidecar, read_json(sidecar) | options)
    (line,) = retraining(plan, results)
    assert line.endswith("it started from no other recipe, now from synthesis")
    made = read_json(sidecar)
    write_json(sidecar, made | {"inputs": [*made["inputs"], str(results / "synthesis" / "diffusion")]})
    assert retraining(plan, results) == []
    longer = {**GROUPED, "denoiser": {"condition": ["group"], "training": {"steps": 77}}}
    lines = retraining(cohort.plan(recipes=recipes | {"synthesis": longer}), results)
    assert [line.partition(":")[0] for line in lines] == ["synthesis", "finer"]
    assert lines[1].endswith("synthesis, from which it starts, is trained again")
    shutil.move(results / "synthesis" / "diffusion", results / "gone")
    assert retraining(plan, results)[0].endswith("synthesis, from which it starts, is trained again")


def test_nothing_is_said_where_nothing_changed_though_a_scan_failed(cohort: Cohort) -> None:
    assert cohort.said() == {}


def test_new_people_are_named(cohort: Cohort) -> None:
    cohort.values |= {f"q{n:03d}": {"group": "A", "age": "30", "site": "X"} for n in range(20)}
    said = cohort.said()
    assert set(said) == {"autoencoder/image", "diffusion"}
    assert "new training people: q0" in said["diffusion"]
    assert "new validation " in said["diffusion"]
    assert "its autoencoder is trained again" in said["diffusion"]


@pytest.mark.parametrize(("split", "title"), [("train", "training"), ("validation", "validation")])
def test_people_gone_are_named(cohort: Cohort, split: str, title: str) -> None:
    person = cohort.somebody(split)
    del cohort.values[person]
    assert all(f"1 {title} person gone: {person}" in line for line in cohort.said().values())
    assert len(cohort.said()) == 2


def test_changed_condition_is_named_and_retrains_only_what_reads_it(cohort: Cohort) -> None:
    person = cohort.somebody("train")
    cohort.values[person]["group"] = "B" if cohort.values[person]["group"] == "A" else "A"
    said = cohort.said()
    assert f"group of sub-{person}_T1w changed" in said["diffusion"]
    assert "its autoencoder is trained again" not in said["diffusion"]
    assert "group" not in said["autoencoder/image"]


def test_values_of_people_whose_group_is_not_learned_from_are_no_reason(tmp_path: Path) -> None:
    chosen = {"data": {**RECIPE["data"], "train_groups": ["A"]}, "denoiser": {"condition": ["age"]}}
    cohort = Cohort(tmp_path, {**RECIPE, **chosen})
    plan = cohort.plan()
    validated = [scan.participant for chunk in plan.chunks("validation") for scan in plan.scans(chunk)]
    patients = [name for name in validated if cohort.values[name]["group"] == "B"][:2]
    for name in patients:
        cohort.values[name] |= {"group": "C", "age": "44"}
    assert all("rows or files of validation-anat-0001 changed" in line for line in cohort.said().values())
    assert not any(f"of sub-{name}_T1w" in line for name in patients for line in cohort.said().values())
    for name in patients:
        cohort.values[name]["group"] = "A"
    told = " and ".join(cohort.said().values())
    assert all(f"sub-{name}_T1w" in told for name in patients), "now they are learned from"
    assert "group of" in told
    assert "age of" in told


def test_corrected_site_that_no_model_reads_trains_nothing_for_sure(cohort: Cohort) -> None:
    cohort.values[cohort.somebody("train")]["site"] = "Y"
    lines = retraining(cohort.plan(), cohort.folder / "results")
    assert len(lines) == 2
    assert all("unless its images come out the same" in line for line in lines)
    assert all("site" not in line for line in lines)


def test_people_of_the_test_split_are_no_reason(cohort: Cohort) -> None:
    del cohort.values[cohort.somebody("test")]
    assert cohort.said() == {}


def test_changed_preprocessing_and_configuration_name_their_keys(cohort: Cohort) -> None:
    said = cohort.said(preprocess={"voxel_size": 2.0})
    assert all("the preprocessing changed: voxel_size 1.0 -> 2.0" in line for line in said.values())
    cohort.recipe = {**GROUPED, "diffusion": {"loss": "l1"}}
    assert cohort.said() == {"diffusion": "its configuration changed: diffusion.loss l2 -> l1"}


def test_run_time_settings_are_no_reason(cohort: Cohort) -> None:
    settings = {"workers": 2, "keep": 5, "devices": 2, "checkpoint_every": 7, "samples_every": 3}
    cohort.recipe = {**GROUPED, "denoiser": {"condition": ["group"], "training": settings}}
    assert cohort.said() == {}
    assert json.loads(cohort.plan().settings("denoiser", "synthesis"))["denoiser"]["training"]["workers"] == 2


@pytest.mark.parametrize("stage", ["train_denoiser", "dataset", "preprocess"])
def test_changed_code_is_said(cohort: Cohort, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Plan.code

    def edited(plan: Plan, script: str, recipe: str | None = None, part: str | None = None) -> str:
        return "edited" if script == stage else before(plan, script, recipe, part)

    monkeypatch.setattr(Plan, "code", edited)
    said = cohort.said()
    if stage == "train_denoiser":
        assert said == {"diffusion": "its code changed"}
    else:
        assert all(f"the code of {stage} changed" in line for line in said.values())
        assert len(said) == 2


def test_what_a_model_keeps_of_its_scans_names_nobody(cohort: Cohort) -> None:
    text = (cohort.folder / "results" / "synthesis" / "diffusion" / TRAINED_ON).read_text()
    assert not any(name in text for name in PEOPLE)
