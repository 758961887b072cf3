"""A network that starts from a trained one: its rate and warm-up by default, and whether it can go on from there at all."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipeline_lib.bundle_plan import PLAN, read_plan, starting_place
from pipeline_lib.config.schema import RecipeOptions, TrainingOptions, expanded_path
from pipeline_lib.errors import UserError
from pipeline_lib.tasks import TASKS

SLOWER = 5
"""The rate is so many times lower than the one it was trained with."""
WARMUP = 100
"""Optimiser steps."""
LAYERS = ("fold", "channels", "blocks", "attention", "head_channels", "detail")
"""Options of a denoiser that its network is made by. One with `detail` may go on from one without."""
NEW_CATEGORIES = 0.05
"""Highest rate of the embedding of a condition with a category that the weights to start from do not know. A rate at which the network keeps what
it knows takes thousands of steps to tell them apart; their embeddings are the few numbers that say what in the network they
mean (textual inversion; Gal et al., 2023)."""


def fine_tuned(recipes: Mapping[str, Any]) -> dict[str, Any]:
    """Recipes as written with the rate and the warm-up of their networks that have ``start_from`` and do not say them.

    Raises:
        UserError: there is nothing to start from.
    """
    filled: dict[str, Any] = {}

    def fill(name: str, after: tuple[str, ...]) -> Any:
        """Those first that others start from, whose rate may itself be filled in."""
        start = _path(_section(recipes[name], "denoiser").get("start_from") or "")
        if start in recipes and start not in after:
            fill(start, (*after, name))
        if name not in filled:
            filled[name] = _filled(name, recipes[name], filled, recipes)

    for name in recipes:
        fill(name, ())
    return {name: filled[name] for name in recipes}


def _filled(name: str, recipe: Any, earlier: Mapping[str, Any], names: Collection[str]) -> Any:
    filled = dict(recipe) if isinstance(recipe, Mapping) else recipe
    for section in ("autoencoder", "denoiser"):
        network = _section(recipe, section)
        training = network.get("training", {})
        if not network.get("start_from") or not isinstance(training, Mapping):
            continue
        start = _path(network["start_from"])
        if section == "denoiser" and start in names:
            rate = _written_rate(earlier.get(start))
        else:
            try:
                rate = _rate_of(start, section, str(recipe.get("task")))
            except UserError as error:
                raise UserError(
                    f"configuration: recipes.{name}.{section}.start_from: {error}{_meant(start, section, names)}"
                ) from None
        defaults = {"learning_rate": rate / SLOWER, "warmup": WARMUP}
        filled[section] = {**network, "training": {**defaults, **training}}
    return filled


def _section(recipe: Any, name: str) -> Mapping[str, Any]:
    """A section of a recipe as written; empty where it has none, or something else."""
    section = recipe.get(name) if isinstance(recipe, Mapping) else None
    return section if isinstance(section, Mapping) else {}


def _meant(start: str, section: str, names: Collection[str]) -> str:
    """Which recipe of the configuration was perhaps meant."""
    if section != "denoiser":
        return "; only a denoiser starts from that of another recipe" if start in names else ""
    near = get_close_matches(Path(start).name, map(str, names), n=1)
    return f"; or the recipe of this configuration that is meant: {near[0]}" if near else ""


def faulty_starts(recipes: Mapping[str, RecipeOptions]) -> Iterator[str]:
    """What is wrong with what denoisers start from, a line each: other recipes of the configuration, bundles, finished folders."""
    for name, recipe in recipes.items():
        if recipe.denoiser.start_from and (fault := _faulty_start(name, recipes)):
            yield f"recipes.{name}.denoiser.start_from: {fault}"


def _faulty_start(name: str, recipes: Mapping[str, RecipeOptions]) -> str:
    recipe, chain = recipes[name], [name]
    start = recipe.denoiser.start_from or ""
    while (before := recipes[chain[-1]].denoiser.start_from or "") in recipes and before not in chain[1:]:
        chain.append(before)
    if name in chain[1:]:
        said = " starts from ".join(chain)
        return f"{said}; one of them must start from elsewhere (a folder of that name is {Path(start).absolute()})"
    earlier = recipes.get(start)
    if earlier is not None and earlier.weights:
        return f"{start} is not trained here; name what it is applied with: {earlier.weights}"
    if earlier is not None and earlier.draws_nothing:
        return f"{start} trains no denoiser, as its sampling.count is 0; name another recipe"
    if recipe.weights or recipe.draws_nothing:
        return ""
    plan = {} if earlier else _plan_of(start, "denoiser")
    if plan.get("role", "denoiser") != "denoiser":
        return f"{start} is no denoiser (its role: {plan['role']}); name one, or the folder of a finished recipe that has one"
    there, here = _wanted(earlier) if earlier else _held(plan), _wanted(recipe)
    there = {key: value for key, value in there.items() if value or key != "denoiser.detail"}
    unlike = [f"{key} {value} (here {here[key]})" for key, value in there.items() if value != here[key]]
    if earlier and earlier.autoencoder and recipe.autoencoder and earlier.autoencoder != recipe.autoencoder:
        unlike.append("another autoencoder")
    return f"{start} has {', '.join(unlike)}; they must be alike" if unlike else ""


def _wanted(recipe: RecipeOptions) -> dict[str, Any]:
    """What weights must be alike in for a recipe's denoiser to go on from them, by what a person calls it."""
    data, denoiser, both = recipe.data, recipe.denoiser, TASKS[recipe.task].source_and_target
    if recipe.autoencoder:
        images = recipe.autoencoder.latent_channels
        beside = images if both else 0
    else:
        images = data.target_channels if both else data.channels
        beside = data.channels + images if both else 0
    return {
        "data.dimensions": data.dimensions,
        "autoencoder": _whether(recipe.autoencoder),
        "input channels": images + beside,
        "denoiser.synthetic_lesions": _whether(denoiser.synthetic_lesions),
        "denoiser.patch": _whether(denoiser.patch),
        "diffusion.prediction": recipe.diffusion.prediction,
        "diffusion.timesteps": recipe.diffusion.timesteps,
        **{f"denoiser.{key}": value for key, value in denoiser.model_dump(mode="json", include=set(LAYERS)).items()},
    }


def _held(plan: Mapping[str, Any]) -> dict[str, Any]:
    """`_wanted` of weights with a plan, as far as it says so."""
    network, diffusion, options = (_section(plan, key) for key in ("architecture", "diffusion", "options"))
    said = {"data.dimensions": network.get("dimensions"), "input channels": network.get("in_channels")}
    said |= {f"diffusion.{key}": diffusion.get(key) for key in ("prediction", "timesteps")}
    said |= {f"denoiser.{key}": network.get(key) for key in LAYERS}
    if "scale" in plan:
        said["autoencoder"] = _whether(plan["scale"])
    if "synthetic_lesions" in options:
        said["denoiser.synthetic_lesions"] = _whether(options["synthetic_lesions"])
    if network:
        said["denoiser.patch"] = _whether(network.get("local"))
    return {key: value for key, value in said.items() if value is not None}


def _whether(option: Any) -> str:
    return "set" if option else "none"


def _plan_of(start: str, section: str, role: str = "image") -> Mapping[str, Any]:
    """The plan of the weights that a network starts from; empty of a file."""
    place = starting_place(start, section, role)
    return read_plan(place) if (place / PLAN).is_file() else {}


def _path(written: Any) -> str:
    """As `expanded_path`, of whatever was written: what is no path is said where the recipe is checked."""
    try:
        return expanded_path(str(written))
    except ValueError:
        return str(written)


def _written_rate(recipe: Any) -> float:
    """The rate that a recipe of the same configuration gives its denoiser; the default where it does not say."""
    training = _section(_section(recipe, "denoiser"), "training")
    try:
        return TypeAdapter(float).validate_python(training["learning_rate"])
    except (KeyError, ValidationError, OverflowError):  # a rate that is none is said where the recipe is checked
        return TrainingOptions().learning_rate


def _rate_of(start_from: str, section: str, task: str) -> float:
    """The rate that a network was trained with; the default where nobody says."""
    role = TASKS[task].roles[-1] if task in TASKS else "image"
    plan = _plan_of(start_from, section, role)
    training = _section(_section(plan, "options"), "training")
    return float(training.get("learning_rate", TrainingOptions().learning_rate))
