"""The index of a packed chunk. What only reads it, a page say, does not wait for torch."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from pipeline_lib.errors import UserError

TEXT_COLUMNS = (
    "scan", "participant", "session", "group", "sex", "site", "covariates", "lesion", "sha256", "voxels_sha256",
    "affine", "space",
)  # fmt: skip


def read_index(folder: Path) -> pd.DataFrame:
    """The index of a packed chunk: one row an image; identifiers stay text, empty cells empty text.

    Each covariate becomes a column of its own, numbers where it is one.
    """
    path = Path(folder) / "index.tsv"
    if not path.is_file():
        raise UserError(f"{path} is missing: the chunk was not packed; run the dataset rule again")
    frame = pd.read_csv(path, sep="\t", dtype=dict.fromkeys(TEXT_COLUMNS, str), keep_default_na=False)
    frame["age"] = pd.to_numeric(frame["age"], errors="coerce")
    covariates = [json.loads(text) if text else {} for text in frame.pop("covariates")] if "covariates" in frame else []
    return frame.join(pd.DataFrame(covariates, index=frame.index)) if any(covariates) else frame


def without_lesion(index: pd.DataFrame, *, known: bool) -> pd.Series:
    """Which images have no lesion; ``known``: also those of scans that nobody looked at."""
    free: pd.Series = index["has_lesion"].astype(str).str.lower() != "true"
    return free if known else free & (index["lesion"].astype(str) != "")


def brain_outside(index: pd.DataFrame) -> float | None:
    """Share of the brain that the images leave out, the mean over scans; None for pictures."""
    if "brain_outside" not in index:
        return None
    shares = pd.to_numeric(index.drop_duplicates("scan")["brain_outside"], errors="coerce").dropna()
    return float(shares.mean()) if len(shares) else None
