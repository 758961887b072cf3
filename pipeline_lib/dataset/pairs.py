"""Which scans of a chunk give a recipe's images, and the target of each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from pipeline_lib.config.schema import DataOptions
from pipeline_lib.imaging.status import pair_key

Status = Mapping[str, str]
"""A row of a preprocessed chunk's ``status.tsv``."""


def outputs_of(row: Status) -> dict[str, str]:
    """Name to path, relative to the chunk, of what preprocessing wrote of a scan."""
    outputs: dict[str, str] = json.loads(row["outputs"])
    return outputs


def source_and_target(
    status: Sequence[Status], data: DataOptions, *, alone: bool = False
) -> tuple[list[tuple[Status, Status | None]], list[dict[str, str]]]:
    """Scans of the recipe's modality, or of any of several, with their targets, and rows for those without a partner.

    A target is a scan of its own; without one, the maps that were fitted to the scan.

    Args:
        status: all rows of the chunk, those of excluded scans too: they may be why a scan has no partner.
        alone: keep sources without a target, which can be translated though not judged.

    Returns:
        Pairs (source, target), the target None where the recipe, or the source, has none; and rows ``scan``, ``reason``.
    """
    excluded = {(row["modality"], pair_key(row)): row["reason"] for row in status if row["ok"] != "true"}
    status = [row for row in status if row["ok"] == "true"]
    sources = [row for row in status if row["modality"] in data.modalities]
    if data.target is None:
        return [(row, None) for row in sources], []
    targets: dict[str, Status] = {}
    left_out = []
    for row in status:
        if row["modality"] == data.target:
            if pair_key(row) in targets:
                left_out.append({"scan": row["scan"], "reason": "a second target of this person and session"})
            targets.setdefault(pair_key(row), row)
    pairs: list[tuple[Status, Status | None]] = []
    for row in sources:
        if pair_key(row) in targets:
            pairs.append((row, targets[pair_key(row)]))
        elif data.target in outputs_of(row):
            pairs.append((row, _fitted(row, data.target)))
        elif alone:
            pairs.append((row, None))
        else:
            reason = _without(data.target, excluded.get((data.target, pair_key(row))))
            if (data.modality, data.target) == ("dwi", "noddi"):
                reason += "; preprocess.noddi: amico fits the maps to multi-shell dwi"
            left_out.append({"scan": row["scan"], "reason": reason})
    matched = {pair_key(row) for row in sources}
    for key, row in targets.items():
        if key not in matched:
            reason = _without(data.modality, excluded.get((data.modality, key)))
            left_out.append({"scan": row["scan"], "reason": reason})
    return pairs, left_out


def _without(modality: str, excluded: str | None) -> str:
    if excluded is None:
        return f"its chunk holds no {modality} scan of this person and session (or of its pair in the sheet)"
    return f"its {modality} scan was excluded: {excluded}"


def _fitted(row: Status, target: str) -> dict[str, str]:
    """The row of maps that preprocessing fitted to the scan of ``row``, on its grid and within its mask."""
    outputs = outputs_of(row)
    return {**row, "modality": target, "outputs": json.dumps({"image": outputs[target], "mask": outputs["mask"]})}
