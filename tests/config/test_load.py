"""A configuration is either valid, or every fault is named with its key, value and what is allowed."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from pipeline_lib.config.describe import describe_options
from pipeline_lib.config.load import config_schema, load_config, read_config
from pipeline_lib.config.schema import Config, Options, RecipeOptions
from pipeline_lib.errors import UserError


@pytest.fixture
def demo(repository: Path) -> dict:
    return yaml.safe_load((repository / "config" / "config.yaml").read_text())


def test_demo_configuration_is_valid(demo: dict) -> None:
    assert set(load_config(demo).recipes) == {"anomaly", "synthesis", "generation", "translation"}


@pytest.mark.parametrize(
    "name", ["anomaly", "anomaly_recommended", "synthesis", "generation", "translation", "translation_recommended"]
)
def test_full_scale_recipe_may_be_named_by_its_file(repository: Path, name: str) -> None:
    config = load_config({"recipes": {name: f"config/recipes/{name}.yaml"}}, repository)
    assert config.recipes[name].task == name.partition("_")[0]


def test_every_configuration_file_is_valid(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    for path in (repository / "config").glob("*.yaml"):
        read_config(path)


@pytest.mark.parametrize(
    ("where", "value", "expected"),
    [
        (("cohort", "chunksize"), 5, "cohort.chunksize: unknown key; did you mean chunk_size?"),
        (("recipes", "anomaly", "diffusion", "schedule"), "cosin", "'cosin' is not one of"),
        (("recipes", "anomaly", "diffusion", "schedule"), "cosin", "did you mean cosine?"),
        (
            ("recipes", "anomaly", "denoiser", "training", "steps"),
            0,
            "denoiser.training: steps is 0 and no epochs are given",
        ),
        (("split", "train"), 0.9, "split: train + validation + test is 1.3"),
        (("recipes", "anomaly", "denoiser", "fold"), 3, "fold: 3 is not one of"),
        (("recipes", "anomaly", "diffusion", "loss_weight"), "min-snr", "did you mean min_snr?"),
        (
            ("recipes", "translation", "diffusion", "loss_weight_cap"),
            5,
            "read only where diffusion.loss_weight is v or min_snr",
        ),
        (("recipes", "anomaly", "diffusion", "shift"), "automatic", "shift"),
        (("recipes", "translation", "data", "target"), None, "translation needs data.target"),
        (("recipes", "anomaly", "task"), "anomly", "did you mean anomaly?"),
        (("recipes", "anomaly", "denoiser", "training", "stepss"), 1, "did you mean steps?"),
    ],
)
def test_fault_is_named_with_key_value_and_nearest_name(demo: dict, where: tuple, value: object, expected: str) -> None:
    values = copy.deepcopy(demo)
    place = values
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    with pytest.raises(UserError) as caught:
        load_config(values)
    assert expected in str(caught.value)
    assert ".".join(where[:2]) in str(caught.value) or where[0] in str(caught.value)


@pytest.mark.parametrize("shift", ["auto", -2.5, 0])
def test_the_schedule_is_shifted_from_the_grid_or_by_a_number(demo: dict, shift: object) -> None:
    demo["recipes"]["anomaly"]["diffusion"]["shift"] = shift
    assert load_config(demo).recipes["anomaly"].diffusion.shift == shift


def test_all_faults_are_reported_at_once(demo: dict) -> None:
    demo["cohort"]["nme"] = "x"
    demo["split"]["method"] = "random"
    with pytest.raises(UserError) as caught:
        load_config(demo)
    assert "cohort.nme" in str(caught.value)
    assert "split.method" in str(caught.value)


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ({"denoiser": {"synthetic_lesions": {}}}, "synthetic_lesions needs task anomaly and diffusion.prediction x0"),
        ({"evaluation": {"score": {"weights": {"segmentation": 1}}}}, "segmentation needs denoiser.synthetic_lesions"),
        ({"evaluation": {"score": {"draws": 2}}}, "draws: read only where evaluation.score.levels is set"),
        ({"sampling": {"start": 0.3}, "evaluation": {"score": {"levels": [0.9]}}}, "sampling.start: read only where"),
    ],
)
def test_a_score_that_cannot_be_made_is_refused(recipe: dict, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        load_config({"recipes": {"anomaly": {"task": "anomaly", **recipe}}})


def test_zero_snr_with_eps_is_refused(demo: dict) -> None:
    demo["recipes"]["anomaly"]["diffusion"] |= {"zero_terminal_snr": True, "prediction": "eps"}
    with pytest.raises(UserError, match="needs prediction v or x0"):
        load_config(demo)


@pytest.mark.parametrize(
    ("denoiser", "sampling", "expected"),
    [
        ({"condition": ["age", "age"]}, {}, "age is there twice"),
        ({"condition": ["grp"]}, {}, r"grp is not known; write any of group, age, sex, site, slice, education"),
        (
            {"condition": ["age"], "drop_condition": 0},
            {"guidance": 2},
            r"guidance 2 compares .* denoiser\.drop_condition is 0",
        ),
        ({"condition": ["age"]}, {"conditions": {"group": ["A"]}}, "group: the model is not told it"),
        ({"condition": ["age"]}, {"conditions": {"age": []}}, "age: the list is empty"),
    ],
)
def test_conditions_that_cannot_be_are_named(denoiser: dict, sampling: dict, expected: str) -> None:
    recipe = {"task": "generation", "denoiser": denoiser, "sampling": sampling}
    with pytest.raises(UserError, match=expected):
        load_config({"cohort": {"covariates": {"education": "number"}}, "recipes": {"one": recipe}})


@pytest.mark.parametrize(("written", "told"), [("group", ["group"]), ("none", []), (None, []), (["group"], ["group"])])
def test_one_condition_may_be_written_without_brackets(written: object, told: list[str]) -> None:
    recipe = {"task": "generation", "denoiser": {"condition": written}}
    assert load_config({"recipes": {"one": recipe}}).recipes["one"].denoiser.condition == told


def test_columns_and_covariates_may_be_conditions_and_a_covariate_no_other_column() -> None:
    told = ["group", "age", "sex", "site", "slice", "education"]
    recipe = {"task": "generation", "denoiser": {"condition": told}, "sampling": {"conditions": {"age": [20, 70]}}}
    config = load_config({"cohort": {"covariates": {"education": "number"}}, "recipes": {"one": recipe}})
    assert config.recipes["one"].denoiser.condition == told
    volumes = recipe | {"data": {"dimensions": 3, "size": [32, 32, 32]}}
    with pytest.raises(UserError, match="volumes have none"):
        load_config({"cohort": {"covariates": {"education": "number"}}, "recipes": {"one": volumes}})
    with pytest.raises(UserError, match=r"cohort\.covariates: slice: the name is taken"):
        load_config({"cohort": {"covariates": {"slice": "number"}}})


def test_missing_recipe_file_is_named() -> None:
    with pytest.raises(UserError, match=r"recipes\.anomaly: cannot read nowhere\.yaml"):
        load_config({"recipes": {"anomaly": "nowhere.yaml"}})


def test_committed_schema_is_the_schema_of_the_types(repository: Path) -> None:
    config = repository / "config"
    assert (config / "schema.json").read_text() == config_schema(), "run make schema"
    assert (config / "recipe.schema.json").read_text() == config_schema(RecipeOptions), "run make schema"


def test_reference_page_is_that_of_the_types(repository: Path) -> None:
    assert (repository / "docs" / "configuration.md").read_text() == describe_options(), "run make schema"


@pytest.mark.parametrize("model", [Config, RecipeOptions])
def test_every_option_says_what_it_means(model: type[Options]) -> None:
    for name, field in model.model_fields.items():
        assert field.description, f"{model.__name__}.{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, Options):
            test_every_option_says_what_it_means(field.annotation)
