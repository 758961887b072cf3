"""Reading a configuration, and saying in one line each what is wrong with it."""

from __future__ import annotations

import difflib
import json
import re
import reprlib
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pipeline_lib.config.fine_tuning import faulty_starts, fine_tuned
from pipeline_lib.config.frozen import frozen_recipe, is_frozen, prepared_alike
from pipeline_lib.config.schema import Config
from pipeline_lib.config.unread import unread
from pipeline_lib.errors import UserError

LARGEST = 10_000_000
"""Bytes; a configuration is far smaller."""
SHORTENED = reprlib.Repr()
"""How a value is shown: aliases of YAML make what nobody could read to the end."""
SHORTENED.maxstring = SHORTENED.maxother = 80
UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def load_config(values: Mapping[str, Any], folder: Path | str = ".") -> Config:
    """Check a configuration read from YAML.

    A recipe may be given as the path of a YAML file, relative to ``folder``.

    Raises:
        UserError: naming every faulty key with its value, what is allowed and the nearest name.
    """
    values = _mapping(values, "what was given")
    if lines := list(_unwritable(values, "", (), set())):
        raise UserError("configuration: " + "\n".join(lines))
    recipes = values.get("recipes")
    if isinstance(recipes, Mapping):
        read = {name: _recipe(name, recipe, Path(folder)) for name, recipe in recipes.items()}
        frozen = {name: frozen_recipe(name, recipe) for name, recipe in read.items() if is_frozen(recipe)}
        if frozen:
            finished = {name: of for name, (_, of) in frozen.items()}
            values["preprocess"] = prepared_alike(values.get("preprocess") or {}, finished)
        values["recipes"] = {**fine_tuned(read), **{name: recipe for name, (recipe, _) in frozen.items()}}
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        lines = [_explain(detail) for detail in error.errors()]
    else:
        trained = {name: recipe for name, recipe in config.recipes.items() if not recipe.weights}
        lines = [f"recipes.{name}.{line}" for name, recipe in trained.items() for line in unread(recipe)]
        lines += faulty_starts(config.recipes)
        if not lines:
            return config
    raise UserError("configuration: " + "\n".join(lines))


def read_config(path: Path | str) -> Config:
    """Read and check a YAML configuration file; recipe paths start from the current folder."""
    return load_config(read_yaml(Path(path)))


def config_schema(model: type[BaseModel] = Config) -> str:
    """The JSON schema of the configuration, or of a recipe's file, for editors."""
    return json.dumps(model.model_json_schema(), indent=2) + "\n"


def read_yaml(path: Path, where: str = "") -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        UserError: it cannot be read, is not YAML, holds something else, or gives a key twice.
    """
    try:
        values = _OnceEachLoader(_text(path, where)).get_single_data()
    except (yaml.YAMLError, ValueError, AttributeError, RecursionError) as error:  # as PyYAML lets them through
        raise UserError(f"configuration: {where}{path} is not valid YAML: {' '.join(str(error).split())}") from None
    return _mapping(values, f"{where}{path}")


def _text(path: Path, where: str) -> str:
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"configuration: {where}{path} is no file; name a YAML file")
        if path.stat().st_size > LARGEST:
            raise UserError(f"configuration: {where}{path} is larger than {LARGEST // 1_000_000} MB; name a YAML file")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"configuration: {where}cannot read {str(path)[:80]}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"configuration: {where}{path} is not text in UTF-8; write it as YAML") from None
    except ValueError:  # a NUL in the path
        raise UserError(f"configuration: {where}{str(path)!r} is no path of a file") from None


class _OnceEachLoader(yaml.SafeLoader):
    """YAML in which a key given twice is an error, as its specification has it, and not the last value's."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            line = key.start_mark.line + 1
            if key.value in seen:
                raise yaml.YAMLError(f"{key.value} is given twice, in lines {seen[key.value]} and {line}")
            seen[key.value] = line
        return super().construct_mapping(node, deep)


def _mapping(values: Any, where: str) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        held = "is empty" if values is None else f"holds {'a list' if isinstance(values, list) else 'a single value'}"
        raise UserError(f"configuration: {where} {held}; names with values are needed, as in config/config.yaml")
    return dict(values)


def _unwritable(value: Any, key: str, above: tuple[int, ...], done: set[int]) -> Iterator[str]:
    """A line for each text with a character that no file can hold, and for what holds itself.

    ``above`` are the ids of what holds ``value``, ``done`` of what was looked through: an alias may stand in many places.
    """
    if isinstance(value, str):
        if found := UNWRITABLE.search(f"{key}{value}"):
            yield f"{key!r}: holds the control character {found[0]!r}; remove it"
    elif id(value) in above:
        yield f"{key}: holds itself; write it out"
    elif isinstance(value, Mapping | list) and id(value) not in done:
        done.add(id(value))
        for name, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _unwritable(inner, f"{key}.{name}".lstrip("."), (*above, id(value)), done)


def _recipe(name: str, recipe: Any, folder: Path) -> Any:
    return read_yaml(folder / recipe, f"recipes.{name}: ") if isinstance(recipe, str) else recipe


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
            return f"{key}: {SHORTENED.repr(value)} is not one of {expected}; {_nearest(str(value), names)}"
        case "value_error":
            return f"{key}: {detail['ctx']['error']!s}" if key else str(detail["ctx"]["error"])
        case _:
            return f"{key}: {SHORTENED.repr(value)} is not allowed: {detail['msg'][0].lower()}{detail['msg'][1:]}"


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
