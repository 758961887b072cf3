"""A trained model that travels: weights, and everything that using them needs, in one format (docs/bundles.md).

    model.safetensors    the averaged weights
    model.json           the plan: network, preprocessing, grid, conditions; whom it saw, under which terms, its figures

Nothing is unpickled, and nothing else is needed to build the network and to prepare images for it.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline_lib.bundle_plan import FORMAT, PLAN, WEIGHTS, find_bundle, read_plan, terms
from pipeline_lib.bundles.start import Start, seen_too
from pipeline_lib.dataset.index import brain_outside
from pipeline_lib.dataset.packed import PackedArrays
from pipeline_lib.dataset.people import trained_people
from pipeline_lib.dataset.prepared import prepared_of
from pipeline_lib.errors import UserError
from pipeline_lib.files import atomic_path, sha256_file, write_json

CLASSES = {
    "unet": "models.unet.UNet",
    "autoencoder": "models.autoencoder.KLAutoencoder",
    "vqgan": "models.vqgan.VQGAN",
    "regressor": "models.regressor.Regressor",
    "brain": "imaging.brain.BrainNetwork",
}
"""Kind of model -> where its class is in pipeline_lib."""


class Bundle(NamedTuple):
    """A network in evaluation mode, on the CPU, and its ``model.json``."""

    module: nn.Module
    info: dict[str, Any]


def make_module(kind: str, architecture: Mapping[str, Any]) -> nn.Module:
    """A network with fresh weights; only the module of its kind is imported."""
    if kind not in CLASSES:
        raise UserError(f"a model of kind {kind!r} is unknown; kinds are {', '.join(CLASSES)}")
    module, _, name = CLASSES[kind].rpartition(".")
    network: nn.Module = getattr(importlib.import_module(f"pipeline_lib.{module}"), name)(**architecture)
    return network


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors, atomically.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    with atomic_path(path) as temporary:
        try:
            save_file({name: value.detach().contiguous().cpu() for name, value in tensors.items()}, temporary)
        except SafetensorError as error:
            # safetensors writes from Rust, which names the system's error in words only.
            number = re.search(r"os error (\d+)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def save_bundle(
    folder: Path, module: nn.Module, *, kind: str, architecture: Mapping[str, Any], info: Mapping[str, Any]
) -> None:
    """Write a bundle into ``folder``; model.json comes last."""
    save_tensors(module.state_dict(), folder / WEIGHTS)
    plan = {
        "format": FORMAT,
        "kind": kind,
        "architecture": dict(architecture),
        "weights_sha256": sha256_file(folder / WEIGHTS),
        **info,
    }
    write_json(folder / PLAN, plan)


def load_bundle(path: str | Path) -> Bundle:
    """The network and the plan of a bundle.

    Args:
        path: its folder, the name of one that ships, or one of its ``checkpoints/step-….safetensors``.

    Raises:
        UserError: a file is missing, damaged, written by a later version, or the weights are not of this architecture.
    """
    path = find_bundle(path)
    folder = path if path.is_dir() else path.parent.parent
    weights = path / WEIGHTS if path.is_dir() else path
    info = read_plan(folder)
    if not weights.is_file():
        raise UserError(f"{weights} is missing: the model was not trained to its end; run its training again")
    try:
        module = make_module(info["kind"], info["architecture"])
        module.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{weights} does not fit {folder / PLAN} ({reason}); train it again") from error
    return Bundle(module.eval().requires_grad_(False), info)


def describe(
    images: PackedArrays,
    best_step: int,
    steps: int,
    licence: str,
    *,
    start: Start | None = None,
    beside: Sequence[Mapping[str, Any]] = (),
    **more: Any,
) -> dict[str, Any]:
    """What model.json says of every trained model, besides its network.

    Args:
        images: the training images; who they are of is kept as hashes.
        best_step: of the lowest validation loss.
        steps: made in all.
        licence: terms of the scans it learned from; may be empty.
        start: what it started from, whose people and terms stay with it.
        beside: plans of other networks that it learned with, whose people it knows as well.
        more: what only this kind of model has.
    """
    index = images.index
    before = [*beside, *([start.plan] if start else [])]
    return {
        **seen_too(trained_people(index), *before),
        "prepared": prepared_of(images.folders),
        "train_images": len(index),
        "train_scans": int(index["scan"].nunique()),
        "train_people": int(index["participant"].nunique()),
        "brain_outside": brain_outside(index),
        "steps": steps,
        "best_step": best_step,
        "licence": terms(licence, start.described() if start else None),
        **({"started_from": start.described()} if start else {}),
        "figures": [],
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "lightning-fabric")},
        **more,
    }
