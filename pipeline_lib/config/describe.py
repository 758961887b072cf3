"""The configuration's reference page, written from the types."""

from __future__ import annotations

import json
import types
import typing
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pipeline_lib.config.part import options_of
from pipeline_lib.config.schema import Config, Options, RecipeOptions

HEAD = """# Configuration

Every setting with its default. This page is written from the types in `pipeline_lib/config/schema.py` by `make schema`;
editors that read `config/schema.json` complete and check the names. A fault is reported before anything runs, with the
key, the value, what is allowed and the nearest valid name. Check a file with
`python -m pipeline_lib.config check config/config.yaml`.

A stage reruns when the settings that it reads change, and no other does. Under `recipes:` each model has a name of its
own; instead of its settings one may give the path of a YAML file: `recipes: {anomaly: config/recipes/anomaly.yaml}`.
"""


def describe_options() -> str:
    """A Markdown page: one table for each part of the configuration."""
    parts: dict[str, type[Options]] = {}
    _collect(Config, "", parts)
    _collect(RecipeOptions, "recipes.<name>", parts)
    return "\n".join([HEAD, *(_table(where, model) for where, model in parts.items())])


def _collect(model: type[Options], where: str, parts: dict[str, type[Options]]) -> None:
    if where:
        parts[where] = model
    for name, info in model.model_fields.items():
        inner = options_of(info.annotation)
        if inner is not None:
            _collect(inner, f"{where}.{name}" if where else name, parts)


def _table(where: str, model: type[Options]) -> str:
    about = " ".join((model.__doc__ or "").split())
    rows = [f"## {where}\n", f"{about}\n", "| key | default | allowed | meaning |", "|---|---|---|---|"]
    for name, info in model.model_fields.items():
        if name == "recipes":
            continue
        inner = options_of(info.annotation)
        default = "see below" if inner and info.default is not None else _default(info)
        rows.append(f"| `{name}` | {default} | {_allowed(info, inner)} | {info.description or ''} |")
    return "\n".join(rows) + "\n"


def _default(info: FieldInfo) -> str:
    if info.default is PydanticUndefined:
        return "required"
    if info.default == "":
        return "empty"
    return f"`{json.dumps(info.default)}`".replace('"', "")


def _allowed(info: FieldInfo, inner: type[Options] | None) -> str:
    if inner is not None:
        return "a section"
    return _type_name(info.annotation).replace("|", "\\|")


def _type_name(annotation: Any) -> str:
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return ", ".join(f"`{choice}`" for choice in inside)
    if origin is typing.Annotated:
        return _type_name(inside[0])
    if origin is dict:
        return f"{_type_name(inside[1])} by name"
    if origin in (list, tuple):
        return f"list of {_type_name(inside[0])}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join("null" if choice is type(None) else _type_name(choice) for choice in inside)
    return {"int": "whole number", "float": "number", "str": "text", "bool": "true or false"}[annotation.__name__]
