"""A configuration is either valid, or every fault is named with its key, value and what is allowed."""

from __future__ import annotations

import copy
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import pipeline_lib
from pipeline_lib.config.describe import describe_options
from pipeline_lib.config.load import config_schema, load_config, read_config
from pipeline_lib.config.part import options_of, read_part, recipe_part
from pipeline_lib.config.schema import BRAIN_MM, Config, Options, RecipeOptions
from pipeline_lib.errors import UserError
from pipeline_lib.imaging.registration import template
from pipeline_lib.models.autoencoder import KLAutoencoder
from pipeline_lib.models.unet import UNet
from pipeline_lib.models.vqgan import VQGAN
from pipeline_lib.tasks import TASKS


@pytest.fixture
def demo(repository: Path) -> dict:
    return yaml.safe_load((repository / "config" / "config.yaml").read_text())


def test_demo_configuration_is_valid(demo: dict) -> None:
    assert set(load_config(demo).recipes) == {"anomaly", "synthesis", "generation", "translation"}


@pytest.mark.parametrize(
    "name",
    [
        "anomaly",
        "anomaly_recommended",
        "synthesis",
        "generation",
        "generation_pictures",
        "translation",
        "translation_recommended",
    ],
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
            ("recipes", "translation", "diffusion"),
            {"loss_weight_cap": 5},
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
        (
            {"condition": ["grp"]},
            {},
            r"grp is not known; write any of group, age, sex, site, slice, modality, education",
        ),
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


def keys(model: type[Options], where: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        yield (*where, name)
        if inner := options_of(field.annotation):
            yield from keys(inner, (*where, name))


KEYS = [*keys(Config), *(("recipes", task, *key) for task in TASKS for key in keys(RecipeOptions))]
ODD = [
    None, True, False, "", "x", "\0", "\ud800", "a\nb", "~", "~nobody/x", "$NOWHERE", "/dev/zero", "/dev/null/x", "/", ".",
    "index", "x" * 5000, 0, -1, 1, 2, 3, 7, 97, 10**12, 10**400, 1e-300, 1e-8, 0.5, 1e300, math.inf, math.nan,
    [], [[]], ["x"], [0], [7, 13], [1] * 11, [2, 1], [1e300, 1e300, 1e300], {}, {"x": 1}, {"": {}}, {1: 2}, {"group": ["x"]},
]  # fmt: skip
odd = st.one_of(st.sampled_from(ODD), st.floats(), st.integers(), st.text(max_size=20))


@settings(max_examples=150)
@given(changes=st.lists(st.tuples(st.sampled_from(KEYS), odd), min_size=1, max_size=2))
def test_no_value_makes_a_configuration_fall_and_what_is_accepted_can_be_built(
    repository: Path, changes: list[tuple[tuple[str, ...], object]]
) -> None:
    values = yaml.safe_load((repository / "config" / "config.yaml").read_text())
    changed = {key[1] for key, _ in changes if key[0] == "recipes" and len(key) > 1}
    for (*above, last), value in changes:
        part = values
        for key in above:
            part = part.setdefault(key, {}) if isinstance(part, dict) else {}
        if isinstance(part, dict):
            part[last] = value
    recipes: dict[str, RecipeOptions] = {}
    said = "configuration: valid"
    try:
        recipes = load_config(values, repository).recipes
    except UserError as error:
        said = str(error)
    assert said.startswith("configuration: ")
    assert all(0 < len(line) < 20_000 for line in said.splitlines())
    for name in changed & recipes.keys():
        build(recipes[name])


def build(recipe: RecipeOptions) -> None:
    """The networks of a recipe, without memory for their weights."""
    network, coder, data = recipe.denoiser, recipe.autoencoder, recipe.data
    common = {"dimensions": data.dimensions}
    with torch.device("meta"):
        UNet(
            **common, in_channels=data.channels, out_channels=data.channels, fold=network.fold, channels=network.channels,
            blocks=network.blocks, attention=network.attention, head_channels=network.head_channels,
            conditions=[0] * len(network.condition), dropout=network.dropout,
        )  # fmt: skip
        if coder is None:
            return
        common |= {"in_channels": data.channels, "channels": coder.channels, "blocks": coder.blocks, "fold": coder.fold}
        if coder.kind == "vae":
            KLAutoencoder(**common, latent_channels=coder.latent_channels)
        else:
            VQGAN(**common, latent_channels=coder.latent_channels, codes=coder.codes)


ODD_YAML = [
    "cohort: {name: 2024-13-45}", "a: !!int b", "a: !!timestamp b", "a: !!python/object/apply:os.system [ls]", "? [a]\n: b",
    "cohort: &a {name: *a}", "cohort: {name: \"\\uD800\"}", "cohort: {chunk_size: " + "9" * 5000 + "}", "[" * 2000,
    "a: &a [1, 2]\nb: &b [*a, *a]\ncohort: {name: [*b, *b]}", "---\n---\n", "\t", "cohort: !!set {a}",
]  # fmt: skip


@given(
    content=st.one_of(
        st.binary(max_size=100),
        st.text("ab:{}[]&*!?-|>%@#'\", \n0.1~\0\x85\u2028", max_size=60).map(lambda text: f"cohort: {text}".encode()),
        st.sampled_from(ODD_YAML).map(str.encode),
    )
)
def test_no_bytes_make_a_configuration_fall(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "c.yaml")
        path.write_bytes(content)
        said = "configuration: valid"
        try:
            read_config(path)
        except UserError as error:
            said = str(error)
        assert said.startswith("configuration: ")


@pytest.mark.parametrize("place", ["/dev/zero", "pipe", ".", "a\0b", "nowhere", "x" * 300])
def test_what_is_no_file_is_refused_and_never_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    for read in (lambda: read_config(place), lambda: load_config({"recipes": {"one": place}})):
        with pytest.raises(UserError, match="^configuration: ") as refusal:
            read()
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("results", "said"),
    [
        (".", "holds the project itself"),
        ("/", "holds the project itself"),
        (str(Path(pipeline_lib.__file__).parent), "where the code lies"),
        (str(Path(pipeline_lib.__file__).parents[1] / "workflow" / "results"), "where the code lies"),
        ("config", r"holds the sheet \(config/subjects.tsv\)"),
        ("state", "holds finished scans"),
        ("scans", "is the folder of scans"),
        ("file", "is a file"),
        ("file/results", "is below a file"),
        ("~nobody-of-this-name/results", "home folder of somebody"),
        ("a;b", "has ;"),
        ("x" * 300, "File name too long"),
    ],
)
def test_results_never_lie_where_something_else_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, results: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(UserError, match=said):
        load_config({"cohort": {"results": results, "root": "scans"}})


def test_slices_beyond_the_brain_are_refused(demo: dict) -> None:
    demo["recipes"]["anomaly"]["data"]["slices"] = {"from_mm": 400, "to_mm": 450}
    with pytest.raises(UserError, match="no brain lies between 400 and 450 mm"):
        load_config(demo)
    load_config(demo | {"preprocess": {"space": "native"}})


def test_the_brain_is_where_the_template_has_it() -> None:
    reference, brain = template()
    corners = brain.nonzero()
    for axis, plane in enumerate(("sagittal", "coronal", "axial")):
        ends = reference.affine[axis, axis] * corners[axis] + reference.affine[axis, 3]
        assert BRAIN_MM[plane] == pytest.approx((ends.min(), ends.max()), abs=2)


def recipe_of(modality: object, **more: object) -> RecipeOptions:
    return RecipeOptions.model_validate({"task": "anomaly", **more, "data": {"modality": modality}})


def test_several_modalities_are_one_name_whatever_their_order() -> None:
    both = recipe_of(["T1w", "FLAIR"])
    assert both.data.modalities == ("FLAIR", "T1w")
    assert both == recipe_of("T1w+FLAIR") == recipe_of(["T1w+FLAIR"])
    assert both == recipe_of(["FLAIR", "T1w"]) == RecipeOptions.model_validate(both.model_dump())
    assert read_part(recipe_part(both, ("data",))).data.modalities == ("FLAIR", "T1w")


def test_one_modality_in_a_list_is_the_same_as_without() -> None:
    assert recipe_part(recipe_of(["T1w"]), ("data",)) == recipe_part(recipe_of("T1w"), ("data",))
    assert '"modality": "T1w"' in recipe_part(recipe_of("T1w"), ("data",)), "as every finished stage was given it"


@pytest.mark.parametrize(
    ("modality", "task", "expected"),
    [
        (["T1w", "dwi"], "anomaly", "dwi cannot be one of several modalities; those may be T1w, T2w, FLAIR, PD"),
        (["T1w", "image"], "generation", "image cannot be one of several modalities"),
        (["T1w", "T1w"], "anomaly", "T1w is there twice"),
        ("T1w+dwi", "anomaly", "dwi cannot be one of several modalities"),
        ("T1w+T1w", "anomaly", "T1w is there twice"),
        ("T1w+", "anomaly", "an empty name cannot be one of several modalities"),
        (["T1w+dwi"], "anomaly", "dwi cannot be one of several modalities"),
        ([], "anomaly", "data.modality"),
        (["T1w", "FLAIR"], "translation", "predicts data.target from one modality"),
    ],
)
def test_modalities_that_one_model_cannot_see_together_are_refused(
    modality: list[str] | str, task: str, expected: str
) -> None:
    data = {"modality": modality, **({"target": "T2w"} if task == "translation" else {})}
    more = {"regression": {}} if task == "translation" else {}
    with pytest.raises(UserError, match=expected):
        load_config({"recipes": {"one": {"task": task, "data": data, **more}}})


def test_a_codebook_that_is_never_reached_is_refused(demo: dict) -> None:
    demo["recipes"]["synthesis"]["autoencoder"] = {"kind": "vqgan", "codebook_start": 10, "training": {"steps": 10}}
    with pytest.raises(UserError, match="codebook_start 10 is not reached in training.steps 10"):
        load_config(demo)
    demo["recipes"]["synthesis"]["autoencoder"]["training"] = {"steps": 100, "patience": 2}
    with pytest.raises(UserError, match="one without a codebook; set patience: 0"):
        load_config(demo)
