"""The name of a chunk: which split and family of scans it holds, and its number."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from pipeline_lib.errors import UserError

SPLITS = ("train", "validation", "test")
FAMILIES = ("anat", "dmri", "image")
"""Scans of one family are prepared alike, and only they share a chunk."""
PATTERN = rf"({'|'.join(SPLITS)})-({'|'.join(FAMILIES)})-([0-9][0-9][0-9][0-9]+)"
"""The regular expression of a name, for rules and tables."""


@dataclass(frozen=True, order=True)
class ChunkName:
    """``train-anat-0001``: the first chunk of anatomical scans to train on."""

    split: str
    family: str
    number: int

    @classmethod
    def parse(cls, text: str) -> ChunkName:
        """Read a name.

        Raises:
            UserError: it is not one.
        """
        match = _match(text)
        if match is None:
            raise UserError(f"{text!r} is no name of a chunk; they look like train-anat-0001")
        return cls(match[1], match[2], int(match[3]))

    def __str__(self) -> str:
        return f"{self.split}-{self.family}-{self.number:04d}"


def is_chunk(text: str) -> bool:
    """Whether a text is the name of a chunk."""
    return _match(text) is not None


@functools.lru_cache(maxsize=10_000)
def _match(text: str) -> re.Match[str] | None:
    return re.fullmatch(PATTERN, text)
