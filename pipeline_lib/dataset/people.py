"""Who a model was trained on, kept as hashes, and the refusal to judge it on them.

A checkpoint travels further than the cohort it came from, so it names nobody: it carries hashed
person keys and hashed checksums of scans, enough to recognise a person, or the same scan under another id.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from pandas import DataFrame

from pipeline_lib.errors import UserError
from pipeline_lib.files import pseudonym

log = logging.getLogger("pipeline")
CONTENT = ("sha256", "voxels_sha256")
"""Columns by which a scan is known whatever it is called: its file's bytes, its voxels in any container."""


def hashed_id(participant: str) -> str:
    """16 hexadecimal digits that stand for a person key."""
    return pseudonym("person", participant)


def trained_people(index: DataFrame) -> dict[str, list[str]]:
    """What a checkpoint keeps of an index: sorted hashed people and sorted hashed checksums of files and voxels."""
    return {
        "people": sorted({hashed_id(person) for person in index["participant"].astype(str)}),
        "scans": sorted(
            {
                pseudonym("scan", sha)
                for column in CONTENT
                if column in index
                for sha in index[column].astype(str)
                if sha
            }
        ),
    }


def refuse_trained_people(index: DataFrame, model: Mapping[str, Any], allow: bool = False) -> DataFrame:
    """Drop the rows of people, or of scans of the same bytes or voxels, that ``model`` was trained on.

    Args:
        index: rows with ``participant``, ``scan`` and any of `CONTENT`.
        model: the ``model.json`` of a trained model (``people`` and ``scans``).
        allow: keep them, and say so in the log.

    Returns:
        The rows kept, numbered as in ``index``; ``.attrs["refused"]`` lists the scans that were in training.

    Raises:
        UserError: every row was in training.
    """
    people, scans = set(model.get("people", ())), set(model.get("scans", ()))
    seen = index["participant"].astype(str).map(hashed_id).isin(people)
    for column in CONTENT:
        if column in index:
            seen |= index[column].astype(str).map(lambda sha: bool(sha) and pseudonym("scan", sha) in scans)
    refused = list(dict.fromkeys(index.loc[seen, "scan"].astype(str)))
    if refused and allow:
        log.warning("judging on %d scans the model was trained on: %s", len(refused), _few(refused))
    elif refused:
        log.warning("refused %d scans the model was trained on: %s", len(refused), _few(refused))
        if seen.all():
            raise UserError(
                f"all {len(refused)} scans were in the model's training set ({_few(refused)}): "
                "give people it has not seen, or train it again without them"
            )
    kept = index if allow else index[~seen]
    kept = kept.copy()
    kept.attrs["refused"] = refused
    return kept


def _few(names: list[str], most: int = 5) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
