"""People a model was trained on are kept out of what it is judged by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from pipeline_lib.dataset.people import refuse_trained_people
from pipeline_lib.errors import UserError


def keep_unseen(index: pd.DataFrame, info: Mapping[str, Any], allow: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split the rows of a chunk into those to be inferred and those refused.

    A chunk in which everybody is refused gives no rows and is no error: other chunks may have some.

    Args:
        index: a chunk's rows.
        info: what the model's ``model.json`` says (``people`` and ``scans``).
        allow: keep all rows.
    """
    if index.empty:
        return index, index
    try:
        kept = refuse_trained_people(index, info, allow)
    except UserError:
        kept = index.iloc[:0]
    return kept, index.drop(kept.index)


def caution(index: pd.DataFrame, info: Mapping[str, Any], allow: bool) -> str:
    """The note that goes with every metric: empty where nobody judged was in training.

    Raises:
        UserError: somebody was, and that was not allowed.
    """
    if index.empty:
        return ""
    seen: list[str] = refuse_trained_people(index, info, allow=True).attrs["refused"]
    if seen and not allow:
        raise UserError(
            f"{len(seen)} scans to be evaluated were in the model's training set (first: {seen[0]}): infer again, "
            "which refuses them, or set sampling.allow_trained_people"
        )
    return f"includes {len(seen)} scans of people the model was trained on" if seen else ""
