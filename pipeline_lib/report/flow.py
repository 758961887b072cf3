"""Where scans go, from the sheet to training: every step, who was left out there, and why."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline_lib.cohort.chunks import ChunkName
from pipeline_lib.files import read_table

EXAMPLES = 5
STAGES = {"ingest": "Opened", "preprocess": "Preprocessed", "quality": "Passed quality control"}
"""Stages at which a scan can be left out, in order, and what a scan is that was not."""


@dataclass(frozen=True)
class Reason:
    """Why scans were left out, how many, and the first of them with their pages."""

    text: str
    scans: int
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Step:
    """What remains after a step."""

    title: str
    remaining: int
    left_out: int = 0
    reasons: tuple[Reason, ...] = ()


def cohort_flow(
    people: Sequence[Mapping[str, str]], refused: Sequence[Mapping[str, Any]], pages: Mapping[str, str]
) -> list[Step]:
    """From the rows of the sheet to the scans included.

    Args:
        people: rows of the cohort tables, a scan each, with ``included``, ``stage`` and ``reason``.
        refused: rows of the sheet that were left out before, with ``scan`` and ``reason``.
        pages: scan to the address of its page.
    """
    remaining = len(people)
    steps = [
        Step("Rows of the sheet", remaining + len(refused)),
        Step("Understood", remaining, len(refused), reasons(((r["scan"], r["reason"]) for r in refused), pages)),
    ]
    out = [row for row in people if row["included"] != "true"]
    for stage in dict.fromkeys([*STAGES, *(row["stage"] for row in out)]):
        there = [row for row in out if row["stage"] == stage]
        remaining -= len(there)
        title = STAGES.get(stage, stage or "no stage named")
        steps.append(
            Step(title, remaining, len(there), reasons(((row["scan"], row["reason"]) for row in there), pages))
        )
    return steps


def recipe_flow(datasets: Iterable[Path], model: Mapping[str, Any] | None, *, frozen: bool = False) -> list[Step]:
    """From the included scans of a recipe's modality to those its network was trained on.

    Args:
        datasets: the recipe's packed chunks, each with ``index.tsv`` and ``left_out.tsv``.
        model: what is written of the network, with ``train_scans``; None: there is none.
        frozen: whether it was trained elsewhere, on none of these scans.
    """
    packed: Counter[str] = Counter()
    left: list[tuple[str, str]] = []
    for folder in datasets:
        split = ChunkName.parse(folder.name).split
        packed[split] += len({row["scan"] for row in read_table(folder / "index.tsv")})
        left += [(row["scan"], row["reason"]) for row in read_table(folder / "left_out.tsv")]
    total = packed.total()
    kept_apart = total - packed["train"]
    steps = [
        Step("Included scans, or pairs, of its modality", total + len(left)),
        Step("Gave images", total, len(left), reasons(left, {})),
    ]
    if frozen:
        return steps
    apart = _bulk("of validation and test people", kept_apart)
    steps.append(Step("In the training split", packed["train"], kept_apart, apart))
    if model is not None:
        trained = int(model["train_scans"])
        others = packed["train"] - trained
        groups = model.get("data", {}).get("train_groups") or []
        why = f"of other groups than {', '.join(groups)}" if groups else "not used"
        steps.append(Step("Trained on", trained, others, _bulk(why, others)))
    return steps


def _bulk(text: str, scans: int) -> tuple[Reason, ...]:
    """One reason for scans that nobody needs to look at."""
    return (Reason(text, scans, ()),) if scans else ()


def reasons(left_out: Iterable[tuple[str, str]], pages: Mapping[str, str]) -> tuple[Reason, ...]:
    """Reasons without the names and numbers of single scans, the most frequent first."""
    together: dict[str, list[str]] = {}
    for scan, reason in left_out:
        together.setdefault(kind_of(reason), []).append(scan)
    return tuple(
        Reason(text, len(scans), tuple((scan, pages.get(scan, "")) for scan in scans[:EXAMPLES]))
        for text, scans in sorted(together.items(), key=lambda item: -len(item[1]))
    )


def kind_of(reason: str) -> str:
    """``data/a.nii.gz (row 5 of the sheet): 3 slices are empty`` as ``… slices are empty``."""
    text = re.sub(r"^[^:]*(?:[./]|\brow \d)[^:]*: ", "", reason) or "no reason given"
    return re.sub(r"(?<![\w.])-?\d+(?:[.,]\d+)*(?![\w])", "…", text)
