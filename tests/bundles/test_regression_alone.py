"""A translation that draws nothing: the regression is its result, ships as a bundle, and is applied to sources alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_chunks import PAIRED, preprocessed
from tiny_finished import PREPROCESS

from pipeline_lib.bundle_plan import finished_recipe
from pipeline_lib.bundles.build import build
from pipeline_lib.bundles.check import check
from pipeline_lib.bundles.parts import copy_part
from pipeline_lib.config.load import load_config
from pipeline_lib.config.part import recipe_part
from pipeline_lib.config.schema import CohortOptions, PreprocessOptions, RecipeOptions
from pipeline_lib.dataset.pack import pack_chunk
from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.translation import evaluate_translation
from pipeline_lib.files import read_json, read_table, write_json
from pipeline_lib.imaging.status import write_status
from pipeline_lib.inference.translation import fit_floor, infer_translation
from pipeline_lib.plan import Plan
from pipeline_lib.report.figures import figures_of
from pipeline_lib.report.methods import recipe_methods
from pipeline_lib.report.scans import write_scan_pages
from pipeline_lib.report.view import Inferred
from pipeline_lib.tasks import TASKS
from pipeline_lib.training.regression import train_regression

TRAINING = {"steps": 4, "batch_size": 2, "warmup": 1, "validate_every": 2, "checkpoint_every": 4, "augment": False}
DATA = PAIRED.model_copy(update={"size": [16, 16, 12], "voxel_size": 12.0})
RECIPE = {
    "task": "translation",
    "data": DATA.model_dump(mode="json", exclude={"fit", "slices"}),
    "regression": {"channels": [8, 8], "blocks": 1, "fold": 2, "patch": 8, "training": TRAINING},
    "sampling": {"count": 0},
    "evaluation": {"bootstrap": 20},
}


def chunk_of(folder: Path, split: str, people: str, *, without: str = "", alone: bool = False) -> Path:
    """A packed chunk of people; the target of those ``without`` was not measured."""
    source = preprocessed(folder / f"preprocessed-{split}", [(person, "A") for person in people], modality="dwi")
    rows = [
        row for row in read_table(source / "status.tsv") if row["scan"] not in {f"sub-{name}_noddi" for name in without}
    ]
    write_status(source / "status.tsv", rows)
    write_json(source / "provenance.json", {"options": PREPROCESS})
    packed = folder / "dataset" / f"{split}-dmri-0001"
    pack_chunk(source, DATA, packed, alone=alone)
    data, target, mask = (np.load(packed / f"{name}.npy") for name in ("data", "target", "mask"))
    curved = np.where(mask > 0, 0.8 * np.cos(6 * data[:, ::-1]), -1)  # which no linear fit does
    np.save(packed / "target.npy", np.where(np.isfinite(target), curved, np.nan).astype(np.float32))
    return packed


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe run to its end."""
    folder = tmp_path_factory.mktemp("results") / "translation"
    recipe = RecipeOptions.model_validate(RECIPE)
    train, validation, test = (
        chunk_of(folder, *about) for about in (("train", "abc"), ("validation", "v"), ("test", "xy"))
    )
    fit_floor(recipe, [train], folder / "floor")
    train_regression(
        recipe, [train], [validation], folder / "floor", folder / "regression", folder / "state", licence="CC0"
    )
    apply(recipe, folder, [test])
    options = json.loads(recipe_part(recipe, TASKS["translation"].stage("evaluation").reads))
    write_json(folder / "evaluation" / "provenance.json", {"options": options})
    return folder


def apply(recipe: RecipeOptions, folder: Path, chunks: list[Path]) -> None:
    """What the workflow does of the chunks."""
    inferred = [folder / "inference" / chunk.name for chunk in chunks]
    regression, floor = folder / "regression", folder / "floor"
    for chunk, out in zip(chunks, inferred, strict=True):
        infer_translation(recipe, regression, {}, regression, floor, chunk, None, out)
    evaluate_translation(recipe, regression, inferred, chunks, folder / "evaluation")


def test_the_regression_is_the_result_beside_the_linear_fit(results: Path) -> None:
    rows = [row for row in read_json(results / "evaluation" / "metrics.json") if row["name"] == "PSNR"]
    levels = {(row["role"], row["method"]) for row in rows if not row["against"]}
    assert levels == {("result", "regression"), ("floor", "linear fit of the interpolated source")}
    assert {row["against"] for row in rows} == {"", "linear fit of the interpolated source"}
    out = results / "inference" / "test-dmri-0001"
    assert not [name for name in ("draw.npy", "spread.npy", "regression.npy") if (out / name).exists()]
    assert "nothing was drawn" in " ".join(recipe_methods(RecipeOptions.model_validate(RECIPE)).paragraphs)


def test_it_ships_whole(results: Path, tmp_path: Path) -> None:
    build(results, "maps", tmp_path, data="Balls.")
    assert check(tmp_path / "maps") == []
    assert (
        set(finished_recipe(tmp_path / "maps").parts) == set(finished_recipe(results).parts) == {"regression", "floor"}
    )
    card = (tmp_path / "maps" / "card.md").read_text()
    assert "| PSNR, ICVF | regression | result |" in card
    assert "start_from" not in card, "no network of a recipe starts from a regression"


@pytest.mark.parametrize("without", ["n", "mn"])
def test_sources_alone_are_predicted_and_only_the_others_judged(results: Path, without: str, tmp_path: Path) -> None:
    build(results, "maps", tmp_path, data="Balls.")
    recipe = load_config({"recipes": {"mine": {"weights": str(tmp_path / "maps")}}}).recipes["mine"]
    for part in ("regression", "floor"):
        copy_part(tmp_path / "maps", part, tmp_path / "mine" / part)
    test = chunk_of(tmp_path, "test", "mn", without=without, alone=True)
    apply(recipe, tmp_path / "mine", [test])
    out = tmp_path / "mine" / "inference" / test.name
    assert pd.read_csv(out / "index.tsv", sep="\t")["participant"].tolist() == ["m", "n"]
    assert np.isfinite(np.load(out / "prediction.npy")).all()
    volumes = {path.name for path in (out / "nifti").glob("*.nii.gz")}
    assert volumes == {f"sub-{who}_desc-predicted_noddi.nii.gz" for who in "mn"} | {
        f"sub-{who}_desc-error_noddi.nii.gz" for who in set("mn") - set(without)
    }
    rows = [row for row in read_json(tmp_path / "mine" / "evaluation" / "metrics.json") if row["name"] == "PSNR"]
    if without == "mn":
        assert {row["value"] for row in rows} == {None}
        assert {row["note"] for row in rows} == {"no test person has a measured noddi to compare with"}
    else:
        assert {row["people"] for row in rows} == {1}
    assert [name for name, _ in figures_of(tmp_path / "mine" / "evaluation")]
    came, pages = tmp_path / "preprocessed-test", tmp_path / "pages"
    inferred = Inferred.of(out, test, tmp_path / "mine" / "evaluation")
    write_scan_pages(came, came, PreprocessOptions(), CohortOptions(), pages, [inferred])
    for who in "mn":
        text = (pages / f"sub-{who}_dwi.html").read_text()
        assert "ICVF as predicted, mine" in text
        assert ("The measured target, and what was predicted of it." in text) == (who not in without)


def test_a_source_without_its_target_is_not_learned_from(tmp_path: Path) -> None:
    packed = chunk_of(tmp_path, "train", "ab", without="b")
    assert pd.read_csv(packed / "left_out.tsv", sep="\t")["scan"].tolist() == ["sub-b_dwi"]


def test_plan_has_no_denoiser_and_asks_for_none(results: Path, tmp_path: Path) -> None:
    rows = [f"p{n}\t{kind}\tp{n}_{kind}.nii.gz" for n in range(8) for kind in ("dwi", "noddi")]
    (tmp_path / "subjects.tsv").write_text("\n".join(["participant\tmodality\tpath", *rows]) + "\n")
    cohort = {"subjects": str(tmp_path / "subjects.tsv"), "splits": str(tmp_path / "splits.tsv"), "root": str(tmp_path)}
    plan = Plan({"cohort": cohort, "recipes": {"maps": RECIPE}}, check_recipes=False)
    assert plan.trained("maps") == ("regression",)
    assert [path.name for path in plan.models()] == ["regression"]
    assert "diffusion" not in [stage.folder for stage in plan.stages("maps")]


@pytest.mark.parametrize(
    ("recipe", "fault"),
    [
        ({"task": "generation", "sampling": {"count": 0}}, "without draws a translation by a regression"),
        ({"weights": "maps", "sampling": {"count": 3}}, "maps is a regression and draws nothing; remove it"),
    ],
)
def test_draws_where_there_can_be_none_are_refused(
    recipe: dict[str, object], fault: str, results: Path, tmp_path: Path
) -> None:
    build(results, "maps", tmp_path, data="Balls.")
    if "weights" in recipe:
        recipe = {**recipe, "weights": str(tmp_path / "maps")}
    with pytest.raises(UserError, match=fault):
        load_config({"recipes": {"mine": recipe}})


def test_a_damaged_bundle_is_named(results: Path, tmp_path: Path) -> None:
    build(results, "maps", tmp_path, data="Balls.")
    shutil.rmtree(tmp_path / "maps" / "fitted")
    assert "floor" not in finished_recipe(tmp_path / "maps").parts
    with pytest.raises(UserError, match="has no floor: build the bundle again"):
        copy_part(tmp_path / "maps", "floor", tmp_path / "floor")
