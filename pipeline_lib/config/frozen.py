"""A recipe with ``weights``: applied and not trained, and so all that its bundle says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from pipeline_lib.bundle_plan import REGRESSION, STRIPPED_BEFORE, FinishedRecipe, differences, finished_recipe, flat
from pipeline_lib.config.part import options_of
from pipeline_lib.config.schema import PreprocessOptions, RecipeOptions
from pipeline_lib.errors import UserError
from pipeline_lib.tasks import TASKS
from pipeline_lib.tasks.task import FREE, covers


def is_frozen(recipe: Any) -> bool:
    """Whether a recipe as written is applied and not trained."""
    return isinstance(recipe, Mapping) and bool(recipe.get("weights"))


def frozen_recipe(name: str, written: Mapping[str, Any]) -> tuple[dict[str, Any], FinishedRecipe]:
    """A frozen recipe whole, and what it is applied from.

    Raises:
        UserError: there is no such bundle, or the recipe says otherwise than it.
    """
    try:
        finished = finished_recipe(
            str(RecipeOptions.model_validate({"task": "anomaly", "weights": written["weights"]}).weights)
        )
    except UserError as error:
        raise UserError(f"configuration: recipes.{name}.weights: {error}") from None
    except ValidationError:
        raise UserError(
            f"configuration: recipes.{name}.weights: {written['weights']!r} is no name and no path"
        ) from None
    options = {**finished.options, "data": {**finished.options["data"], "train_groups": []}}
    for section in ("autoencoder", "denoiser"):
        if options.get(section):  # what it started from is told by its plan, and is not needed any more
            options[section] = {key: value for key, value in options[section].items() if key != "start_from"}
    if "checkpoints" in options.get("sampling", {}):
        options["sampling"] = {**options["sampling"], "checkpoints": 1}  # the finished model is the only one there is
    whole = _merged(RecipeOptions, options, written)
    try:
        here = RecipeOptions.model_validate(whole).model_dump(mode="json")
    except ValidationError:
        return whole, finished  # its faults are said with those of the whole configuration
    if finished.last == REGRESSION and here["sampling"]["count"]:
        raise UserError(
            f"configuration: recipes.{name}.sampling.count: {finished.name} is a regression and draws nothing; remove it"
        )
    there = RecipeOptions.model_validate(options).model_dump(mode="json")
    if faults := list(_otherwise(here, there, (*FREE, *TASKS[there["task"]].open))):
        raise UserError(
            f"configuration: recipes.{name}: says otherwise than {finished.name}, which is applied as it was trained: "
            f"{'; '.join(faults)}; remove it"
        )
    return whole, finished


def prepared_alike(written: Any, finished: Mapping[str, FinishedRecipe]) -> Any:
    """The section ``preprocess`` as the bundles of the frozen recipes (by name) need it.

    What is not written is as in the bundle. A skull that was taken off before is looked for.

    Raises:
        UserError: it says otherwise than a bundle, or two bundles differ.
    """
    if not isinstance(written, Mapping):
        return written
    known: dict[str, Mapping[str, Any]] = {
        name: options
        for name, recipe in finished.items()
        if (options := (recipe.plan.get("prepared") or {}).get("preprocess"))
    }
    if not known or all(recipe.options["data"]["modality"] == "image" for recipe in finished.values()):
        return written  # pictures are taken as they are
    first, *_ = known.values()
    filled = {**first, **written}
    if "brain_extraction" not in written and filled.get("brain_extraction") in STRIPPED_BEFORE:
        filled["brain_extraction"] = "learned"
    if "quality" not in written:
        filled.pop("quality", None)
    try:
        here = PreprocessOptions.model_validate(filled).model_dump(mode="json")
    except ValidationError:
        return filled
    for name, options in known.items():
        data = {"modality": finished[name].options["data"]["modality"]}
        there = {"preprocess": PreprocessOptions.model_validate(options).model_dump(mode="json"), "data": data}
        if found := list(differences(there, {"preprocess": here, "data": data})):
            raise UserError(
                f"configuration: recipes.{name}: {finished[name].name} learned from scans prepared otherwise: "
                f"{'; '.join(found)}; remove it from preprocess, or run the recipe apart from the others"
            )
    return filled


def _merged(model: type[BaseModel], base: Mapping[str, Any], written: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with what is written, section by section."""
    merged = dict(base)
    for key, value in written.items():
        field = model.model_fields.get(key)
        section = options_of(field.annotation) if field else None
        before = merged.get(key)
        inside = section is not None and isinstance(before, Mapping) and isinstance(value, Mapping)
        merged[key] = _merged(section, before, value) if inside else value  # type: ignore[arg-type]
    return merged


def _otherwise(here: Mapping[str, Any], there: Mapping[str, Any], free: tuple[str, ...]) -> Iterator[str]:
    one, other = dict(flat(here)), dict(flat(there))
    for key in sorted(one.keys() | other.keys()):
        if key != "weights" and not covers(free, key) and one.get(key) != other.get(key):
            yield f"{key} {one.get(key)} (there {other.get(key)})"
