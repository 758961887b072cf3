"""Defaults of a network that starts from a trained one: a lower rate and a short warm-up."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipeline_lib.bundle_plan import PLAN, read_plan, starting_place
from pipeline_lib.config.schema import RecipeOptions, TrainingOptions
from pipeline_lib.errors import UserError
from pipeline_lib.tasks import TASKS

SLOWER = 5
"""The rate is so many times lower than the one it was trained with."""
WARMUP = 100
"""Optimiser steps."""
SAME_NETWORK = {
    "data": ("dimensions", "channels", "target_channels"),
    "diffusion": ("prediction", "timesteps"),
    "denoiser": ("fold", "channels", "blocks", "attention", "head_channels"),
}
"""In what a denoiser and the one that it starts from must be alike."""
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
        start = str(_section(recipes[name], "denoiser").get("start_from") or "")
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
        start = str(network["start_from"])
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
        chain = [name]
        while (start := recipes[chain[-1]].denoiser.start_from or "") in recipes and start not in chain[1:]:
            chain.append(start)
        where = f"recipes.{name}.denoiser.start_from"
        earlier = recipes.get(recipe.denoiser.start_from or "")
        if name in chain[1:]:
            yield (
                f"{where}: {' starts from '.join(chain)}; one of them must start from elsewhere (a folder of that name is "
                f"./{chain[1]})"
            )
        elif earlier is not None and earlier.weights:
            yield f"{where}: {chain[1]} is not trained here; name what it is applied with: {earlier.weights}"
        elif earlier is not None and earlier.draws_nothing:
            yield f"{where}: {chain[1]} trains no denoiser, as its sampling.count is 0; name another recipe"
        elif not recipe.weights and (unlike := list(_unlike(earlier or _trained(recipe), recipe))):
            there = ", ".join(f"{option} {value} (here {here})" for option, value, here in unlike)
            yield f"{where}: {recipe.denoiser.start_from} has {there}; they must be alike"


def _trained(recipe: RecipeOptions) -> Mapping[str, Any]:
    """What the plan of the weights that a denoiser starts from says of them; empty where it starts from nothing, or from a file."""
    start = recipe.denoiser.start_from
    place = starting_place(start, "denoiser") if start else None
    plan = read_plan(place) if place and (place / PLAN).is_file() else {}
    return {
        section: plan.get(key, {})
        for section, key in (("data", "data"), ("diffusion", "diffusion"), ("denoiser", "architecture"))
    }


def _unlike(earlier: RecipeOptions | Mapping[str, Any], recipe: RecipeOptions) -> Iterator[tuple[str, Any, Any]]:
    """Options that must be the same for one network to go on from the other, and are not: name, there, here."""
    here = recipe.model_dump(mode="json")
    there = earlier.model_dump(mode="json") if isinstance(earlier, RecipeOptions) else earlier
    for section, names in SAME_NETWORK.items():
        for name in names:
            one, other = there[section].get(name, here[section][name]), here[section][name]
            if one != other:
                yield f"{section}.{name}", one, other
    detail = there["denoiser"].get("detail", 0)
    if detail not in (0, recipe.denoiser.detail):
        yield "denoiser.detail", detail, recipe.denoiser.detail
    if not isinstance(earlier, RecipeOptions):
        return
    for name in ("patch", "synthetic_lesions"):
        if (getattr(earlier.denoiser, name) is None) != (getattr(recipe.denoiser, name) is None):
            yield f"denoiser.{name}", there["denoiser"][name], here["denoiser"][name]
    if there["autoencoder"] != here["autoencoder"]:
        yield "autoencoder", "one" if there["autoencoder"] else "none", "another" if here["autoencoder"] else "none"


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
    place = starting_place(start_from, section, role)
    plan = read_plan(place) if (place / PLAN).is_file() else {}
    rate = plan.get("options", {}).get("training", {}).get("learning_rate", TrainingOptions().learning_rate)
    return float(rate)
