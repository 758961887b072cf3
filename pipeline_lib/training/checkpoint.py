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
from typing import Any, Protocol

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import Optimizer

from pipeline_lib.bundles.bundle import save_tensors
from pipeline_lib.errors import UserError
from pipeline_lib.files import read_json, sha256_file, sha256_text, write_json

log = logging.getLogger("pipeline")


class Stateful(Protocol):
    """Something whose state can be taken and put back: a network, an optimiser, a record."""

    def state_dict(self) -> Mapping[str, Any]:
        """Tensors, and values that JSON can hold, by name."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> object:
        """Put back what `state_dict` gave."""
        ...


class Checkpoints:
    """The checkpoints of one training. What they hold is in ``things``, and nothing else is."""

    def __init__(self, folder: Path, things: Mapping[str, Stateful], keep: int) -> None:
        """``keep``: how many are kept, the best one apart."""
        self.folder, self.things, self.keep = folder, things, keep

    def save(self, step: int, best: int) -> Path:
        """Write the checkpoint of ``step``, then remove all but the last few and that of step ``best``."""
        tensors: dict[str, Tensor] = {}
        values: dict[str, dict[str, Any]] = {}
        for name, thing in self.things.items():
            state = thing.state_dict()
            tensors |= {f"{name}/{key}": value for key, value in state.items() if isinstance(value, Tensor)}
            values[name] = {key: value for key, value in state.items() if not isinstance(value, Tensor)}
        return save_checkpoint(self.folder, step, tensors, values, keep=self.keep, best=best)

    def resume(self) -> int:
        """Put everything back as it was at the newest whole checkpoint; its step, 0 where there is none."""
        found = load_checkpoint(self.folder)
        if found is None:
            return 0
        tensors, values, step = found
        for name, thing in self.things.items():
            thing.load_state_dict({**values.get(name, {}), **_under(tensors, f"{name}/")})
        return step

    def restore(self, name: str, step: int) -> None:
        """Put one thing back as it was at ``step``, whose checkpoint was kept as the best."""
        self.things[name].load_state_dict(_under(load_step(self.folder, step), f"{name}/"))


class OptimiserState:
    """The state of an optimiser by the names of its parameters: tensors named ``<parameter>/<entry>``."""

    def __init__(self, optimiser: Optimizer, module: nn.Module) -> None:
        self.optimiser, self.module = optimiser, module

    def state_dict(self) -> dict[str, Tensor]:
        """The entries that the optimiser has made so far."""
        return {
            f"{name}/{entry}": value
            for name, parameter in self.module.named_parameters()
            for entry, value in self.optimiser.state.get(parameter, {}).items()
        }

    def load_state_dict(self, state_dict: Mapping[str, Tensor], /) -> None:
        """Put them back: step counters on the CPU, all else where the parameter is."""
        parameters = dict(self.module.named_parameters())
        for key, value in state_dict.items():
            name, _, entry = key.rpartition("/")
            own = value.clone()
            self.optimiser.state[parameters[name]][entry] = own if entry == "step" else own.to(parameters[name])


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


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


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
