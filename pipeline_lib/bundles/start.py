"""Weights that a training starts from: of a bundle, of a file, or of MONAI's AutoencoderKL."""

from __future__ import annotations

import importlib
import logging
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline_lib.bundle_plan import AUTOENCODER, DENOISER, WEIGHTS, content_of, read_plan, starting_place
from pipeline_lib.dataset.conditions import Condition, Conditions
from pipeline_lib.errors import UserError

log = logging.getLogger("pipeline")

CONDITIONED = ("condition.", "null", "pool.")
"""Keys of a U-Net's weights that depend on what it is told."""
NESTED = ("state_dict", "model", "autoencoder")
"""Where files of torch keep a state dict among other things."""


@dataclass(frozen=True)
class Start:
    """Weights to start from.

    Attributes:
        name: what a person calls them.
        content: hash of them.
        state: tensors by name.
        plan: ``model.json`` of their bundle; empty for a file.
    """

    name: str
    content: str
    state: Mapping[str, Tensor]
    plan: Mapping[str, Any]

    @property
    def conditions(self) -> Conditions:
        """What the network was told."""
        return Conditions.of(self.plan)

    def encoded_alike(self, conditions: Conditions) -> Conditions:
        """``conditions`` with numbers in the units of the network that knows them: 70 years stay 70 years."""
        known = {each.name: each for each in self.conditions if each.kind == "number"}
        return Conditions(
            [
                replace(each, mean=known[each.name].mean, scale=known[each.name].scale)
                if each.kind == "number" and each.name in known
                else each
                for each in conditions
            ]
        )

    def new_categories(self, conditions: Conditions) -> list[int]:
        """Places of those of ``conditions`` that have a category which the network was never told."""
        known = {each.name: each.categories for each in self.conditions}
        return [n for n, each in enumerate(conditions) if not set(each.categories) <= set(known.get(each.name, ()))]

    def refuse_otherwise(self, section: str, **here: Any) -> None:
        """Refuse another forward process, under which the weights mean something else.

        Raises:
            UserError: naming the first difference.
        """
        there = self.plan.get("diffusion", {})
        for key, value in here.items():
            if key in there and there[key] != value:
                raise UserError(
                    f"{section}.start_from: {self.name} was trained with {key} {there[key]}, here it is {value}; set "
                    f"diffusion.{key}: {there[key]}"
                )

    def load_into(self, network: nn.Module, section: str, conditions: Conditions = Conditions()) -> None:  # noqa: B008
        """Give a network these weights.

        What a U-Net was told otherwise, or not at all, starts from its null: whatever it is told of it, the network does as
        if it were hidden. Where no condition differs, or it was told nothing, it is exactly the network that it starts from, with or
        without `Detail` behind it.

        Raises:
            UserError: the weights are of another network; the message names the layer.
        """
        if _monai().is_monai_autoencoder(self.state):
            self._load_monai(network, section)
            return
        own, state = network.state_dict(), dict(self.state)
        if section == "denoiser":
            state = _told(own, state, conditions, self.conditions)
            # Detail adds nothing as it is made.
            state |= {key: value for key, value in own.items() if key.startswith("detail.") and key not in state}
        for key in dict.fromkeys([*own, *state]):
            one, other = (tuple(held[key].shape) if key in held else None for held in (own, state))
            if one != other:
                raise UserError(self._unlike(section, key, one, other))
        network.load_state_dict(state)

    def refuse_monai_without_groups(self, groups: int | None) -> None:
        """Refuse weights of MONAI where nobody said how many groups their normalisations have, which no shape tells."""
        if groups is None and _monai().is_monai_autoencoder(self.state):
            raise UserError(
                f"autoencoder.start_from: {self.name} holds MONAI's AutoencoderKL, whose weights do not tell norm_num_groups; "
                "set autoencoder.groups to it (32 unless it was given)"
            )

    def described(self) -> dict[str, Any]:
        """What the plan of the trained model says of it."""
        return {"name": self.name, "weights": self.content, "licence": self.plan.get("licence", "")}

    def _load_monai(self, network: nn.Module, section: str) -> None:
        if not isinstance(network, _monai().KLAutoencoder):
            raise UserError(f"{section}.start_from: {self.name} holds MONAI's AutoencoderKL: set autoencoder.kind: vae")
        try:
            _monai().load_monai_autoencoder(network, self.state)
        except ValueError as error:
            raise UserError(f"{section}.start_from: {self.name}: {error}; make the autoencoder as MONAI's is") from None

    def _unlike(self, section: str, key: str, here: Sequence[int] | None, there: Sequence[int] | None) -> str:
        if here is None or there is None:
            said = f"{key} is in {'the weights' if here is None else 'the network'} only"
        else:
            said = f"{key} is {list(there)} there and {list(here)} here"
        known = {name: value for name, value in self.plan.get("architecture", {}).items() if name != "conditions"}
        advice = ", ".join(f"{name} {value}" for name, value in known.items())
        return f"{section}.start_from: {self.name} is of another network: {said}; it has {advice or 'no plan that says more'}"


def _monai() -> ModuleType:
    """Imported by name: what trains a denoiser does not depend on autoencoders."""
    return importlib.import_module("pipeline_lib.models.monai")


def read_start(start_from: str | Path, section: str, role: str = "image", content: str = "") -> Start:
    """Read the weights that a network starts from.

    Args:
        start_from: a bundle by its name or folder, the folder of a finished recipe, a file of safetensors, or one of torch,
            which is read with ``weights_only``: nothing else in it is unpickled.
        section: ``autoencoder`` or ``denoiser``.
        role: of the autoencoder.
        content: the hash that the run was planned with; empty: none was.

    Raises:
        UserError: there is nothing, or it cannot be read, or is not what the run was planned with.
    """
    place = starting_place(start_from, section, role)
    found = content_of(place)
    if content and found not in content.split():
        raise UserError(f"{section}.start_from: {start_from} changed since the run was planned; run again")
    if place.is_dir():
        return Start(_named(place), found, _tensors(place / WEIGHTS), read_plan(place))
    return Start(place.name, found, _tensors(place), {})


def seen_too(info: Mapping[str, Any], *others: Mapping[str, Any]) -> dict[str, list[str]]:
    """Hashed people and scans of a model and of what it was made from: none of them may judge it."""
    models = (info, *others)
    return {key: sorted({entry for each in models for entry in each.get(key, ())}) for key in ("people", "scans")}


def _named(place: Path) -> str:
    """The name of a bundle; of a folder of results the recipe's and the network's."""
    parts = place.resolve().parts
    return (
        "/".join(parts[-2:]) if place.name == DENOISER else "/".join(parts[-3:]) if AUTOENCODER in parts else parts[-1]
    )


def _tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"{path} is missing: copy it again")
    try:
        if path.suffix == ".safetensors":
            return {
                key: value.float() if value.is_floating_point() else value for key, value in load_file(path).items()
            }
        held = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{path} cannot be read as weights ({reason}); give safetensors, or a file of torch that holds tensors only"
        ) from None
    for key in NESTED:
        held = held[key] if isinstance(held, Mapping) and isinstance(held.get(key), Mapping) else held
    if not isinstance(held, Mapping) or not held or not all(isinstance(value, Tensor) for value in held.values()):
        raise UserError(f"{path} holds no state dict: give a file with tensors by name")
    return {str(key).removeprefix("module."): value for key, value in held.items()}


def _told(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], here: Conditions, there: Conditions
) -> dict[str, Tensor]:
    """A U-Net's weights with what it is told as in ``here``, from one that was told ``there``."""
    kept = {key: value for key, value in state.items() if not key.startswith(CONDITIONED) and ".cross." not in key}
    if not here:
        return kept
    # Attention to conditions adds nothing as long as its last layer is 0, as it is made.
    kept |= {key: state.get(key, value) for key, value in own.items() if ".cross." in key}
    null, pool, bias = own["null"].clone(), torch.zeros_like(own["pool.weight"]), torch.zeros_like(own["pool.bias"])
    tokens = null.shape[1]
    places = {each.name: place for place, each in enumerate(there)}
    columns = {place: slice(place * tokens, (place + 1) * tokens) for place in range(max(len(here), len(there)))}
    if there:
        if state["null"].shape[1] != tokens:
            return dict(state)  # of another width, which is said with the first layer that differs
        bias = state["pool.bias"].clone()
        null[:] = state["null"].mean(0)
        for name, place in places.items():
            if name not in here.names:  # hidden for good
                bias += state["pool.weight"][:, columns[place]] @ state["null"][place]
    for n, each in enumerate(here):
        known = places.get(each.name)
        if known is not None:
            null[n] = state["null"][known]
            pool[:, columns[n]] = state["pool.weight"][:, columns[known]]
        else:  # what its null adds is taken off again; from weights of 0, no category would learn to differ from another
            pool[:, columns[n]] = own["pool.weight"][:, columns[n]]
            bias -= pool[:, columns[n]] @ null[n]
        before = None if known is None or there[known].kind != each.kind else (known, there[known])
        kept |= _embedding(n, each, own, state, before, null[n])
    return {**kept, "null": null, "pool.weight": pool, "pool.bias": bias}


def _embedding(
    n: int,
    condition: Condition,
    own: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    before: tuple[int, Condition] | None,
    null: Tensor,
) -> dict[str, Tensor]:
    """The embedding of one condition: as it was where it was known, else its null whatever it is told."""
    prefix = f"condition.{n}."
    mine = {key: value.clone() for key, value in own.items() if key.startswith(prefix)}
    if condition.kind == "category":
        (key,) = mine
        rows = null.expand_as(mine[key]).clone()
        if before is not None:
            known = state[f"condition.{before[0]}.weight"]
            for code, name in enumerate(condition.categories):
                if name in before[1].categories:
                    rows[code] = known[before[1].categories.index(name)]
        return {key: rows}
    if before is not None:
        return {key: state[f"condition.{before[0]}.{key.removeprefix(prefix)}"] for key in mine}
    mine[f"{prefix}layers.2.weight"].zero_()
    mine[f"{prefix}layers.2.bias"].copy_(null)
    return mine
