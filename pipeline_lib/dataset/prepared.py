"""How the images of a packed chunk were prepared, so that a model is applied to images like those it learned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline_lib.bundle_plan import differences
from pipeline_lib.config.schema import DataOptions, PreprocessOptions
from pipeline_lib.errors import UserError
from pipeline_lib.files import read_json, write_json

PREPARED = "prepared.json"


def write_prepared(folder: Path, preprocessed: Path, data: DataOptions) -> None:
    """Write ``prepared.json`` into a packed chunk: options of the preprocessing (null where not known) and of the images."""
    sidecar = preprocessed / "provenance.json"
    preprocess = read_json(sidecar)["options"] if sidecar.is_file() else None
    images = data.model_dump(mode="json", include=set(vars(data)) - {"train_groups", "lesion_free"})
    write_json(folder / PREPARED, {"preprocess": preprocess, "data": images})


def prepared_of(folders: Sequence[Path]) -> dict[str, Any]:
    """How the images of several chunks were prepared, which must be the same way.

    Raises:
        UserError: a chunk does not say, or differs from another.
    """
    found: dict[str, Any] = {}
    for folder in folders:
        path = folder / PREPARED
        if not path.is_file():
            raise UserError(f"{path} is missing: pack the chunk again, so that it says how its images were prepared")
        this = read_json(path)
        if found and (different := list(differences(found, this))):
            raise UserError(f"{folder}: prepared otherwise than {folders[0]}: {'; '.join(different)}; pack both again")
        found = found or this
    return found


def refuse_prepared_otherwise(model: Path, info: Mapping[str, Any], chunk: Path) -> None:
    """Refuse a chunk that was not prepared as the images that a model learned from.

    Args:
        model: where the model is, for the message.
        info: its ``model.json``.

    Raises:
        UserError: naming every difference, with the model's value and the chunk's.
    """
    different = list(differences(_whole(info["prepared"]), _whole(prepared_of([chunk]))))
    if different:
        raise UserError(
            f"{chunk} was prepared otherwise than what {model} learned from: {'; '.join(different)}; "
            "prepare the scans as the model's model.json says, or train a model on these"
        )


def _whole(prepared: Mapping[str, Any]) -> dict[str, Any]:
    """With the defaults of options that there were not yet when it was written: they change nothing unless set."""
    if not prepared.get("preprocess"):
        return dict(prepared)
    return {**prepared, "preprocess": PreprocessOptions().model_dump(mode="json") | dict(prepared["preprocess"])}
