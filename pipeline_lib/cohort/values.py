"""What is written about people, understood: ids, ages, sexes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

MISSING = frozenset(("", "n/a", "N/A", "NA", "nan", "NaN", "<NA>", "#N/A", "null", "NULL"))
UNCLEAR = MISSING - {"", "n/a", "N/A"}
"""Missing, but perhaps meant as the name of a group."""
SEXES: Mapping[str, str] = {
    "m": "M", "male": "M", "man": "M", "f": "F", "female": "F", "woman": "F", "o": "O", "other": "O",
}  # fmt: skip
OLDEST = 120
LONGEST_LABEL = 64
"""Characters of an id or a session: file names hold both and more, and end at 255."""
LONGEST_GROUP = 100
"""Characters of a group, which names samples with the other conditions and folders of pictures."""
LONGEST_NAME = 255
"""Bytes of a file or folder name (ext4, XFS, APFS, NTFS)."""
PREFIX = re.compile(r"^(sub|subj|subject|ses|session)[-_]+", re.IGNORECASE)
WHOLE_NUMBER = re.compile(r"([0-9]+)\.0+")
AGE = re.compile(r"([0-9]+(?:[.,][0-9]*)?)([YMWDymwd]?)")
YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
"""DICOM's units of age."""


def bare(written: str) -> str:
    """An id or session as written, without ``sub-`` or ``ses-``."""
    return PREFIX.sub("", written.strip(), count=1)


def without_prefix(written: str) -> str:
    """An id or session as written, without ``sub-`` or ``ses-``, and a spreadsheet's ``1.0`` as ``1``."""
    rest = bare(written)
    number = WHOLE_NUMBER.fullmatch(rest)
    return number[1] if number else rest


def as_label(written: str) -> str:
    """Letters and digits only, as BIDS wants labels: accents and marks go, ``1.0`` is 1. Several ids may become one."""
    plain = unicodedata.normalize("NFKD", without_prefix(written).replace("ß", "ss"))
    return re.sub(r"[^A-Za-z0-9]", "", plain)


def loosely(written: str) -> str:
    """What ids that differ only in case, marks or leading zeros share. A dot between digits counts."""
    plain = unicodedata.normalize("NFKD", without_prefix(written).replace("ß", "ss")).casefold()
    plain = re.sub(r"(?<![0-9])\.|\.(?![0-9])|[^a-z0-9.]", "", plain)
    return re.sub(r"(?<![0-9.])0+(?=[0-9])", "", plain)


def parse_age(written: str) -> tuple[float | None, str]:
    """Years, and why they are unknown (empty where they are known, or nothing is written).

    ``42``, ``42.5``, ``34,5`` and DICOM's ``067Y`` and ``018M`` are understood.
    """
    if written in MISSING:
        return None, ""
    match = AGE.fullmatch(written)
    if match is None:
        return None, f"age {written!r} is not a number of years, as 42 or 42.5"
    age = float(match[1].replace(",", ".")) * YEARS[match[2].upper() or "Y"]
    if age > OLDEST:
        return None, f"age {written} is over {OLDEST} years; write years, not months"
    return round(age, 4), ""


def parse_sex(written: str) -> tuple[str, str]:
    """M, F, O or nothing, and why it is unknown."""
    if written in MISSING:
        return "", ""
    sex = SEXES.get(written.lower(), "")
    return sex, "" if sex else f"unknown sex {written!r}; write M, F or O"
