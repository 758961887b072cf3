"""The part of a recipe that a stage reads, and nothing beyond it."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterable
from typing import Any

from pydantic import TypeAdapter

from pipeline_lib.config.schema import Options, RecipeOptions
from pipeline_lib.tasks.task import covers


def recipe_part(recipe: RecipeOptions, keys: Iterable[str]) -> str:
    """Those keys of a recipe as canonical JSON."""
    return json.dumps(_only(recipe.model_dump(mode="json"), tuple(keys)), sort_keys=True)


def read_part(text: str) -> RecipeOptions:
    """The options of `recipe_part`; to read another one is an AttributeError instead of its default."""
    part = _build(RecipeOptions, json.loads(text))
    assert isinstance(part, RecipeOptions)
    return part


def _only(values: dict[str, Any], keys: tuple[str, ...], where: str = "") -> dict[str, Any]:
    chosen = {}
    for name, value in values.items():
        key = f"{where}{name}"
        if covers(keys, key):
            chosen[name] = value
        elif isinstance(value, dict) and (inside := _only(value, keys, f"{key}.")):
            chosen[name] = inside
    return chosen


def _build(model: type[Options], values: dict[str, Any]) -> Options:
    built = {}
    for name, value in values.items():
        annotation: Any = model.model_fields[name].annotation
        section = options_of(annotation)
        built[name] = _build(section, value) if section and value else TypeAdapter(annotation).validate_python(value)
    part = model.model_construct(set(built), **built)
    for name in set(model.model_fields) - set(built):
        part.__dict__.pop(name, None)
    return part


def options_of(annotation: Any) -> type[Options] | None:
    """The section that a field holds; None where it holds a value."""
    choices = typing.get_args(annotation) if typing.get_origin(annotation) in (typing.Union, types.UnionType) else ()
    for choice in choices or (annotation,):
        if isinstance(choice, type) and issubclass(choice, Options):
            return choice
    return None
