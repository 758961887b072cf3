"""Training progress on disk: complete and recognisably so, or absent.

    state/<key>/step-00000500.safetensors    every tensor: networks, averages, optimisers, gradient scaler
    state/<key>/step-00000500.json           manifest, written last: step, history, hash of the tensors

Nothing here unpickles: a checkpoint can be opened without trusting whoever wrote it.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import Optimizer

from pipeline_lib.errors import UserError
from pipeline_lib.files import read_json, sha256_file, sha256_text, write_json
from pipeline_lib.training.artifact import save_tensors

log = logging.getLogger("pipeline")


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Tensor], values: Mapping[str, Any], *, keep: int, best: int
) -> Path:
    """Write the checkpoint of ``step``, then remove all but the last ``keep`` and that of step ``best``.

    Raises:
        UserError: the disk is full, or the folder cannot be written; older checkpoints stay.
    """
    path = folder / f"step-{step:08d}.safetensors"
    try:
        manifest = path.with_suffix(".json")
        manifest.unlink(missing_ok=True)
        save_tensors(tensors, path)
        content = {"step": step, "tensors_sha256": sha256_file(path), "values": values}
        write_json(manifest, {"content": content, "sha256": _hash(content)})
        _sync(folder)
    except OSError as error:
        raise UserError(
            f"{folder}: the checkpoint of step {step} cannot be written ({error.strerror or error}): "
            "free space or make the folder writable, then run again; earlier checkpoints are kept"
        ) from error
    steps = sorted(int(file.stem.removeprefix("step-")) for file in folder.glob("step-*.json"))
    for old in steps[:-keep]:
        if old != best:
            (folder / f"step-{old:08d}.json").unlink()
            (folder / f"step-{old:08d}.safetensors").unlink()
    return path


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any], int] | None:
    """Tensors, values and step of the newest checkpoint that is whole; None where there is none.

    One that is truncated or altered is named in the log, and the one before it is used. What a killed
    process left half-written is removed.
    """
    for leftover in folder.glob(".partial-*"):
        leftover.unlink()
    for manifest in sorted(folder.glob("step-*.json"), reverse=True):
        fault = _fault(manifest)
        if fault:
            log.warning("%s is %s: using the checkpoint before it", manifest.with_suffix(".safetensors"), fault)
            continue
        content = read_json(manifest)["content"]
        return _tensors(manifest), content["values"], int(content["step"])
    return None


def load_step(folder: Path, step: int) -> dict[str, Tensor]:
    """Tensors of the checkpoint of ``step``.

    Raises:
        UserError: it is missing, truncated or altered.
    """
    manifest = folder / f"step-{step:08d}.json"
    fault = _fault(manifest) if manifest.is_file() else "missing"
    if fault:
        raise UserError(f"{manifest.with_suffix('.safetensors')} is {fault}; remove {folder} and train again")
    return _tensors(manifest)


def optimiser_tensors(optimiser: Optimizer, names: Mapping[int, str]) -> dict[str, Tensor]:
    """An optimiser's state as tensors named ``<parameter>/<entry>``; ``names`` goes by id of the parameter."""
    return {
        f"{names[id(parameter)]}/{entry}": value
        for parameter, state in optimiser.state.items()
        for entry, value in state.items()
    }


def restore_optimiser(optimiser: Optimizer, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimiser_tensors` gave: step counters on the CPU, all else where the parameter is."""
    for name, parameter in module.named_parameters():
        entries = {key.rpartition("/")[2]: key for key in tensors if key.rpartition("/")[0] == name}
        for entry, key in entries.items():
            value = tensors[key].clone()
            optimiser.state[parameter][entry] = value if entry == "step" else value.to(parameter)


def _fault(manifest: Path) -> str:
    """What is wrong with a checkpoint; empty where nothing is."""
    try:
        written = read_json(manifest)
        content, digest = written["content"], written["sha256"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        return "unreadable"
    if _hash(content) != digest:
        return "altered (its manifest does not match its hash)"
    tensors = manifest.with_suffix(".safetensors")
    if not tensors.is_file():
        return "incomplete (its tensors are missing)"
    if sha256_file(tensors) != content["tensors_sha256"]:
        return "truncated or altered (its tensors do not match their hash)"
    return ""


def _tensors(manifest: Path) -> dict[str, Tensor]:
    path = manifest.with_suffix(".safetensors")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is no safetensors file ({error}); remove {path.parent} and train again") from None


def _hash(content: Mapping[str, Any]) -> str:
    return sha256_text(json.dumps(content, sort_keys=True))


def _sync(folder: Path) -> None:
    """Make the renames last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
