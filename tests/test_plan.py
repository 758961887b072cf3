"""The plan: who is where, what each stage is given, what would be trained again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline_lib.config.load import load_config
from pipeline_lib.errors import UserError
from pipeline_lib.files import write_json
from pipeline_lib.plan import Plan

GENERATION = {"task": "generation", "data": {"size": [64, 64]}}
GENERATOR = {"fold": 4, "channels": [64, 80, 96], "blocks": 1, "attention": [False, False, True], "detail": 16}
"""The network of the bundle generator-t1."""


def sheet_of(count: int, modality: str = "T1w") -> list[str]:
    return [f"p{i:03d}\t{modality}\tp{i:03d}.nii.gz\t{'AB'[i % 2]}\t{20 + i % 60}\tF" for i in range(count)]


@pytest.fixture(autouse=True)
def _cohorts_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which the plan says of every recipe (tests/bundles/test_build.py): here it is about what else it says."""
    monkeypatch.setattr("pipeline_lib.plan.FEW_PEOPLE", 0)


@pytest.fixture
def cohort(tmp_path: Path) -> dict:
    write_sheet(tmp_path, sheet_of(12))
    return {
        "cohort": {
            "subjects": str(tmp_path / "subjects.tsv"),
            "splits": str(tmp_path / "splits.tsv"),
            "root": str(tmp_path),
            "chunk_size": 4,
        },
        "recipes": {"generation": GENERATION},
    }


def write_sheet(folder: Path, rows: list[str]) -> None:
    header = "participant\tmodality\tpath\tgroup\tage\tsex"
    (folder / "subjects.tsv").write_text("\n".join([header, *rows]) + "\n")


def test_chunks_hold_every_scan_once(cohort: dict) -> None:
    plan = Plan(cohort)
    scans = [scan.id for chunk in plan.chunks() for scan in plan.scans(chunk)]
    assert sorted(scans) == [f"sub-p{i:03d}_T1w" for i in range(12)]


def test_a_recipe_uses_only_chunks_with_its_modality(cohort: dict, tmp_path: Path) -> None:
    write_sheet(tmp_path, sheet_of(12) + [row.replace("T1w", "noddi") for row in sheet_of(6)])
    plan = Plan(cohort)
    assert {chunk.split("-")[1] for chunk in plan.chunks(recipe="generation")} == {"anat"}
    assert {chunk.split("-")[1] for chunk in plan.chunks()} == {"anat", "dmri"}


def test_new_people_leave_the_chunks_of_others_as_they_were(cohort: dict, tmp_path: Path) -> None:
    before = Plan(cohort)
    before.save_ledger()
    write_sheet(tmp_path, sheet_of(20))
    after = Plan(cohort)
    for chunk in before.chunks():
        assert after.rows_key(chunk) == before.rows_key(chunk)
    assert set(after.chunks()) > set(before.chunks())


def test_replaced_scan_reruns_its_chunk_and_no_other(cohort: dict, tmp_path: Path) -> None:
    plan = Plan(cohort)
    before = {chunk: plan.rows_key(chunk) for chunk in plan.chunks()}
    (tmp_path / "p003.nii.gz").write_bytes(b"now it exists")
    changed = [chunk for chunk in plan.chunks() if plan.rows_key(chunk) != before[chunk]]
    assert [any(scan.participant == "p003" for scan in plan.scans(chunk)) for chunk in changed] == [True]


def test_moving_the_cohort_to_another_folder_reruns_nothing(cohort: dict, tmp_path: Path) -> None:
    before = Plan(cohort)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    after = Plan({**cohort, "cohort": {**cohort["cohort"], "root": str(elsewhere)}})
    assert [after.rows_key(chunk) for chunk in after.chunks()] == [before.rows_key(chunk) for chunk in before.chunks()]


def test_a_stage_is_given_its_own_part_of_the_configuration(cohort: dict) -> None:
    before = Plan(cohort)
    changed = {**GENERATION, "sampling": {"steps": 7}, "evaluation": {"bootstrap": 9}}
    after = Plan({**cohort, "recipes": {"generation": changed}})
    same = [
        part
        for part in ("dataset", "denoiser")
        if before.options(part, "generation") == after.options(part, "generation")
    ]
    assert same == ["dataset", "denoiser"]
    assert before.options("inference", "generation") != after.options("inference", "generation")
    assert json.loads(after.options("inference", "generation"))["sampling"]["steps"] == 7
    assert "evaluation" not in json.loads(after.options("inference", "generation"))


def test_recipe_without_scans_says_what_is_missing(cohort: dict) -> None:
    cohort["recipes"] = {"generation": {**GENERATION, "data": {"modality": "FLAIR", "size": [64, 64]}}}
    with pytest.raises(UserError, match="recipe generation: no FLAIR scan in the train split"):
        Plan(cohort)


def test_unknown_training_group_names_the_nearest(cohort: dict, tmp_path: Path) -> None:
    write_sheet(tmp_path, [row.replace("\tA\t", "\tcontrol\t") for row in sheet_of(12)])
    cohort["recipes"] = {"generation": {**GENERATION, "data": {"size": [64, 64], "train_groups": ["controls"]}}}
    with pytest.raises(UserError, match=r"no scan of group 'controls'; did you mean control\?"):
        Plan(cohort)


def test_only_a_training_on_several_nodes_is_started_by_srun(cohort: dict) -> None:
    assert Plan(cohort).launch("denoiser", "generation") == ""
    denoiser = {"training": {"devices": 4, "nodes": 2}}
    cohort["recipes"] = {"generation": {**GENERATION, "denoiser": denoiser}}
    command = Plan(cohort).launch("denoiser", "generation")
    assert command == "srun --nodes 2 --ntasks-per-node 4 --kill-on-bad-exit=1"


def test_groups_that_nothing_trains_on_are_held_out_and_said(cohort: dict, tmp_path: Path) -> None:
    cohort["recipes"] = {"generation": {**GENERATION, "data": {"size": [64, 64], "train_groups": ["A"]}}}
    plan = Plan(cohort)
    splits = {scan.group: set() for scan in plan.sheet.scans}
    for row in plan.ledger.rows:
        splits[next(scan.group for scan in plan.sheet.scans if scan.id == row.scan)].add(row.split)
    assert splits == {"A": {"train", "validation", "test"}, "B": {"validation", "test"}}
    assert plan.notices() == ["6 people of groups that no recipe trains on (B) go to validation and test"]
    cohort["recipes"]["other"] = GENERATION
    before = Plan(cohort)
    assert before.notices() == [], "a recipe trains on all"
    before.save_ledger()
    del cohort["recipes"]["other"]
    stuck = Plan(cohort).notices()[1]
    assert "of them are in train" in stuck
    assert "remove their rows from the ledger" in stuck


TRANSLATION = {
    "task": "translation",
    "data": {"modality": "T1w", "target": "FLAIR", "size": [64, 64]},
    "autoencoder": {"kind": "vqgan", "channels": [8, 8]},
    "denoiser": {"channels": [8], "attention": [False]},
}


def test_pairs_of_an_older_ledger_that_are_torn_are_counted(cohort: dict, tmp_path: Path) -> None:
    write_sheet(tmp_path, [row.replace("T1w", modality) for row in sheet_of(12) for modality in ("T1w", "FLAIR")])
    cohort["recipes"] = {"t": TRANSLATION}
    plan = Plan(cohort)
    assert plan.notices() == []
    plan.save_ledger()
    ledger = tmp_path / "splits.tsv"
    torn = next(line for line in ledger.read_text().splitlines() if "FLAIR" in line)
    chunk = torn.split("\t")[3]
    ledger.write_text(ledger.read_text().replace(torn, torn.replace(chunk, chunk[:-4] + "0099")))
    (line,) = Plan(cohort).notices()
    assert line.startswith("recipe t: 1 pairs lie in two chunks")


def test_source_and_target_are_of_one_family(cohort: dict, tmp_path: Path) -> None:
    write_sheet(tmp_path, [row.replace("T1w", modality) for row in sheet_of(12) for modality in ("T1w", "noddi")])
    data = {"modality": "T1w", "target": "noddi", "size": [64, 64]}
    cohort["recipes"] = {"t": {"task": "translation", "data": data, "autoencoder": {"kind": "vqgan"}}}
    with pytest.raises(UserError, match=r"recipes\.t\.data\.target: T1w and noddi are of different families"):
        Plan(cohort)


def test_where_rows_are_left_out_their_faults_come_before_what_recipes_lack(cohort: dict, tmp_path: Path) -> None:
    write_sheet(
        tmp_path,
        [row.replace("T1w", "t1w") for row in sheet_of(12)] + [row.replace("T1w", "FLAIR") for row in sheet_of(4)],
    )
    with pytest.raises(UserError) as raised:
        Plan(cohort)
    first, *others = str(raised.value).splitlines()
    assert "12 rows, the first row 2, column modality: unknown modality 't1w'; did you mean T1w?" in first
    assert len(others) == 3


def test_a_cohort_is_planned_without_recipes_and_without_validation_people(cohort: dict, tmp_path: Path) -> None:
    write_sheet(tmp_path, [row.replace("\tB\t", "\tA\t") for row in sheet_of(2)])
    plan = Plan(cohort, check_recipes=False)
    assert len(plan.chunks()) == 2
    with pytest.raises(UserError, match="no T1w scan in the validation split"):
        plan.check_recipes()
    assert Plan({"cohort": cohort["cohort"]}, check_recipes=False).chunks() == plan.chunks()


def test_strict_makes_an_excluded_row_an_error(cohort: dict, tmp_path: Path) -> None:
    write_sheet(tmp_path, [*sheet_of(12), "../p\tT1w\tx.nii.gz\tA\t30\tF"])
    assert len(Plan(cohort).notices()) == 1
    with pytest.raises(UserError, match="row 14"):
        Plan({**cohort, "cohort": {**cohort["cohort"], "strict": True}})


def test_planning_imports_nothing_heavy(repository: Path) -> None:
    program = "import sys, pipeline_lib.retraining; print([m for m in ('torch', 'numpy', 'pandas', 'nibabel') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_translation_trains_what_its_way_needs_and_nothing_again_for_what_changes_no_number(
    cohort: dict, tmp_path: Path
) -> None:
    write_sheet(tmp_path, [row.replace("T1w", modality) for row in sheet_of(12) for modality in ("T1w", "FLAIR")])
    data = {"modality": "T1w", "target": "FLAIR", "size": [64, 64], "target_channels": 1}
    denoiser = {"channels": [8], "attention": [False]}
    ways = {
        ("regression", "denoiser"): {"regression": {"channels": [8, 8]}},
        ("autoencoder", "denoiser"): {"autoencoder": {"kind": "vqgan", "channels": [8, 8]}},
        ("autoencoder", "regression", "denoiser"): {"autoencoder": {"channels": [8, 8]}, "regression": {}},
    }
    for trained, networks in ways.items():
        cohort["recipes"] = {"t": {"task": "translation", "data": data, "denoiser": denoiser, **networks}}
        plan = Plan(cohort)
        assert plan.trained("t") == trained
        stages = {stage.name for stage in plan.stages("t")}
        assert ("regression" in stages, "latents" in stages) == ("regression" in trained, "autoencoder" in trained)
        cohort["recipes"]["t"] |= {
            "denoiser": {**denoiser, "checkpointing": True},
            "sampling": {"checkpoints": 9},
        }
        other = Plan(cohort)
        for stage in stages:
            assert other.options(stage, "t") == plan.options(stage, "t")
        assert json.loads(other.settings("denoiser", "t"))["denoiser"]["checkpointing"] is True


@pytest.mark.parametrize(
    ("denoiser", "sampling", "said"),
    [
        ({"condition": ["site"]}, {}, "denoiser.condition: site: of .* scans to train on none has one"),
        ({"condition": ["sex"]}, {}, "denoiser.condition: sex: of .* scans to train on all that have one have F"),
        ({"condition": ["group"]}, {"conditions": {"group": ["C"]}}, "conditions.group: 'C' is in no scan to train on"),
        ({"condition": ["age"]}, {"conditions": {"age": ["old"]}}, "conditions.age: 'old' is no number"),
    ],
)
def test_what_no_training_scan_has_is_refused_before_anything_runs(
    cohort: dict, denoiser: dict, sampling: dict, said: str
) -> None:
    recipe = GENERATION | {"denoiser": denoiser, "sampling": sampling}
    with pytest.raises(UserError, match=said):
        Plan(cohort | {"recipes": {"generation": recipe}})
    fine = {"condition": ["group", "age", "slice"]}, {"conditions": {"group": ["A"], "age": [20, 70.5]}}
    recipe = GENERATION | {"denoiser": fine[0], "sampling": fine[1]}
    assert Plan(cohort | {"recipes": {"generation": recipe}}).recipes


@pytest.mark.parametrize("place", ["/dev/zero", "pipe", "."])
def test_a_ledger_that_is_no_file_is_refused_and_never_waited_for(cohort: dict, tmp_path: Path, place: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    cohort["cohort"]["splits"] = str(tmp_path / place)
    with pytest.raises(UserError, match="is no file; name the ledger"):
        Plan(cohort)


def test_what_the_same_reaches_from_nothing_is_looked_for_among_the_recipes(cohort: dict) -> None:
    training = {"steps": 30, "learning_rate": 1e-4}
    same = {**GENERATION, "diffusion": {"prediction": "x0"}}
    more = {**same, "denoiser": {**GENERATOR, "start_from": "generator-t1", "training": training}}
    alone = {**same, "denoiser": {**GENERATOR, "training": {**training, "learning_rate": 1e-3, "warmup": 7}}}
    longer = {**same, "denoiser": {**GENERATOR, "training": {**training, "steps": 60}}}
    plan = Plan({**cohort, "recipes": {"longer": longer, "more": more, "alone": alone}})
    assert {name: plan.from_nothing(name) for name in plan.recipes} == {"longer": "", "more": "alone", "alone": ""}
    assert Plan({**cohort, "recipes": {"more": more, "longer": longer}}).from_nothing("more") == ""
    twice = {**more, "denoiser": {**more["denoiser"], "start_from": "alone"}}
    assert Plan({**cohort, "recipes": {"twice": twice, "alone": alone}}).from_nothing("twice") == "", (
        "it has its steps on top"
    )


def test_a_denoiser_starts_from_that_of_another_recipe_of_the_configuration(cohort: dict) -> None:
    training = {"steps": 30, "learning_rate": 1e-3}
    fine = {**GENERATION, "denoiser": {"start_from": "coarse"}}
    plan = Plan({**cohort, "recipes": {"fine": fine, "coarse": {**GENERATION, "denoiser": {"training": training}}}})
    assert {name: plan.earlier(name) for name in plan.recipes} == {"fine": "coarse", "coarse": ""}
    options = json.loads(plan.options("denoiser", "fine"))["denoiser"]
    assert options["start_from"] is None, "it comes as an input"
    assert options["training"]["learning_rate"] == pytest.approx(1e-3 / 5)
    assert options["training"]["warmup"] == 100
    assert json.loads(plan.options("report", "fine"))["recipe"]["denoiser"]["start_from"] == "the recipe coarse"


def test_rates_are_a_fifth_of_the_earlier_recipes_however_written_along_a_chain(cohort: dict) -> None:
    recipes = {
        "last": {**GENERATION, "denoiser": {"start_from": "mid"}},
        "mid": {**GENERATION, "denoiser": {"start_from": "first"}},
        "first": {**GENERATION, "denoiser": {"training": {"learning_rate": "1e-3"}}},  # as PyYAML reads 1e-3
    }
    rates = {
        name: recipe.denoiser.training.learning_rate
        for name, recipe in Plan({**cohort, "recipes": recipes}).recipes.items()
    }
    assert rates == pytest.approx({"last": 4e-5, "mid": 2e-4, "first": 1e-3})
    assert list(rates) == ["last", "mid", "first"]


@pytest.mark.parametrize(
    ("here", "said"),
    [
        ({"fold": 2}, r"one has denoiser.fold 1 \(here 2\); they must be alike"),
        ({"detail": 0}, r"one has denoiser.detail 4 \(here 0\)"),
    ],
)
def test_a_denoiser_that_cannot_go_on_from_another_recipes_is_refused_before_anything_is_trained(
    cohort: dict, here: dict, said: str
) -> None:
    one = {**GENERATION, "denoiser": {"detail": 4}}
    other = {**GENERATION, "denoiser": {"detail": 4, "start_from": "one", **here}}
    with pytest.raises(UserError, match=said):
        Plan({**cohort, "recipes": {"one": one, "other": other}})
    with pytest.raises(UserError, match="or the recipe of this configuration that is meant: one"):
        Plan({**cohort, "recipes": {"one": one, "other": {**GENERATION, "denoiser": {"start_from": "oné"}}}})
    finer = {**GENERATION, "data": {"size": [128, 128]}, "denoiser": {"start_from": "two", "detail": 4}}
    assert Plan({**cohort, "recipes": {"two": GENERATION, "finer": finer}}).recipes, "detail may come later"


ANOMALY = {
    "task": "anomaly",
    "data": {"size": [112, 96]},
    "diffusion": {"prediction": "x0"},
    "denoiser": {"fold": 4, "channels": [32, 48, 64], "blocks": 1, "attention": [False, False, True]},
}
LATENT = {
    "task": "synthesis",
    "data": {"size": [64, 64]},
    "autoencoder": {"latent_channels": 8},
    "diffusion": {"prediction": "x0"},
    "denoiser": GENERATOR,
}


@pytest.mark.parametrize(
    ("recipe", "start_from", "said"),
    [
        (
            {**GENERATION, "denoiser": {**GENERATOR, "fold": 2, "detail": 0}},
            "generator-t1",
            r"generator-t1 has diffusion.prediction x0 \(here eps\), denoiser.fold 4 \(here 2\), denoiser.detail 16 \(here 0\); they must be alike",
        ),
        (ANOMALY, "anomaly-t1", r"anomaly-t1 has .*denoiser.synthetic_lesions set \(here none\); they must be alike"),
        (LATENT, "generator-t1", r"generator-t1 has input channels 1 \(here 8\), autoencoder none \(here set\); they must be alike"),
        (GENERATION, "ventricles-t1", r"ventricles-t1 is no denoiser \(its role: segmenter\); name one, or .*"),
        (GENERATION, "autoencoder-t1", r"autoencoder-t1 is no denoiser \(its role: image\); name one, or .*"),
    ],
)  # fmt: skip
def test_a_denoiser_that_cannot_go_on_from_a_bundle_is_refused_with_all_that_must_be_set(
    cohort: dict, recipe: dict, start_from: str, said: str
) -> None:
    mine = {**recipe, "denoiser": {**recipe.get("denoiser", {}), "start_from": start_from}}
    with pytest.raises(UserError, match=f"^configuration: recipes.mine.denoiser.start_from: {said}$"):
        Plan({**cohort, "recipes": {"mine": mine}})


def plan_alone(folder: Path, plan: dict) -> dict:
    """A recipe of latents that starts from weights of which there is a plan."""
    write_json(folder / "there" / "model.json", {"format": 1, "weights_sha256": "0" * 64, **plan})
    denoiser = {"fold": 4, "start_from": str(folder / "there")}
    return {**LATENT, "data": {"size": [64, 64], "modality": "image", "channels": 3}, "denoiser": denoiser}


def test_a_denoiser_of_latents_goes_on_from_one_of_as_many_channels_whatever_its_images(tmp_path: Path) -> None:
    architecture = {"dimensions": 2, "in_channels": 8, "out_channels": 8, "fold": 4}
    recipe = plan_alone(tmp_path, {"architecture": architecture, "scale": [1.0] * 8, "data": {"channels": 1}})
    assert load_config({"recipes": {"mine": recipe}}).recipes


@pytest.mark.parametrize("odd", [None, [1], "none"])
def test_a_plan_with_odd_sections_says_nothing_of_its_weights(tmp_path: Path, odd: object) -> None:
    recipe = plan_alone(tmp_path, {"architecture": odd, "diffusion": odd, "options": odd})
    assert load_config({"recipes": {"mine": recipe}}).recipes


def test_a_recipe_that_is_trained_first_may_be_written_as_a_path() -> None:
    fine = {**GENERATION, "denoiser": {"start_from": "./coarse"}}
    coarse = {**GENERATION, "denoiser": {"training": {"learning_rate": 1e-2}}}
    recipes = load_config({"recipes": {"fine": fine, "coarse": coarse}}).recipes
    assert recipes["fine"].denoiser.training.learning_rate == pytest.approx(2e-3)


@pytest.mark.parametrize(
    ("starts", "said"),
    [
        ({"one": "one"}, "recipes.one.denoiser.start_from: one starts from one; one of them must start from elsewhere"),
        (
            {"one": "two", "two": "one"},
            "recipes.two.denoiser.start_from: two starts from one starts from two; one of them",
        ),
    ],
)
def test_recipes_that_start_from_each_other_are_refused(cohort: dict, starts: dict[str, str], said: str) -> None:
    recipes = {name: {**GENERATION, "denoiser": {"start_from": start}} for name, start in starts.items()}
    with pytest.raises(UserError, match=said):
        Plan({**cohort, "recipes": recipes})


def test_a_recipe_that_trains_no_denoiser_gives_none_to_start_from(cohort: dict, tmp_path: Path) -> None:
    write_sheet(tmp_path, [row.replace("T1w", modality) for row in sheet_of(12) for modality in ("dwi", "noddi")])
    regressed = {
        "task": "translation",
        "data": {"modality": "dwi", "target": "noddi"},
        "regression": {},
        "autoencoder": None,
    }
    regression = {**regressed, "sampling": {"count": 0}}
    more = {**regressed, "denoiser": {"start_from": "alone"}}
    with pytest.raises(UserError, match=r"recipes.more.denoiser.start_from: alone trains no denoiser"):
        Plan({**cohort, "recipes": {"alone": regression, "more": more}})
    frozen = {"weights": "generator-t1"}
    with pytest.raises(
        UserError, match=r"start_from: done is not trained here; name what it is applied with: .*generator-t1"
    ):
        Plan({**cohort, "recipes": {"done": frozen, "more": {**GENERATION, "denoiser": {"start_from": "done"}}}})


BOTH = {"task": "anomaly", "data": {"modality": ["T1w", "FLAIR"], "size": [64, 64]}}


def test_a_person_with_two_contrasts_gives_both_to_one_split(cohort: dict, tmp_path: Path) -> None:
    write_sheet(tmp_path, [row.replace("T1w", modality) for row in sheet_of(12) for modality in ("T1w", "FLAIR")])
    cohort["recipes"] = {"both": {**BOTH, "denoiser": {"condition": "modality"}}, "one": {"task": "anomaly"}}
    plan = Plan(cohort)
    places: dict[str, set[str]] = {}
    for chunk in plan.chunks(recipe="both"):
        for scan in plan.scans(chunk):
            places.setdefault(scan.participant, set()).add(chunk.split("-")[0])
    assert all(len(splits) == 1 for splits in places.values())
    assert plan.modalities("both") == {"T1w", "FLAIR"}
    assert plan.family("both") == "anat"
    alone = Plan({**cohort, "recipes": {"one": {"task": "anomaly"}}})
    assert plan.options("denoiser", "one") == alone.options("denoiser", "one")


def test_a_contrast_that_is_nowhere_is_named_and_one_alone_says_nothing(cohort: dict, tmp_path: Path) -> None:
    cohort["recipes"] = {"both": BOTH}
    with pytest.raises(UserError, match=r"recipes.both.data.modality: no FLAIR scan in the train split"):
        Plan(cohort)
    cohort["recipes"] = {"one": {"task": "anomaly", "denoiser": {"condition": "modality"}}}
    with pytest.raises(UserError, match="condition: modality: of .* all that have one have T1w"):
        Plan(cohort)


def test_regions_that_are_not_there_are_said_before_anything_runs_and_others_judge_again(
    cohort: dict, tmp_path: Path
) -> None:
    write_sheet(tmp_path, [row.replace("T1w", modality) for row in sheet_of(12) for modality in ("T1w", "FLAIR")])
    atlas = tmp_path / "atlas.nii.gz"

    def judged_in(path: Path) -> str:
        recipe = {**TRANSLATION, "evaluation": {"regions": str(path)}}
        return Plan({**cohort, "recipes": {"t": recipe}}).regions("t")

    with pytest.raises(UserError, match=r"evaluation.regions: .*atlas.nii.gz does not exist"):
        judged_in(atlas)
    atlas.touch()
    alone = judged_in(atlas)
    (tmp_path / "atlas.tsv").write_text("index\tname\n")
    assert judged_in(atlas) != alone
    with pytest.raises(UserError, match="nowhere"):
        judged_in(tmp_path / "nowhere" / "{participant}.nii.gz")


def test_an_atlas_that_is_not_there_is_said_before_anything_runs(cohort: dict, tmp_path: Path) -> None:
    image = tmp_path / "aal_dseg.nii.gz"
    cohort["report"] = {"atlas": str(image)}
    with pytest.raises(UserError, match=r"report.atlas: .*aal_dseg.nii.gz is not there; .* pipeline_lib.report atlas"):
        Plan(cohort)
    image.touch()
    with pytest.raises(UserError, match="aal_dseg.tsv is not there"):
        Plan(cohort)
    image.with_name("aal_dseg.tsv").touch()
    assert Plan(cohort).atlas() == [str(image), str(image.with_name("aal_dseg.tsv"))]
    assert "atlas" not in Plan(cohort).options("report_scans")
