"""Where bundles lie and what their plans say (docs/bundles.md).

Nothing heavy is imported: a configuration may name a bundle, and every job of a cluster reads the configuration.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline_lib.errors import UserError
from pipeline_lib.files import read_json, read_table, sha256_file, sha256_text

FORMAT = 1
"""Of what is written; everything up to it is read."""
WEIGHTS, PLAN = "model.safetensors", "model.json"
CARD, LICENCE = "card.md", "LICENSE"
"""Of a whole recipe: what a person reads before using it."""
SHIPPED = Path(__file__).resolve().parent / "bundles"
"""Where the bundles lie that ship with the library, a folder each."""
DENOISER, AUTOENCODER, REGRESSION = "diffusion", "autoencoder", "regression"
"""Where a finished recipe keeps its networks, below ``results/<recipe>/``."""
FITTED: Mapping[str, Mapping[str, str]] = {
    "standards": {
        "standards.json": "standards/standards.json",
        "floors.json": "standards/floors.json",
        "places.npz": "standards/places.npz",
        "thresholds.tsv": "evaluation/thresholds.tsv",
    },
    "floor": {"coefficients.json": "floor/coefficients.json"},
}
"""What was fitted to training and validation people and travels with a recipe: folder of a frozen recipe to its files,
each with its place in the folder of a finished one."""
ONLY_SOME = frozenset({"places.npz"})
"""Of these, what some recipes have and others have no need of."""
MARK_SCALE = "0 to 1"
"""Of the thresholds of a network's own mark."""

NOT_COMPARED = ("preprocess.quality", "data.slices.from_mm", "data.slices.to_mm", "data.slices.every_mm")
"""Which scans were let in and where slices lie says nothing about how an image was made."""
ONLY_DIFFUSION = ("preprocess.dwi_channels", "preprocess.noddi")
STRIPPED_BEFORE = ("none", "given")
"""Of ``preprocess.brain_extraction``: the skull was taken off elsewhere, so that any program's brain is like it."""


@dataclass(frozen=True)
class FinishedRecipe:
    """All that applying a trained recipe to new scans needs.

    Attributes:
        name: what a person calls it.
        options: of the recipe, as far as its stages read them.
        plan: ``model.json`` of the network that its results come from: its denoiser, or the regression of a translation that
            draws nothing.
        parts: folder below ``results/<recipe>/`` to the files in it, each with where it lies.
    """

    name: str
    options: Mapping[str, Any]
    plan: Mapping[str, Any]
    parts: Mapping[str, Mapping[str, Path]]

    @property
    def last(self) -> str:
        """Which of the parts that network is."""
        return REGRESSION if self.plan.get("role") == REGRESSION else DENOISER

    @property
    def digest(self) -> str:
        """A hash of the content of every part."""
        held = {
            part: {name: sha256_file(path) for name, path in files.items() if name != WEIGHTS}
            for part, files in self.parts.items()
        }
        return sha256_text(json.dumps(held, sort_keys=True))[:16]


def shipped() -> list[str]:
    """Names of the bundles that ship with the library."""
    return sorted(path.parent.name for path in SHIPPED.glob(f"*/{PLAN}"))


def find_bundle(name: str | Path) -> Path:
    """The folder (or file of weights) of a bundle that ships, by its name, or of any other, by its path.

    Raises:
        UserError: there is neither.
    """
    path = SHIPPED / name if str(name) in shipped() else Path(name)
    if not os.path.exists(path):  # which takes names too long for a file system
        raise UserError(
            f"{name}: no such bundle; give a folder with {PLAN}, or a name: {', '.join(shipped()) or 'none ships'}"
        )
    return path


def read_plan(folder: Path) -> dict[str, Any]:
    """``model.json`` of a bundle.

    Raises:
        UserError: it is missing, damaged, or of a later format than this version reads.
    """
    path = folder / PLAN
    if not path.is_file():
        raise UserError(f"{path} is missing: the model was not trained to its end; run its training again")
    try:
        info = read_json(path)
        version = int(info["format"])
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError):
        raise UserError(f"{path} is not the plan of a bundle, or damaged; copy it again, or train again") from None
    if version > FORMAT:
        raise UserError(f"{path} has format {version}; this version reads up to {FORMAT}: install a later one")
    return dict(info)


def stated(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The held-out figures of a plan; segmenters of earlier versions name them ``metric`` and no role."""
    as_now = {
        "name": "",
        "part": "",
        "low": None,
        "high": None,
        "unit": "",
        "role": "result",
        "method": "",
        "against": "",
        "people": None,
    }
    return [as_now | {"name": row.get("metric", "")} | row for row in plan.get("figures", [])]


def finished_recipe(name: str | Path) -> FinishedRecipe:
    """The parts of a recipe that is to be applied: of a bundle, by name or folder, or of ``results/<recipe>``.

    Raises:
        UserError: there is none, or something of it is missing.
    """
    folder = find_bundle(name)
    if not folder.is_dir():
        raise UserError(f"{name} is a file; a recipe is applied from a bundle's folder, or results/<recipe>")
    last = next((folder / name for name in (DENOISER, REGRESSION) if (folder / name / PLAN).is_file()), folder)
    if (folder / PLAN).is_file():
        last = folder
    elif last == folder:
        raise UserError(
            f"{folder} has no finished recipe: neither {DENOISER}/{PLAN} nor {REGRESSION}/{PLAN}, nor {PLAN} of a bundle; "
            "run the recipe to its end, or correct the path"
        )
    of_results = last != folder
    plan = read_plan(last)
    if of_results:
        options = _evaluated(folder)
    elif "recipe" in plan:
        options = plan["recipe"]
    else:
        raise UserError(
            f"{name}: is a network and no whole recipe; give the folder of the finished recipe (results/<recipe>), or a "
            "bundle that `python -m pipeline_lib.bundles build` wrote of it"
        )
    networks = {REGRESSION if plan.get("role") == REGRESSION else DENOISER: last} | {
        f"{AUTOENCODER}/{path.parent.name}": path.parent for path in sorted(folder.glob(f"{AUTOENCODER}/*/{PLAN}"))
    }
    if (folder / REGRESSION / PLAN).is_file():
        networks[REGRESSION] = folder / REGRESSION
    parts = {part: {file: path / file for file in (PLAN, WEIGHTS)} for part, path in networks.items()}
    for part, files in FITTED.items():
        places = {file: folder / (place if of_results else f"fitted/{file}") for file, place in files.items()}
        if any(path.is_file() for path in places.values()):
            parts[part] = {file: path for file, path in places.items() if file not in ONLY_SOME or path.is_file()}
    missing = [path for files in parts.values() for path in files.values() if not path.is_file()]
    if missing:
        raise UserError(
            f"{missing[0]} is missing: copy the bundle again, or run its recipe to its end with this version"
        )
    _refuse_logits(options, parts)
    return FinishedRecipe(folder.resolve().name, options, plan, parts)


def is_mark(parts: Iterable[object]) -> bool:
    """Whether an anomaly map of these parts is the network's own mark and nothing else: then it goes from 0 to 1."""
    return [str(part) for part in parts] == ["segmentation"]


def _refuse_logits(options: Mapping[str, Any], parts: Mapping[str, Mapping[str, Path]]) -> None:
    """Raise UserError where thresholds of a mark are of the version whose marks were logits."""
    path = parts.get("standards", {}).get("thresholds.tsv")
    weights = options.get("evaluation", {}).get("score", {}).get("weights", {})
    if path is None or not is_mark(weights):
        return
    if any(row["role"] == "result" and row["threshold"] and row.get("scale") != MARK_SCALE for row in read_table(path)):
        raise UserError(
            f"{path} was written by an earlier version, whose marks were logits and not from {MARK_SCALE}: evaluate its recipe again "
            "with this version, and build the bundle again"
        )


def starting_place(name: str | Path, section: str, role: str = "image") -> Path:
    """Where the network lies that another starts from: a folder with `PLAN`, or a file of weights.

    Args:
        name: a bundle by its name or folder, the folder of a finished recipe, or a file.
        section: ``autoencoder`` or ``denoiser``: of a whole recipe, which of its networks.
        role: of the autoencoder.

    Raises:
        UserError: there is none.
    """
    folder = find_bundle(name)
    if not folder.is_dir():
        return folder
    inside = folder / DENOISER if section == "denoiser" else folder / AUTOENCODER / role
    place = inside if (inside / PLAN).is_file() else folder
    if not (place / PLAN).is_file():
        raise UserError(
            f"{name}: holds no {PLAN}: give a bundle, a folder of results such as {inside}, or a file of weights"
        )
    return place


def content_of(place: Path) -> str:
    """A hash of the weights of `starting_place`, which stands for them where a path must not."""
    said = read_plan(place).get("weights_sha256") if place.is_dir() else None
    return str(said or sha256_file(place / WEIGHTS if place.is_dir() else place))[:16]


STARTED_FROM = "; started from "


def terms(licence: str, started_from: Mapping[str, Any] | None) -> str:
    """Terms of a model: of its own scans, and of what it started from."""
    inherited = (started_from or {}).get("licence", "").split(STARTED_FROM)
    return STARTED_FROM.join(filter(None, dict.fromkeys([licence, *inherited])))


def _evaluated(folder: Path) -> Mapping[str, Any]:
    """The options of a finished recipe, as its evaluation was given them."""
    sidecar = folder / "evaluation" / "provenance.json"
    if not sidecar.is_file():
        raise UserError(f"{sidecar} is missing: the recipe was not evaluated; run it to its end first")
    options: Mapping[str, Any] = read_json(sidecar)["options"]
    return options


def differences(other: Mapping[str, Any], chunk: Mapping[str, Any]) -> Iterator[str]:
    """``data.voxel_size 2.0 (there 1.0)`` for everything by which ``chunk`` differs from ``other`` as an image."""
    here, there = (dict(flat(each)) for each in (chunk, other))
    kinds = {there.get("data.modality"), there.get("data.target")}
    skipped = NOT_COMPARED if kinds & {"dwi", "noddi"} else (*NOT_COMPARED, *ONLY_DIFFUSION)
    extraction = "preprocess.brain_extraction"
    if {here.get(extraction), there.get(extraction)} & set(STRIPPED_BEFORE):
        skipped = (*skipped, extraction)
    for key in sorted(here.keys() | there.keys()):
        if not key.startswith(skipped) and here.get(key) != there.get(key):
            yield f"{key} {_said(here, key)} (there {_said(there, key)})"


def flat(value: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    """``a.b`` and its value, for nested mappings."""
    for name, each in value.items():
        if isinstance(each, Mapping):
            yield from flat(each, f"{where}{name}.")
        else:
            yield f"{where}{name}", each


def _said(values: Mapping[str, Any], key: str) -> str:
    return str(values[key]) if key in values else "not given"
