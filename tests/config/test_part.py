"""A stage receives what it reads and nothing else; what nothing reads is refused."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline_lib.config.load import load_config
from pipeline_lib.config.part import read_part, recipe_part
from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.errors import UserError
from pipeline_lib.tasks import TASKS

RECIPE: dict[str, Any] = {
    "task": "synthesis",
    "data": {"size": [32, 32]},
    "autoencoder": {"channels": [8, 8]},
    "denoiser": {"channels": [8, 8], "attention": [False, True], "head_channels": 8},
    "sampling": {"steps": 7},
}


def test_a_part_holds_the_keys_asked_for() -> None:
    recipe = RecipeOptions.model_validate(RECIPE)
    part = read_part(recipe_part(recipe, ("task", "data.size", "sampling", "autoencoder")))
    assert part.task == "synthesis"
    assert part.data.size == [32, 32]
    assert part.sampling == recipe.sampling
    assert part.autoencoder == recipe.autoencoder


@pytest.mark.filterwarnings("error")
def test_a_part_is_of_the_types_of_its_recipe() -> None:
    """JSON knows no tuples; pydantic warns of a list in the place of one, in the log of every training."""
    recipe = RecipeOptions.model_validate({**RECIPE, "denoiser": {"training": {"betas": [0.9, 0.99]}}})
    part = read_part(recipe_part(recipe, ("task", "denoiser")))
    assert part.denoiser.training.betas == (0.9, 0.99)
    assert part.denoiser.model_dump() == recipe.denoiser.model_dump()


def test_reading_beyond_a_part_is_an_error_and_no_default() -> None:
    part = read_part(recipe_part(RecipeOptions.model_validate(RECIPE), ("task", "data.size", "sampling.steps")))
    for read in (lambda: part.evaluation, lambda: part.data.modality, lambda: part.sampling.seed):
        with pytest.raises(AttributeError):
            read()


def test_the_same_options_make_the_same_text() -> None:
    recipe = RecipeOptions.model_validate(RECIPE)
    turned = RecipeOptions.model_validate({key: RECIPE[key] for key in reversed(RECIPE)})
    assert recipe_part(recipe, ("data", "sampling")) == recipe_part(turned, ("sampling", "data"))


def config(changes: dict[str, Any], **recipe: Any) -> dict[str, Any]:
    merged = {**RECIPE, **recipe}
    for key, value in changes.items():
        section, _, name = key.rpartition(".")
        place = merged
        for step in section.split(".") if section else []:
            place[step] = dict(place.get(step, {}))
            place = place[step]
        place[name] = value
    return {"recipes": {"one": {key: value for key, value in merged.items() if value is not None}}}


@pytest.mark.parametrize(
    ("changes", "recipe", "said"),
    [
        ({"sampling.start": 0.5}, {}, "sampling.start: nothing in synthesis reads it; of sampling it reads"),
        ({"evaluation.smoothing_mm": 2}, {}, "evaluation.smoothing_mm: nothing in synthesis reads it"),
        ({"data.target": "noddi"}, {}, "data.target: read only where the task translates"),
        ({"autoencoder.codes": 64}, {}, "autoencoder.codes: read only where autoencoder.kind is vqgan"),
        ({"diffusion.noise": {"octaves": 3}}, {}, "diffusion.noise.octaves: read only where diffusion.noise.kind"),
        (
            {"sampling.sampler": "ddpm", "sampling.eta": 0.5},
            {},
            "sampling.eta: read only where sampling.sampler is ddim",
        ),
        ({"sampling.guidance": 2}, {}, "sampling.guidance: read only where denoiser.condition is set"),
        (
            {"sampling.guidance": 2},
            {"task": "anomaly", "autoencoder": None},
            "sampling.guidance: read only where denoiser",
        ),
        ({"sampling.others": "cohort"}, {}, "sampling.others: read only where denoiser.condition is set"),
        ({"diffusion.loss_weight_cap": 5}, {}, "diffusion.loss_weight_cap: read only where diffusion.loss_weight is v"),
        ({"data.fit": "crop"}, {}, "data.fit: read only where the modality is image"),
        (
            {"autoencoder.training": {"augment": {"gamma": 0.2}}},
            {
                "task": "translation",
                "data": {"target": "noddi"},
                "autoencoder": {"kind": "vqgan"},
                "denoiser": {"channels": [8, 8], "attention": [False, True]},
            },
            "autoencoder.training.augment.gamma: read only where images are no pairs",
        ),
        *(
            (
                {f"{network}.training": {"augment": {"gamma": 0.2}}},
                {
                    "task": "translation",
                    "data": {"target": "noddi"},
                    "autoencoder": None,
                    "regression": {"patch": 32},
                    "denoiser": {"channels": [8, 8], "attention": [False, True]},
                },
                f"{network}.training.augment.gamma: read only where images are no pairs",
            )
            for network in ("regression", "denoiser")
        ),
        ({"regression": {"patch": 32}}, {}, "regression.patch: nothing in synthesis reads it"),
    ],
)
def test_an_option_without_effect_is_refused(changes: dict[str, Any], recipe: dict[str, Any], said: str) -> None:
    load_config(config({}, **recipe))
    with pytest.raises(UserError) as refused:
        load_config(config(changes, **recipe))
    assert str(refused.value).startswith(f"configuration: recipes.one.{said}")
    assert len(str(refused.value).splitlines()) == 1


def test_an_option_left_alone_is_never_refused() -> None:
    for task in ("anomaly", "generation", "synthesis"):
        load_config({"recipes": {"one": {"task": task}}})


@pytest.mark.parametrize(("task", "draws"), [("synthesis", 64), ("generation", 64)])
def test_how_many_images_are_drawn_is_the_tasks_to_say(task: str, draws: int) -> None:
    loaded = load_config({"recipes": {"one": {"task": task}}})
    assert loaded.recipes["one"].sampling.count == draws


def test_a_prediction_is_one_draw_unless_more_are_asked_for() -> None:
    recipe = {"task": "translation", "data": {"target": "noddi"}, "autoencoder": {"kind": "vqgan"}}
    assert load_config({"recipes": {"one": recipe}}).recipes["one"].sampling.count == 1
    loaded = load_config({"recipes": {"one": {**recipe, "sampling": {"count": 8}}}})
    assert loaded.recipes["one"].sampling.count == 8


@pytest.mark.parametrize(
    ("regression", "said"),
    [
        ({"fold": 2, "channels": [8, 8, 8], "patch": 20}, "patch is 20, not a multiple of 8"),
        ({"fold": 4, "channels": [8] * 5, "patch": 64}, "blocks of 64 voxels; at most 32"),
        ({"channels": [1, 8]}, "channels start with 1"),
    ],
)
def test_a_regression_whose_tiles_do_not_fit_is_refused(regression: dict[str, Any], said: str) -> None:
    recipe = {"task": "translation", "data": {"target": "noddi"}, "regression": regression}
    with pytest.raises(UserError, match=said):
        load_config({"recipes": {"one": recipe}})


def test_a_translation_has_a_regression_or_an_autoencoder_or_both() -> None:
    recipe = {"task": "translation", "data": {"target": "noddi"}}
    with pytest.raises(UserError, match="needs a regression, whose residual is diffused, or an autoencoder"):
        load_config({"recipes": {"one": recipe}})
    for networks in ({"regression": {}}, {"autoencoder": {}}, {"regression": {}, "autoencoder": {}}):
        load_config({"recipes": {"one": recipe | networks}})


def test_checkpoints_may_be_given_to_a_translation_and_train_nothing_again() -> None:
    recipe = {"task": "translation", "data": {"target": "noddi"}, "regression": {}}
    parts = set()
    for checkpoints in (2, 5):
        loaded = load_config({"recipes": {"one": {**recipe, "sampling": {"checkpoints": checkpoints}}}}).recipes["one"]
        parts.add(tuple(recipe_part(loaded, stage.reads) for stage in TASKS["translation"].stages))
    assert len(parts) == 1
