"""A finished model on disk: weights in safetensors, everything else one may want to know in JSON.

    model.safetensors    the averaged weights
    model.json           kind, architecture, and what it was trained on and with

Nothing is unpickled, and the JSON alone is enough to build the network the weights belong to.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pandas import DataFrame
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline_lib.dataset.packed import brain_outside
from pipeline_lib.dataset.people import trained_people
from pipeline_lib.errors import UserError
from pipeline_lib.files import atomic_path, read_json, write_json

CLASSES = {"unet": "UNet", "autoencoder": "KLAutoencoder", "vqgan": "VQGAN"}
"""Kind of model, which is its module in pipeline_lib.models -> its class."""


def make_module(kind: str, architecture: Mapping[str, Any]) -> nn.Module:
    """A network with fresh weights; only the module of its kind is imported."""
    if kind not in CLASSES:
        raise UserError(f"a model of kind {kind!r} is unknown; kinds are {', '.join(CLASSES)}")
    network: nn.Module = getattr(importlib.import_module(f"pipeline_lib.models.{kind}"), CLASSES[kind])(**architecture)
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


def save_weights(module: nn.Module, path: Path) -> None:
    """A module's weights alone, atomically; the architecture is in model.json."""
    save_tensors(module.state_dict(), path)


def save_model(
    folder: Path, module: nn.Module, *, kind: str, architecture: Mapping[str, Any], info: Mapping[str, Any]
) -> None:
    """Write a model into ``folder``; model.json comes last."""
    save_weights(module, folder / "model.safetensors")
    write_json(folder / "model.json", {**info, "kind": kind, "architecture": dict(architecture)})


def load_model(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """A model in evaluation mode, on the CPU, and its ``model.json``.

    Args:
        path: the model's folder, or one of its ``checkpoints/step-….safetensors``.

    Raises:
        UserError: a file is missing, damaged, or not of this architecture.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent.parent
    weights = path / "model.safetensors" if path.is_dir() else path
    for file in (folder / "model.json", weights):
        if not file.is_file():
            raise UserError(f"{file} is missing: the model was not trained to its end; run its training again")
    info: dict[str, Any] = read_json(folder / "model.json")
    module = make_module(info["kind"], info["architecture"])
    try:
        module.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{weights} does not fit {folder / 'model.json'} ({reason}); train it again") from error
    return module.eval().requires_grad_(False), info


def describe(index: DataFrame, best_step: int, steps: int, **more: Any) -> dict[str, Any]:
    """The part of model.json that every model has: people, scans, size and field of view of the training set, steps, versions."""
    return {
        **trained_people(index),
        "train_images": len(index),
        "train_scans": int(index["scan"].nunique()),
        "train_people": int(index["participant"].nunique()),
        "brain_outside": brain_outside(index),
        "steps": steps,
        "best_step": best_step,
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "lightning-fabric")},
        **more,
    }
