"""Whether a bundle is whole: what somebody who was sent one asks before using it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch

from pipeline_lib.bundle_plan import AUTOENCODER, CARD, LICENCE, PLAN, SHIPPED, WEIGHTS, find_bundle, read_plan
from pipeline_lib.bundles.bundle import load_bundle
from pipeline_lib.config.frozen import frozen_recipe
from pipeline_lib.errors import UserError
from pipeline_lib.files import sha256_file

REQUIRED = (
    "kind", "architecture", "weights_sha256", "role", "prepared", "people", "scans", "train_images", "steps", "licence", "figures",
)  # fmt: skip
HASH = re.compile("[0-9a-f]{16}")
COLUMNS = ("method", "threshold")
"""Of the table of thresholds; one without rows has no header."""


def check(path: str | Path) -> list[str]:
    """What is wrong with a bundle, a line each; none where it is whole.

    Args:
        path: its folder, or the name of one that ships.
    """
    try:
        return list(_faults(find_bundle(path)))
    except UserError as error:
        return [str(error)]


def _faults(folder: Path) -> Iterator[str]:
    yield from _faults_of_network(folder)
    for plan in sorted(folder.glob(f"{AUTOENCODER}/*/{PLAN}")):
        yield from _faults_of_network(plan.parent)
    whole = "recipe" in read_plan(folder)
    if whole:
        frozen_recipe("it", {"weights": str(folder)})
    if whole or folder.parent == SHIPPED:
        yield from (f"{folder / name} is missing" for name in (CARD, LICENCE) if not (folder / name).is_file())
    yield from (fault for path in sorted(folder.glob("fitted/*")) for fault in _faults_of_fitted(path))


def _faults_of_fitted(path: Path) -> Iterator[str]:
    if path.suffix == ".npz":
        yield from _faults_of_arrays(path)
        return
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".tsv":
        if (header := text.partition("\n")[0]) and not set(COLUMNS) <= set(header.split("\t")):
            yield f"{path} is no table of {' and '.join(COLUMNS)}: it starts with {header[:40]!r}"
        return
    try:
        json.loads(text)
    except ValueError as error:
        yield f"{path} cannot be read: {error}"


def _faults_of_arrays(path: Path) -> Iterator[str]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            numbers = {name: arrays[name] for name in arrays.files if arrays[name].dtype.kind == "f"}
    except (OSError, ValueError, BadZipFile) as error:
        yield f"{path} cannot be read: {error}"
        return
    yield from (
        f"{path}: {name} holds values that are not finite"
        for name, each in numbers.items()
        if not np.isfinite(each).all()
    )


def _faults_of_network(folder: Path) -> Iterator[str]:
    info = read_plan(folder)
    if missing := [name for name in REQUIRED if name not in info]:
        yield f"{folder / PLAN} lacks {', '.join(missing)}"
    if (folder / WEIGHTS).is_file() and info.get("weights_sha256") != sha256_file(folder / WEIGHTS):
        yield f"{folder / WEIGHTS} is not the file that {PLAN} was written for (its SHA-256 differs)"
    module = load_bundle(folder).module
    for name, value in module.state_dict().items():
        if not torch.isfinite(value).all():
            yield f"{folder / WEIGHTS}: {name} holds values that are not finite"
    yield from (f"{folder / PLAN}: {fault}" for fault in _named(info))


def _named(info: Mapping[str, Any]) -> Iterator[str]:
    """What would tell of people or machines."""
    for key in ("people", "scans"):
        if odd := [value for value in info.get(key, ()) if not HASH.fullmatch(str(value))]:
            yield f"{key} are to be hashes of 16 digits, but {len(odd)} are not"
    if paths := re.findall(r'"(/[^"]+)"', json.dumps(info)):
        yield f"holds a path of the machine it was trained on: {paths[0]}"
