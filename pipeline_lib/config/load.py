"""Reading a configuration, and saying in one line each what is wrong with it."""

from __future__ import annotations

import difflib
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pipeline_lib.config.schema import Config
from pipeline_lib.errors import UserError


def load_config(values: Mapping[str, Any], folder: Path | str = ".") -> Config:
    """Check a configuration read from YAML.

    A recipe may be given as the path of a YAML file, relative to ``folder``.

    Raises:
        UserError: naming every faulty key with its value, what is allowed and the nearest name.
    """
    values = dict(values)
    recipes = values.get("recipes")
    if isinstance(recipes, Mapping):
        values["recipes"] = {name: _recipe(name, recipe, Path(folder)) for name, recipe in recipes.items()}
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        lines = [_explain(detail) for detail in error.errors()]
        raise UserError("configuration: " + "\n".join(lines)) from None


def read_config(path: Path | str) -> Config:
    """Read and check a YAML configuration file; recipe paths start from the current folder."""
    return load_config(_read_yaml(Path(path)))


def config_schema(model: type[BaseModel] = Config) -> str:
    """The JSON schema of the configuration, or of a recipe's file, for editors."""
    return json.dumps(model.model_json_schema(), indent=2) + "\n"


def _recipe(name: str, recipe: Any, folder: Path) -> Any:
    return _read_yaml(folder / recipe, f"recipes.{name}: ") if isinstance(recipe, str) else recipe


def _read_yaml(path: Path, where: str = "") -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"configuration: {where}cannot read {path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise UserError(f"configuration: {where}{path} is not valid YAML: {' '.join(str(error).split())}") from None


def _explain(detail: ErrorDetails) -> str:
    location = [part for part in detail["loc"] if part != "[key]"]
    key = ".".join(str(part) for part in location)
    value = detail["input"]
    match detail["type"]:
        case "extra_forbidden":
            return f"{key}: unknown key; {_nearest(str(location[-1]), _known_keys(location[:-1]))}"
        case "missing":
            return f"{key}: required but not given"
        case "literal_error":
            expected = detail["ctx"]["expected"]
            names = [name.strip(" '") for name in expected.replace(" or ", ", ").split(",")]
            return f"{key}: {value!r} is not one of {expected}; {_nearest(str(value), names)}"
        case "value_error":
            return f"{key}: {detail['ctx']['error']!s}" if key else str(detail["ctx"]["error"])
        case _:
            return f"{key}: {value!r} is not allowed: {detail['msg'][0].lower()}{detail['msg'][1:]}"


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(names)}"


def _known_keys(location: list[int | str]) -> list[str]:
    model: Any = Config
    for part in location:
        model = (
            _inside(model.model_fields[part].annotation) if _is_model(model) and part in model.model_fields else model
        )
        if typing.get_origin(model) is dict:
            model = typing.get_args(model)[1]
    return list(model.model_fields) if _is_model(model) else []


def _inside(annotation: Any) -> Any:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return next(choice for choice in typing.get_args(annotation) if choice is not type(None))
    return annotation


def _is_model(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel)
