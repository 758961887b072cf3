"""How bright tissues are in each modality: limits alone, for whoever judges scans or shows what they were judged by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Pair = Literal["white_over_grey", "grey_over_fluid", "white_over_fluid"]

MOST_BELOW = 0.1
"""Share of the foreground that may lie below the background: more, and the values have two signs."""
CONTRASTS: Mapping[str, Mapping[Pair, tuple[float, float]]] = {
    "T1w": {"white_over_grey": (0.7, 1.0), "white_over_fluid": (0.8, 1.0)},
    "T2w": {"white_over_grey": (0.0, 0.45), "white_over_fluid": (0.0, 0.35)},
    "FLAIR": {"white_over_grey": (0.0, 0.65), "white_over_fluid": (0.56, 1.0)},
    "PD": {"white_over_grey": (0.0, 0.45)},
}
"""Modality -> between what the probabilities of its scans lie (docs/preprocessing.md has those of real ones)."""
