"""Defaults of a network that starts from a trained one: a lower rate and a short warm-up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline_lib.bundle_plan import PLAN, read_plan, starting_place
from pipeline_lib.config.schema import TrainingOptions
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


def fine_tuned(name: str, recipe: Any) -> Any:
    """A recipe as written with the rate and the warm-up of its networks that have ``start_from`` and do not say them.

    Raises:
        UserError: there is nothing to start from.
    """
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
            rate = _rate_of(str(network["start_from"]), section, str(recipe.get("task")))
        except UserError as error:
            raise UserError(f"configuration: recipes.{name}.{section}.start_from: {error}") from None
        defaults = {"learning_rate": rate / SLOWER, "warmup": WARMUP}
        filled[section] = {**network, "training": {**defaults, **training}}
    return filled


def _rate_of(start_from: str, section: str, task: str) -> float:
    """The rate that a network was trained with; the default where nobody says."""
    role = TASKS[task].roles[-1] if task in TASKS else "image"
    place = starting_place(start_from, section, role)
    plan = read_plan(place) if (place / PLAN).is_file() else {}
    rate = plan.get("options", {}).get("training", {}).get("learning_rate", TrainingOptions().learning_rate)
    return float(rate)
