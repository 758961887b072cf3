"""A finished recipe becomes a bundle that is small, whole and says what it is; applied, it gives the figures it gave."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from safetensors.torch import load_file
from tiny_finished import NETWORK, PREPROCESS, chunk_of, finished, tiny_recipe

from pipeline_lib import bundle_plan
from pipeline_lib.apply import Study, _run, write_study
from pipeline_lib.bundle_plan import SHIPPED, finished_recipe
from pipeline_lib.bundles.build import build
from pipeline_lib.bundles.check import check
from pipeline_lib.bundles.parts import copy_part
from pipeline_lib.config.load import load_config
from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.anomaly import evaluate_anomaly
from pipeline_lib.evaluation.generation import evaluate_generation
from pipeline_lib.files import read_json, write_json
from pipeline_lib.inference.anomaly import infer_anomaly
from pipeline_lib.inference.generation import sample_generation
from pipeline_lib.plan import Plan

DATA = "Four made-up balls."


@pytest.fixture(scope="module")
def anomaly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a finished recipe."""
    return finished(tmp_path_factory.mktemp("results") / "anomaly", "anomaly")


@pytest.fixture(scope="module")
def bundle(anomaly: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle that was built of them."""
    folder = tmp_path_factory.mktemp("bundles")
    build(anomaly, "balls", folder, data=DATA)
    return folder / "balls"


@pytest.fixture
def applied(bundle: Path) -> Callable[..., RecipeOptions]:
    """A frozen recipe as a run would read it."""

    def load(weights: Path = bundle, preprocess: dict[str, Any] | None = None, **recipe: Any) -> RecipeOptions:
        values = {"preprocess": preprocess or {}, "recipes": {"mine": {"weights": str(weights), **recipe}}}
        return load_config(values).recipes["mine"]

    return load


def test_bundle_is_whole_and_says_what_it_is(bundle: Path, anomaly: Path) -> None:
    assert check(bundle) == []
    weights = load_file(bundle / "model.safetensors").values()
    assert {str(value.dtype) for value in weights} == {"torch.float16"}
    card = (bundle / "card.md").read_text()
    for text in (
        DATA,
        "4 people, 4 scans",
        "| pixel AP | diffusion | result |",
        "floor",
        "Not for diagnosis",
        "of its size",
    ):
        assert text in card, text
    assert (bundle / "LICENSE").read_text() == "CC0\n"
    plan = read_json(bundle / "model.json")
    assert plan["recipe"] == read_json(anomaly / "evaluation" / "provenance.json")["options"]
    assert {row["role"] for row in plan["figures"]} == {"result", "floor"}
    assert (bundle / "fitted" / "thresholds.tsv").read_text() == (anomaly / "evaluation" / "thresholds.tsv").read_text()


@pytest.mark.parametrize(
    ("name", "text"), [("thresholds.tsv", '{"diffusion": 1}'), ("standards.json", "{"), ("floors.json", "")]
)
def test_check_reads_what_was_fitted(bundle: Path, tmp_path: Path, name: str, text: str) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    (copy / "fitted" / name).write_text(text)
    faults = check(copy)
    assert len(faults) == 1, faults
    assert f"fitted/{name}" in faults[0]


def test_folder_of_results_is_applied_like_its_bundle(
    anomaly: Path, bundle: Path, applied: Callable[..., RecipeOptions]
) -> None:
    one, other = applied(), applied(anomaly)
    assert one.model_dump(exclude={"weights"}) == other.model_dump(exclude={"weights"})
    assert set(finished_recipe(anomaly).parts) == set(finished_recipe(bundle).parts) == {"diffusion", "standards"}


def test_new_scans_get_the_figures_that_they_got_where_it_was_trained(
    anomaly: Path, bundle: Path, applied: Callable[..., RecipeOptions], tmp_path: Path
) -> None:
    recipe = applied(data={"train_groups": ["CN"]})
    for part in ("diffusion", "standards"):
        copy_part(bundle, part, tmp_path / part)
    test = chunk_of(tmp_path, recipe, "test", "gh", lesion=True)
    infer_anomaly(recipe, tmp_path / "diffusion", tmp_path / "standards", test, tmp_path / "inference" / test.name)
    evaluate_anomaly(
        recipe,
        tmp_path / "diffusion",
        [tmp_path / "inference" / test.name],
        [test],
        tmp_path / "standards",
        tmp_path / "out",
    )
    there, here = (read_json(folder / "metrics.json") for folder in (anomaly / "evaluation", tmp_path / "out"))
    assert [row["name"] for row in here] == [row["name"] for row in there]
    for one, other in zip(here, there, strict=True):
        assert one["value"] == pytest.approx(other["value"], rel=0.02, abs=0.02), one["name"]
        assert one["people"] == other["people"]


def test_people_whom_it_has_seen_are_refused(
    bundle: Path, applied: Callable[..., RecipeOptions], tmp_path: Path
) -> None:
    recipe = applied()
    for part in ("diffusion", "standards"):
        copy_part(bundle, part, tmp_path / part)
    test = chunk_of(tmp_path, recipe, "test", "ax")
    infer_anomaly(recipe, tmp_path / "diffusion", tmp_path / "standards", test, tmp_path / "out")
    assert "a" in (tmp_path / "out" / "refused.tsv").read_text().split("\n")[1].split("\t")
    assert {row.split("\t")[1] for row in (tmp_path / "out" / "index.tsv").read_text().splitlines()[1:]} == {"x"}


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"data": {"size": [64, 64]}}, r"data.size \[64, 64\] \(there \[16, 16\]\)"),
        ({"denoiser": {"condition": ["age"]}}, r"denoiser.condition \['age'\] \(there \[\]\)"),
        ({"evaluation": {"smoothing_mm": 9}}, r"evaluation.smoothing_mm 9.0 \(there 3.0\)"),
        ({"sampling": {"steps": 9}}, r"sampling.steps 9 \(there 2\)"),
        ({"preprocess": {"voxel_size": 1.0}}, r"preprocess.voxel_size 1.0 \(there 6.0\); remove it from preprocess"),
        ({"preprocess": {"intensity": "zscore"}}, r"preprocess.intensity zscore \(there percentile\)"),
    ],
)
def test_recipe_that_says_otherwise_is_refused_naming_the_difference(
    said: dict[str, Any], fault: str, applied: Callable[..., RecipeOptions]
) -> None:
    with pytest.raises(UserError, match=fault) as refused:
        applied(**said)
    assert str(refused.value).startswith("configuration: recipes.mine")
    assert len(str(refused.value).splitlines()) == 1


def test_what_changes_no_map_may_be_said_anew(applied: Callable[..., RecipeOptions]) -> None:
    recipe = applied(sampling={"batch_size": 3}, evaluation={"bootstrap": 7}, data={"slices": {"to_mm": 30}})
    assert (recipe.sampling.batch_size, recipe.evaluation.bootstrap, recipe.data.slices.to_mm) == (3, 7, 30)
    assert recipe.data.slices.every_mm == 10
    assert recipe.data.train_groups == [], "groups of another cohort mean nothing here"


def test_preprocessing_comes_from_the_bundle_and_a_skull_is_looked_for(bundle: Path) -> None:
    config = load_config({"recipes": {"mine": {"weights": str(bundle)}}})
    assert config.preprocess.voxel_size == PREPROCESS["voxel_size"]
    assert not config.preprocess.bias_field
    assert config.preprocess.brain_extraction == "learned"


def test_everybody_is_a_test_person_and_nothing_is_trained(bundle: Path, tmp_path: Path) -> None:
    rows = [f"p{n}\tT1w\tp{n}.nii.gz" for n in range(5)]
    (tmp_path / "subjects.tsv").write_text("\n".join(["participant\tmodality\tpath", *rows]) + "\n")
    cohort = {"subjects": str(tmp_path / "subjects.tsv"), "splits": str(tmp_path / "splits.tsv"), "root": str(tmp_path)}
    plan = Plan({"cohort": cohort, "recipes": {"mine": {"weights": str(bundle)}}})
    assert {row.split for row in plan.ledger.rows} == {"test"}
    assert plan.chunks(recipe="mine") == plan.chunks("validation", "test", recipe="mine") == ["test-anat-0001"]
    assert plan.chunks("train", recipe="mine") == []
    assert plan.trained("mine") == ()
    assert str(tmp_path) not in plan.options("report", "mine"), "no path in a page"
    assert str(bundle.parent) not in plan.options("report", "mine")
    trained = {"task": "generation", "data": {"size": [16, 16]}}
    rows += [f"q{n}\tT1w\tq{n}.nii.gz" for n in range(30)]
    (tmp_path / "subjects.tsv").write_text("\n".join(["participant\tmodality\tpath", *rows]) + "\n")
    beside = Plan({"cohort": cohort, "recipes": {"mine": {"weights": str(bundle)}, "new": trained}})
    assert {row.split for row in beside.ledger.rows} == {"train", "validation", "test"}
    assert all(chunk.startswith("test-") for chunk in beside.chunks(recipe="mine"))


def test_thresholds_of_marks_that_were_logits_are_refused(tmp_path: Path) -> None:
    shutil.copytree(SHIPPED / "anomaly-t1", tmp_path / "anomaly-t1")
    path = tmp_path / "anomaly-t1" / "fitted" / "thresholds.tsv"
    table = pd.read_csv(path, sep="\t")
    assert table.loc[table["role"] == "result", "threshold"].between(0, 1).all()
    table.drop(columns="scale").assign(threshold=0.0076).to_csv(path, sep="\t", index=False)
    with pytest.raises(UserError, match="whose marks were logits and not from 0 to 1: evaluate its recipe again"):
        finished_recipe(tmp_path / "anomaly-t1")
    assert any("marks were logits" in fault for fault in check(tmp_path / "anomaly-t1"))


def test_a_digest_changes_with_what_was_fitted(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "balls")
    assert finished_recipe(tmp_path / "balls").digest == finished_recipe(bundle).digest, "wherever it lies"
    (tmp_path / "balls" / "fitted" / "thresholds.tsv").write_text("method\trole\tthreshold\ndiffusion\tresult\t0.1\n")
    assert finished_recipe(tmp_path / "balls").digest != finished_recipe(bundle).digest


def test_altered_weights_are_not_taken(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "balls")
    with open(tmp_path / "balls" / "model.safetensors", "r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    with pytest.raises(UserError, match="is not the file that model.json was written for"):
        copy_part(tmp_path / "balls", "diffusion", tmp_path / "out")


def test_a_network_alone_is_no_recipe(anomaly: Path) -> None:
    with pytest.raises(UserError, match="is a network and no whole recipe; give the folder of the finished recipe"):
        finished_recipe(anomaly / "diffusion")


def test_results_without_a_finished_network_are_no_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine" / "dataset").mkdir(parents=True)
    with pytest.raises(UserError, match="mine has no finished recipe: neither diffusion/model.json nor regression"):
        finished_recipe(tmp_path / "mine")


def test_terms_must_be_stated_and_a_bundle_is_small(
    anomaly: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(anomaly, tmp_path / "anomaly")
    plan = tmp_path / "anomaly" / "diffusion" / "model.json"
    write_json(plan, {**read_json(plan), "licence": ""})
    with pytest.raises(UserError, match="nobody stated the terms of its scans"):
        build(tmp_path / "anomaly", "balls", tmp_path / "out", data=DATA)
    monkeypatch.setattr("pipeline_lib.bundles.build.LARGEST", 1000)
    with pytest.raises(UserError, match="a bundle that ships has 0.001 at most"):
        build(anomaly, "balls", tmp_path / "out", data=DATA)
    assert not list((tmp_path / "out").iterdir()), "nothing half-written"


def test_generator_is_applied_without_its_training_people_and_does_not_ship_where_it_copies(tmp_path: Path) -> None:
    results = finished(tmp_path / "results" / "generation", "generation")
    build(results, "maker", tmp_path, data=DATA)
    assert "## Copies" in (tmp_path / "maker" / "card.md").read_text()
    recipe = load_config({"recipes": {"mine": {"weights": str(tmp_path / "maker"), "sampling": {"count": 3}}}}).recipes[
        "mine"
    ]
    assert recipe.sampling.count == 3
    copy_part(tmp_path / "maker", "diffusion", tmp_path / "diffusion")
    held_out = [chunk_of(tmp_path / "new", recipe, "test", "stuvwxyz")]
    sample_generation(recipe, tmp_path / "diffusion", held_out, tmp_path / "samples")
    evaluate_generation(recipe, tmp_path / "diffusion", tmp_path / "samples", [], held_out, tmp_path / "evaluation")
    rows = read_json(tmp_path / "evaluation" / "metrics.json")
    (copies,) = [row for row in rows if row["name"] == "share of suspected copies"]
    assert copies["value"] is None
    assert "did not travel" in copies["note"]

    rows = read_json(results / "evaluation" / "metrics.json")
    for row in rows:
        if row["name"] == "share of suspected copies" and row["role"] in ("result", "reference"):
            row |= {"value": 0.9 if row["role"] == "result" else 0.1, "high": 0.2}
    write_json(results / "evaluation" / "metrics.json", rows)
    with pytest.raises(UserError, match=r"90.0% of its samples are suspected copies .* does not ship"):
        build(results, "copier", tmp_path, data=DATA)


def test_apply_writes_a_sheet_and_a_configuration_that_hold(bundle: Path, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    for name in ("one.nii.gz", "two.nii"):
        (scans / name).touch()
    study, notes = write_study(finished_recipe(bundle), str(bundle), scans, tmp_path / "study", "", "")
    assert notes[-1] == f"2 scans of 2 people: {study.given / 'subjects.tsv'}"
    assert (study.given / "subjects.tsv").is_file()
    values = yaml.safe_load(study.config.read_text())
    assert list(values["recipes"]) == ["balls"]
    plan = Plan(values)
    assert [scan.modality for chunk in plan.chunks() for scan in plan.scans(chunk)] == ["T1w", "T1w"]


@pytest.mark.parametrize(
    ("files", "fault"),
    [
        ((), "neither BIDS (sub-*/anat) nor NIfTI files in it; say where they are below it"),
        (("sub-1/anat/sub-1_FLAIR.nii.gz",), "no T1w scan, which the model is for; there are FLAIR"),
        (("one.nii", "one.nii.gz"), "is there as .nii and as .nii.gz; remove one"),
    ],
)
def test_apply_says_in_one_line_what_is_wrong(
    files: tuple[str, ...], fault: str, bundle: Path, tmp_path: Path, repository: Path
) -> None:
    scans = tmp_path / "scans"
    for name in files:
        (scans / name).parent.mkdir(parents=True, exist_ok=True)
        (scans / name).touch()
    scans.mkdir(exist_ok=True)
    with pytest.raises(UserError) as said:
        write_study(finished_recipe(bundle), str(bundle), scans, tmp_path / "study", "", "")
    assert fault in str(said.value)
    assert len(str(said.value).splitlines()) == 1


def test_commands(anomaly: Path, tmp_path: Path, repository: Path) -> None:
    def run(module: str, *words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", module, *map(str, words)], cwd=repository, capture_output=True, text=True
        )

    built = run("pipeline_lib.bundles", "build", anomaly, "balls", "--data", DATA, "--out", tmp_path)
    assert built.returncode == 0, built.stderr
    assert "MB" in built.stdout
    missing = run("pipeline_lib.apply", "nowhere", tmp_path)
    assert (missing.returncode, missing.stderr.splitlines()[0][:28]) == (1, "ERROR nowhere: no such bundl")


def test_few_people_are_warned_of_with_the_bundle_to_start_from(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [f"p{n}\tT1w\tp{n}.nii.gz" for n in range(20)]
    (tmp_path / "subjects.tsv").write_text("\n".join(["participant\tmodality\tpath", *rows]) + "\n")
    cohort = {"subjects": str(tmp_path / "subjects.tsv"), "splits": str(tmp_path / "splits.tsv"), "root": str(tmp_path)}
    recipe = tiny_recipe("anomaly").model_dump(mode="json", include={"task": True, "data": {"size", "modality"}})
    values = {"cohort": cohort, "recipes": {"mine": recipe}}

    def warned() -> list[str]:
        return [line for line in Plan(values).notices() if "too few to learn from nothing" in line]

    monkeypatch.setattr(bundle_plan, "SHIPPED", tmp_path / "none")
    (line,) = warned()
    assert line.startswith("recipe mine: 14 people to learn from")
    assert line.endswith("no bundle of T1w ships; start_from takes one of your own")
    monkeypatch.setattr(bundle_plan, "SHIPPED", bundle.parent)
    (line,) = warned()
    assert line.endswith("set denoiser.start_from: balls")
    values["recipes"]["mine"] = {
        **recipe,
        "diffusion": {"timesteps": 10},
        "denoiser": {**NETWORK, "start_from": "balls"},
    }
    assert warned() == []


@pytest.mark.parametrize(("task", "bundle"), [("anomaly", "anomaly-t1"), ("generation", "generator-t1")])
def test_the_bundle_of_the_same_task_is_named_first(task: str, bundle: str, tmp_path: Path) -> None:
    rows = [f"p{n}\tT1w\tp{n}.nii.gz" for n in range(20)]
    (tmp_path / "subjects.tsv").write_text("\n".join(["participant\tmodality\tpath", *rows]) + "\n")
    cohort = {"subjects": str(tmp_path / "subjects.tsv"), "splits": str(tmp_path / "splits.tsv"), "root": str(tmp_path)}
    recipe = {"task": task, "data": {"modality": "T1w", "size": [112, 96]}}
    notices = Plan({"cohort": cohort, "recipes": {"mine": recipe}}).notices()
    (line,) = [line for line in notices if "too few to learn from nothing" in line]
    assert line.endswith(f"set denoiser.start_from: {bundle}")


def test_a_plan_alone_says_nothing_of_an_earlier_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = Study(tmp_path / "study", "balls")
    for file in (study.report, study.given / "apply.log"):
        file.parent.mkdir(parents=True)
        file.touch()
    command = [sys.executable, "-c", "print('Job 3: Pack it')"]
    assert _run(command, study, planned=True) == 0
    assert capsys.readouterr().out == "Job 3: Pack it\nPlanned only, nothing was run\n"
    assert _run(command, study) == 0
    assert capsys.readouterr().out.endswith(f"Report: {study.report}\n")
