"""Defaults of a network that starts from a trained one: a lower rate and a short warm-up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline_lib.bundle_plan import PLAN, read_plan, starting_place
from pipeline_lib.config.schema import RecipeOptions, TrainingOptions
from pipeline_lib.errors import UserError
from pipeline_lib.tasks import TASKS

SLOWER = 5
"""The rate is so many times lower than the one it was trained with."""
WARMUP = 100
"""Optimiser steps."""
NEW_CATEGORIES = 0.05
"""Highest rate of the embedding of a condition with a category that the weights to start from do not know. A rate at which the network keeps what
it knows takes thousands of steps to tell them apart; their embeddings are the few numbers that say what in the network they
mean (textual inversion; Gal et al., 2023)."""


def fine_tuned(name: str, recipes: Mapping[str, Any]) -> Any:
    """A recipe as written with the rate and the warm-up of its networks that have ``start_from`` and do not say them.

    Args:
        name: of the recipe.
        recipes: all of the configuration as written.

    Raises:
        UserError: there is nothing to start from.
    """
    recipe = recipes[name]
    if not isinstance(recipe, Mapping):
        return recipe
    filled = dict(recipe)
    for section in ("autoencoder", "denoiser"):
        network = recipe.get(section)
        if not isinstance(network, Mapping) or not network.get("start_from"):
            continue
        training = network.get("training", {})
        if not isinstance(training, Mapping):
            continue
        try:
            start = str(network["start_from"])
            earlier = section == "denoiser" and start in recipes
            rate = _written_rate(recipes[start]) if earlier else _rate_of(start, section, str(recipe.get("task")))
        except UserError as error:
            raise UserError(f"configuration: recipes.{name}.{section}.start_from: {error}") from None
        defaults = {"learning_rate": rate / SLOWER, "warmup": WARMUP}
        filled[section] = {**network, "training": {**defaults, **training}}
    return filled


def faulty_starts(recipes: Mapping[str, RecipeOptions]) -> Iterator[str]:
    """What is wrong with the recipes of the same configuration that denoisers start from, a line each."""
    for name, recipe in recipes.items():
        chain = [name]
        while (start := recipes[chain[-1]].denoiser.start_from or "") in recipes and start not in chain[1:]:
            chain.append(start)
        where = f"recipes.{name}.denoiser.start_from"
        earlier = recipes.get(recipe.denoiser.start_from or "")
        if name in chain[1:]:
            yield f"{where}: {' starts from '.join(chain)}; one of them must start from elsewhere"
        elif earlier is not None and earlier.weights:
            yield f"{where}: {chain[1]} is not trained here; name what it is applied with: {earlier.weights}"
        elif earlier is not None and earlier.draws_nothing:
            yield f"{where}: {chain[1]} trains no denoiser, as its sampling.count is 0; name another recipe"


def _written_rate(recipe: Any) -> float:
    """The rate that a recipe of the same configuration gives its denoiser; the default where it does not say."""
    rate = TrainingOptions().learning_rate
    for key in ("denoiser", "training", "learning_rate"):
        recipe = recipe.get(key, rate) if isinstance(recipe, Mapping) else rate
    return float(recipe) if isinstance(recipe, int | float) else rate


def _rate_of(start_from: str, section: str, task: str) -> float:
    """The rate that a network was trained with; the default where nobody says."""
    role = TASKS[task].roles[-1] if task in TASKS else "image"
    place = starting_place(start_from, section, role)
    plan = read_plan(place) if (place / PLAN).is_file() else {}
    rate = plan.get("options", {}).get("training", {}).get("learning_rate", TrainingOptions().learning_rate)
    return float(rate)
