"""Whose a folder of training progress is: what the key of ``state/<key>/`` is made of.

A training that is run again goes on from its checkpoint exactly where everything that changes a number is as it was: the
recipe and the role of the network in it, the arrays and the values it learns from, the configuration, the code. What
changes no number, the run-time settings, is not part of the key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline_lib.errors import UserError
from pipeline_lib.files import pseudonym, read_json, read_table, sha256_text

SIDECAR = "provenance.json"
RUN_TIME = frozenset({"workers", "keep", "devices", "nodes", "checkpoint_every", "samples_every", "checkpointing"})
"""Keys of a recipe's networks that change how a training runs and not what comes out of it."""
CONTENT = {".npy", ".safetensors"}
"""Arrays and weights; tables count by the columns that a training reads, and curves not at all."""
NOT_LEARNED = {"lesion.npy"}
"""Arrays of a packed chunk that are for the evaluation; no training reads them."""
BY_IMAGE = ["has_lesion", "lesion"]
"""Columns of a packed index by which lesion-free images are chosen."""
TRAINED_ON = "trained_on.tsv"
"""Written beside a trained model: its scans and their values, as pseudonyms, so that what changed can be told."""


def without_run_time(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a stage less the run-time settings."""
    return {
        name: without_run_time(value) if isinstance(value, Mapping) else value
        for name, value in options.items()
        if name not in RUN_TIME
    }


def run_time(options: Mapping[str, Any]) -> dict[str, Any]:
    """The run-time settings among the options of a stage, by section."""
    found = {
        name: run_time(value) if isinstance(value, Mapping) else value
        for name, value in options.items()
        if name in RUN_TIME or isinstance(value, Mapping)
    }
    return {name: value for name, value in found.items() if value != {}}


def with_run_time(options: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a stage with run-time settings put back where they belong."""
    merged = dict(options)
    for name, value in settings.items():
        merged[name] = with_run_time(merged.get(name) or {}, value) if isinstance(value, Mapping) else value
    return merged


def counted_columns(options: Mapping[str, Any]) -> list[str]:
    """Columns of the index that a training reads: its conditions, and those by which it chooses its images."""
    conditions = (options.get("denoiser") or {}).get("condition") or []
    chosen_by = ["group"] if trained_groups(options) else []
    chosen_by += BY_IMAGE if (options.get("data") or {}).get("lesion_free") else []
    return sorted({*conditions, *chosen_by})


def trained_groups(options: Mapping[str, Any]) -> list[str]:
    """Groups that a training learns from; empty: from all."""
    return (options.get("data") or {}).get("train_groups") or []


def training_key(recipe: str, role: str, code: str, options: Mapping[str, Any], inputs: Sequence[Path]) -> str:
    """24 hexadecimal digits, equal exactly where a training would make the same numbers again.

    Args:
        recipe, role: whose network it is: ``denoiser``, or the role of an autoencoder.
        code: hash of the code that trains.
        options: the part of the configuration it reads; run-time settings are left out here.
        inputs: finished folders it learns from: chunks of training and validation, autoencoders.
    """
    columns, groups = counted_columns(options), trained_groups(options)
    made_of = {
        "recipe": recipe,
        "role": role,
        "code": code,
        "options": without_run_time(options),
        "inputs": [[folder.name, _arrays(folder), _values(folder, columns, groups)] for folder in inputs],
    }
    return sha256_text(json.dumps(made_of, sort_keys=True))[:24]


def trained_on(options: Mapping[str, Any], inputs: Sequence[Path]) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows of ``trained_on.tsv``: a row a scan of the chunks, with its values that count.

    A model folder may be passed on, so it names nobody: scans, people and values are pseudonyms.
    """
    columns = [name for name in counted_columns(options) if name not in ("slice", *BY_IMAGE)]
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for folder in inputs:
        for row in _index(folder):
            values = {name: _value(row, name) for name in (*columns, "sha256")}
            hidden = {"person": pseudonym("person", row["participant"]), **told(row["scan"], values)}
            rows.setdefault((folder.name, row["scan"]), {"chunk": folder.name, **hidden})
    return ["chunk", "scan", "person", "sha256", *columns], list(rows.values())


def told(scan: str, values: Mapping[str, str | float]) -> dict[str, str]:
    """A scan and its values as ``trained_on.tsv`` has them."""
    hidden = {name: pseudonym(name, f"{scan} {_plain(name, value)}") for name, value in values.items()}
    return {"scan": pseudonym("scan", scan), **hidden}


def _arrays(folder: Path) -> dict[str, str]:
    """Hashes of the arrays and final weights in a finished folder, taken from its sidecar."""
    sidecar = folder / SIDECAR
    if not sidecar.is_file():
        raise UserError(f"{sidecar} is missing: {folder.name} is not finished; run the stage that makes it")
    outputs = read_json(sidecar)["outputs"].items()
    written = {Path(name).name: digest for name, digest in outputs if "checkpoints" not in Path(name).parts}
    return {
        name: digest for name, digest in written.items() if Path(name).suffix in CONTENT and name not in NOT_LEARNED
    }


def _values(folder: Path, columns: Sequence[str], groups: Sequence[str]) -> list[list[str]]:
    """The counted columns of a chunk's index, a row an image; nothing of an image whose group is not learned from."""
    if not columns:
        return []
    return [
        [str(_value(row, column)) for column in columns] if not groups or row["group"] in groups else []
        for row in _index(folder)
    ]


def _index(folder: Path) -> list[dict[str, str]]:
    index = folder / "index.tsv"
    return read_table(index) if index.is_file() else []


def _value(row: Mapping[str, str], column: str) -> str | float:
    """A value of an index's row, which keeps the further columns of the sheet as JSON in one."""
    if column in row:
        return row[column]
    further: Mapping[str, str | float] = json.loads(row.get("covariates") or "{}")
    return further.get(column, "")


def _plain(name: str, value: str | float) -> str:
    """A value as text, the same from the sheet and from a table: an age of 50 is 50.0, too."""
    return f"{float(value):g}" if isinstance(value, float) or (name == "age" and value) else str(value)
