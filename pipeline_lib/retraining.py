"""What will be trained again, and why: said before a run starts, since it may cost days.

A trained model's folder says what it was made of: its options and code and those of every stage before it
(``provenance.json``), its scans with their values (``trained_on.tsv``). Here they are held against the plan. Nothing heavy
is imported and no scan is opened.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline_lib.cohort.sheet import Scan
from pipeline_lib.files import pseudonym, read_json, read_table
from pipeline_lib.plan import Plan
from pipeline_lib.state import SIDECAR, TRAINED_ON, told, trained_groups

BEFORE = {"ingest": False, "preprocess": False, "dataset": True, "latents": True}
"""Stages whose code decides what is learned from, and whether each is of a recipe."""
RECORD = "inputs.json"
"""What ingestion keeps of a chunk: ``key``, the hash of its rows and of their files."""
SHOWN = 5
"""At most so many names are written out."""


@dataclass(frozen=True)
class Reason:
    """Why a model is trained again; ``sure`` unless what it learns from may yet come out as it was."""

    text: str
    sure: bool = True


def retraining(plan: Plan, results: Path) -> list[str]:
    """One line for each model that exists and will be trained again, with its reasons."""
    lines = []
    again: dict[str, bool] = {}
    for recipe in _earlier_first(plan):
        if plan.frozen(recipe):
            continue
        before: list[Reason] = []
        models = [
            (f"autoencoder/{role}", plan.autoencoder_script(recipe), "autoencoder") for role in plan.roles(recipe)
        ]
        if plan.recipes[recipe].regression is not None:
            models.append(("regression", "train_regression", "regression"))
        if not plan.recipes[recipe].draws_nothing:
            models.append(("diffusion", "train_denoiser", "denoiser"))
        for model, script, part in models:
            folder = results / recipe / model
            if not (folder / SIDECAR).is_file():
                if part == "denoiser":
                    again[recipe] = True
                continue
            reasons = list(_reasons(plan, recipe, results, folder, script, part))
            if part == "denoiser":
                reasons += _start(plan, recipe, folder, again)
            if part != "denoiser":
                before += reasons
            elif before:
                sure = any(reason.sure for reason in before)
                what = "autoencoder" if models[0][2] == "autoencoder" else "regression"
                reasons.insert(0, Reason(f"its {what} {'is' if sure else 'may be'} trained again", sure))
            if reasons:
                unless = "" if any(reason.sure for reason in reasons) else " unless its images come out the same"
                texts = "; ".join(reason.text for reason in reasons)
                lines.append(f"{recipe}: {model} will be trained again{unless}: {texts}")
            if reasons and part == "denoiser":
                again[recipe] = any(reason.sure for reason in reasons)
    return lines


def _start(plan: Plan, recipe: str, folder: Path, again: Mapping[str, bool]) -> Iterator[Reason]:
    """Whether the denoiser of another recipe that this one starts from is another, or is trained itself."""
    now = plan.earlier(recipe)
    inputs = (Path(path) for path in read_json(folder / SIDECAR)["inputs"])
    then = next((path.parent.name for path in inputs if path.name == folder.name), "")
    if now != then:
        yield Reason(f"it started from {then or 'no other recipe'}, now from {now or 'none'}")
    elif now in again:
        yield Reason(f"{now}, from which it starts, {'is' if again[now] else 'may be'} trained again", again[now])


def _earlier_first(plan: Plan) -> list[str]:
    """Recipes in their order, but for those that others start from, which come before them."""
    ordered: list[str] = []

    def place(recipe: str) -> None:
        if recipe and recipe not in ordered:
            place(plan.earlier(recipe))
            ordered.append(recipe)

    for recipe in plan.recipes:
        place(recipe)
    return ordered


def _reasons(plan: Plan, recipe: str, results: Path, folder: Path, script: str, part: str) -> Iterator[Reason]:
    """Everything in which the plan differs from what a model was made of."""
    made = read_json(folder / SIDECAR)
    yield from _people(plan, recipe, results, folder)
    if changed := _changed(made["options"], json.loads(plan.options(part, recipe))):
        yield Reason(f"its configuration changed: {changed}")
    lineage = made.get("lineage", {})
    preprocessed = lineage.get("preprocess", {}).get("options")
    if preprocessed is not None and (changed := _changed(preprocessed, json.loads(plan.options("preprocess")))):
        yield Reason(f"the preprocessing changed: {changed}")
    if made["code"] != plan.code(script, recipe, part):
        yield Reason("its code changed")
    passed = {stage: recipe if of_recipe else None for stage, of_recipe in BEFORE.items() if stage in lineage}
    if edited := [stage for stage, of in passed.items() if lineage[stage]["code"] != plan.code(stage, of, stage)]:
        yield Reason(f"the code of {' and '.join(edited)} changed", sure=False)


def _people(plan: Plan, recipe: str, results: Path, folder: Path) -> Iterator[Reason]:
    """New people, people gone, changed values and replaced scans, in training and in validation."""
    trained = folder / TRAINED_ON
    rows = read_table(trained) if trained.is_file() else []
    if not rows:
        return
    made = read_json(folder / SIDECAR)
    known, groups = {Path(path).name for path in made["inputs"]}, trained_groups(made["options"])
    for split, title in (("train", "training"), ("validation", "validation")):
        then = {row["scan"]: row for row in rows if row["chunk"].startswith(f"{split}-")}
        chunks = plan.chunks(split, recipe=recipe)
        now = {_hidden(scan): scan for chunk in chunks for scan in _scans(plan, chunk, recipe)}
        statuses = {chunk: _status(results, chunk) for chunk in chunks if chunk in known}

        tried = {pseudonym("scan", row["scan"]) for status in statuses.values() for row in status}
        new = [scan.participant for hidden, scan in now.items() if hidden not in then and hidden not in tried]
        gone = {row["person"] for hidden, row in then.items() if hidden not in now}
        gone |= {pseudonym("person", name) for name in _left(plan, recipe, statuses)}
        changed = _values(then, now, groups)
        replaced = [row["scan"] for status in statuses.values() for row in status if _replaced(row, then)]
        again = [chunk for chunk in statuses if _read_again(plan, results, chunk)]
        if new:
            yield Reason(_counted(f"new {title} {{}}", new))
        if gone:
            yield Reason(_counted(f"{title} {{}} gone", _names(plan, gone)))
        for column, scans in changed.items():
            yield Reason(f"{column} of {_few([scan.id for scan in scans])} changed")
        if replaced:
            yield Reason(f"{_few(replaced)} replaced", sure=False)
        if again and not (new or gone or changed):
            yield Reason(f"rows or files of {_few(again)} changed", sure=False)


def _values(
    then: Mapping[str, Mapping[str, str]], now: Mapping[str, Scan], groups: Sequence[str]
) -> dict[str, list[Scan]]:
    """Scans whose value of a counted column is another, by the column; ``groups`` are those learned from, empty: all."""
    changed: dict[str, list[Scan]] = defaultdict(list)
    for hidden, row in then.items():
        if hidden in now and _learned(now[hidden], row, groups):
            scan = now[hidden]
            columns = [name for name in row if name not in ("chunk", "scan", "person", "sha256")]
            for name, value in told(scan.id, {name: _value(scan, name) for name in columns}).items():
                if value != row[name]:
                    changed[name].append(scan)
    return changed


def _learned(scan: Scan, row: Mapping[str, str], groups: Sequence[str]) -> bool:
    """Whether a scan is or was of a group that is learned from."""
    return (
        not groups
        or scan.group in groups
        or row["group"] in {told(scan.id, {"group": group})["group"] for group in groups}
    )


def _left(plan: Plan, recipe: str, statuses: Mapping[str, Sequence[Mapping[str, str]]]) -> set[str]:
    """People with a preprocessed scan, also one to be predicted, that is no longer in the sheet."""
    modalities = plan.modalities(recipe)
    return {
        row["participant"]
        for chunk, status in statuses.items()
        for row in status
        if row["modality"] in modalities and row["scan"] not in {scan.id for scan in plan.scans(chunk)}
    }


def _replaced(row: Mapping[str, str], then: Mapping[str, Mapping[str, str]]) -> bool:
    """Whether a scan that was learned from has been read with other content since."""
    before = then.get(pseudonym("scan", row["scan"]))
    return before is not None and told(row["scan"], {"sha256": row["sha256"]})["sha256"] != before["sha256"]


def _read_again(plan: Plan, results: Path, chunk: str) -> bool:
    """Whether a chunk's scans are to be read again, because a row or a file is not as it was."""
    record = results / "ingest" / chunk / RECORD
    return record.is_file() and read_json(record)["key"] != plan.rows_key(chunk)


def _status(results: Path, chunk: str) -> list[dict[str, str]]:
    """The scans that preprocessing was given, whether it went well or not."""
    table = results / "preprocess" / chunk / "status.tsv"
    return read_table(table) if table.is_file() else []


def _scans(plan: Plan, chunk: str, recipe: str) -> list[Scan]:
    modalities = plan.recipes[recipe].data.modalities
    return [scan for scan in plan.scans(chunk) if scan.modality in modalities]


def _hidden(scan: Scan) -> str:
    return pseudonym("scan", scan.id)


def _value(scan: Scan, column: str) -> str | float:
    further: Mapping[str, str | float] = dict(scan.covariates)
    value = getattr(scan, column, further.get(column, ""))
    return "" if value is None else value


def _names(plan: Plan, hidden: set[str]) -> list[str]:
    """Names of people that a model knows as pseudonyms, from the ledger, which forgets nobody."""
    names = {pseudonym("person", row.participant): row.participant for row in plan.ledger.rows}
    return sorted(names.get(person, "somebody the ledger does not know") for person in hidden)


def _changed(before: Any, now: Any, where: str = "") -> str:
    """``diffusion.loss l2 -> l1, ...`` for each key with another value."""
    return ", ".join(f"{key} {old} -> {new}" for key, old, new in _pairs(before, now, where))


def _pairs(before: Any, now: Any, where: str) -> Iterator[tuple[str, str, str]]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in sorted(before.keys() | now.keys()):
            inner = f"{where}.{name}" if where else name
            yield from _pairs(before.get(name, "not given"), now.get(name, "not given"), inner)
    elif before != now:
        yield where, _text(before), _text(now)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _counted(text: str, names: Sequence[str]) -> str:
    people = sorted(set(names))
    return f"{len(people)} {text.format('person' if len(people) == 1 else 'people')}: {_few(people)}"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
