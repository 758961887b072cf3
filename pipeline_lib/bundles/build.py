"""A finished recipe as a bundle that ships: small weights, all that applying it needs, a card and a licence."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline_lib.bundle_plan import CARD, DENOISER, LICENCE, PLAN, WEIGHTS, FinishedRecipe, finished_recipe, flat
from pipeline_lib.bundles.bundle import load_bundle, save_tensors
from pipeline_lib.errors import UserError
from pipeline_lib.files import atomic_directory, read_json, sha256_file, write_json, write_text
from pipeline_lib.tasks import TASKS

LARGEST = 8_000_000
"""Bytes of a bundle that ships."""
HARMLESS = 2e-3
"""Share of its size by which a network's output may change when its weights are rounded to float16."""
COPIES = "share of suspected copies"
TIMESTEPS = (0, 100, 500)


def build(
    results: Path, name: str, out: Path, *, data: str, use: str = "", licence_file: Path | None = None
) -> list[str]:
    """Write the bundle ``out/name`` of a finished recipe; what is to be said of it.

    Args:
        results: ``results/<recipe>``, run to its end.
        data: a sentence on the scans it learned from.
        use: a sentence on what it is for; empty: its task's question.
        licence_file: terms as a text; None: those of ``cohort.licence``.

    Raises:
        UserError: something is missing, no terms are stated, the bundle is too large, or a generator may copy people.
    """
    finished = finished_recipe(results)
    terms = terms_of(results, finished.plan, licence_file)
    metrics: list[dict[str, Any]] = read_json(results / "evaluation" / "metrics.json")
    copies = _copies(metrics)
    if copies and copies["samples"] > copies["expected"]:
        raise UserError(
            f"{results}: {copies['samples']:.1%} of its samples are suspected copies of training people, of held-out people "
            f"{copies['expected']:.1%} at most: a generator that may show people does not ship"
        )
    said: list[str] = []
    with atomic_directory(out / name) as folder:
        for part, files in finished.parts.items():
            if WEIGHTS not in files:
                for file, path in files.items():
                    (folder / "fitted").mkdir(exist_ok=True)
                    shutil.copyfile(path, folder / "fitted" / file)
                continue
            place = folder if part == finished.last else folder / part
            more = (
                {"recipe": _recipe(finished), "figures": _figures(metrics, finished)} if part == finished.last else {}
            )
            said.append(f"{part}: {shrink(files[PLAN].parent, place, more)}")
        write_text(folder / LICENCE, terms)
        write_text(folder / CARD, _card(name, finished, metrics, data, use, said, copies))
        size = refuse_large(folder, name)
    return [*said, f"{out / name}: {size / 1e6:.1f} MB"]


def terms_of(results: Path, plan: Mapping[str, Any], licence_file: Path | None) -> str:
    """The text of a bundle's licence.

    Raises:
        UserError: nobody stated any terms.
    """
    terms = licence_file.read_text(encoding="utf-8") if licence_file else str(plan.get("licence") or "")
    if not terms.strip():
        raise UserError(f"{results}: nobody stated the terms of its scans; set cohort.licence, or give --licence-file")
    return f"{terms.strip()}\n"


def refuse_large(folder: Path, name: str) -> int:
    """Bytes of a bundle.

    Raises:
        UserError: they are too many for one that ships.
    """
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > LARGEST:
        raise UserError(
            f"{name} is {size / 1e6:.1f} MB, a bundle that ships has {LARGEST / 1e6:g} at most: train a smaller one"
        )
    return size


def rounded(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights in float16, except a codebook, whose counts are large; what loads them makes float32 of it."""
    return {
        name: value.half() if value.dtype == torch.float32 and not name.startswith("quantiser.") else value
        for name, value in tensors.items()
    }


@torch.no_grad()
def difference(bundle: Path, other: Path) -> float:
    """Largest root mean square by which the outputs of two bundles of one network differ, over that of the output.

    The inputs are noise; of a denoiser at several timesteps, of a regression a patch in the units of its source.
    """
    one, other_one = (load_bundle(path) for path in (bundle, other))
    size = one.info["data"]["size"]
    if one.info["kind"] == "regressor":
        size = [one.info["options"]["patch"]] * len(size)
    x = torch.randn((1, one.info["architecture"]["in_channels"], *size), generator=torch.Generator().manual_seed(0))
    if one.info["kind"] == "regressor":
        units = (-1, *[1] * len(size))
        x = x * one.module.spread.reshape(units) + one.module.centre.reshape(units)  # type: ignore[operator]
    found = []
    for t in TIMESTEPS if one.info["kind"] == "unet" else (0,):
        before, after = (_output(network.module, network.info["kind"], x, t) for network in (one, other_one))
        found.append(float((after - before).norm() / before.norm().clamp(min=1e-12)))
    return max(found)


def _output(network: torch.nn.Module, kind: str, x: Tensor, t: int) -> Tensor:
    output: Tensor
    if kind == "regressor":
        output = network(x)
    elif kind == "unet":
        output = network(x, torch.tensor([t]))
    else:
        output = network.decode(network.encode(x)[0])  # type: ignore[operator]
    return output


def shrink(network: Path, out: Path, more: Mapping[str, Any]) -> str:
    """Write a network with weights in float16 where that is harmless; what was done."""
    plan = {**read_json(network / PLAN), **more}
    tensors = load_file(network / WEIGHTS)
    save_tensors(rounded(tensors), out / WEIGHTS)
    write_json(out / PLAN, {**plan, "weights_sha256": sha256_file(out / WEIGHTS)})
    changed = difference(network, out)
    if changed <= HARMLESS:
        return f"weights rounded to float16, which changes its output by {changed:.1e} of its size"
    save_tensors(tensors, out / WEIGHTS)
    write_json(out / PLAN, {**plan, "weights_sha256": sha256_file(out / WEIGHTS)})
    return f"weights of float32: rounded to float16 its output would change by {changed:.1e} of its size"


def _recipe(finished: FinishedRecipe) -> Mapping[str, Any]:
    """The options of the recipe, with nothing of where it was run."""
    evaluation = dict(finished.options.get("evaluation", {}))
    # Files of the machine it was trained on.
    if evaluation.get("features", "random") != "random":
        evaluation["features"] = "random"
    evaluation.pop("segmenter", None)
    evaluation.pop("regions", None)
    return {**finished.options, "evaluation": evaluation}


def _figures(metrics: list[dict[str, Any]], finished: FinishedRecipe) -> list[dict[str, Any]]:
    """The task's headline on held-out people, and what it has to beat, over all groups."""
    names = {*TASKS[finished.options["task"]].headline, COPIES, "best achievable Dice"}
    keys = ("name", "part", "value", "low", "high", "unit", "role", "method", "against", "people", "images")
    return [
        {key: row[key] for key in keys}
        for row in metrics
        if row["name"] in names and row["group"] == "all" and row["value"] is not None and row["role"] != "checkpoint"
        and (row["part"] == "" or row["name"] in ("PSNR", "SSIM"))
    ]  # fmt: skip


def _copies(metrics: list[dict[str, Any]]) -> dict[str, float] | None:
    """Share of suspected copies among samples, and the most that held-out people let expect; None where none was looked for."""
    rows = [row for row in metrics if row["name"] == COPIES and row["value"] is not None and not row["against"]]
    samples = next((row for row in rows if row["role"] == "result"), None)
    people = next((row for row in rows if row["role"] == "reference"), None)
    if samples is None or people is None:
        return None
    return {"samples": samples["value"], "expected": people["value"] if people["high"] is None else people["high"]}


def _card(
    name: str, finished: FinishedRecipe, metrics: list[dict[str, Any]], data: str, use: str, weights: list[str],
    copies: Mapping[str, float] | None,
) -> str:  # fmt: skip
    plan, task = finished.plan, TASKS[finished.options["task"]]
    parts = [
        f"# {name}\n",
        f"{use or task.question}\n",
        "## Use\n",
        "```sh",
        f"python -m pipeline_lib.apply {name} FOLDER --out results/study   # on new scans, nothing is trained",
        "```\n",
        f"In a recipe, `weights: {name}` applies it"
        + (f" and `denoiser.start_from: {name}` trains it further.\n" if finished.last == DENOISER else ".\n"),
        *learned_from(plan, data),
        *held_out(_figures(metrics, finished)),
        *_on_copies(copies),
        "## Limits\n",
        *(f"- {limit}" for limit in task.limits),
        *(f"- {line[0].upper()}{line[1:]}." for line in weights),
    ]
    return "\n".join(parts) + "\n"


def learned_from(plan: Mapping[str, Any], data: str) -> Iterator[str]:
    """The lines of a card on scans and images."""
    prepared = plan.get("prepared") or {}
    yield "## Learned from\n"
    yield f"{data} Terms: {plan.get('licence') or 'see LICENSE'}.\n"
    yield (
        f"{plan['train_people']} people, {plan['train_scans']} scans, {plan['train_images']} images; {plan['steps']} steps"
        f"{started(plan)}. Who they are is kept as hashes, by which the same people are refused as test people.\n"
    )
    yield "## Images\n"
    for key, value in flat({k: v for k, v in prepared.items() if v}):
        if ".quality." not in key:
            yield f"- `{key}`: {value}"
    yield ""


def held_out(figures: list[dict[str, Any]]) -> list[str]:
    """The lines of a card on held-out people."""
    head = ["| what | of | role | value | 95 % | people |", "|---|---|---|---|---|---|"]
    return ["## On held-out people\n", *head, *rows_of(figures), ""]


def started(plan: Mapping[str, Any]) -> str:
    return f", from {plan['started_from']['name']}" if "started_from" in plan else ", from nothing"


def rows_of(figures: list[dict[str, Any]]) -> Iterator[str]:
    for row in figures:
        named = ", ".join(text for text in (row["name"], row["part"]) if text)
        of = f"{row['method']} - {row['against']}" if row["against"] else row["method"]
        interval = "" if row["low"] is None or row["high"] is None else f"{row['low']:.3g} to {row['high']:.3g}"
        yield f"| {named} | {of} | {'difference' if row['against'] else row['role']} | {row['value']:.3g} {row['unit']} | {interval} | {row['people'] or ''} |"


def _on_copies(copies: Mapping[str, float] | None) -> Iterator[str]:
    if copies is not None:
        yield "## Copies\n"
        yield (
            f"{copies['samples']:.1%} of its samples are more like a training image than training people are like each other; "
            f"of held-out people, who are no copies, up to {copies['expected']:.1%} are.\n"
        )
