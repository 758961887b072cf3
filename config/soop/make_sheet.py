"""Write the sheet of the SOOP FLAIR slices: people without a lesion train, others validate or test, by their id's hash.

python config/soop/make_sheet.py FOLDER config/soop/subjects.tsv
"""

from __future__ import annotations

import csv
import hashlib
import sys
from pathlib import Path

from pipeline_lib.cohort.sheet import NO_LESION, Scan, write_sheet
from pipeline_lib.cohort.values import parse_age, parse_sex

VALIDATION = 0.2
"""Share of the people with a lesion on whom level, smoothing and threshold are chosen."""


def scan_of(row: dict[str, str]) -> Scan:
    """One person's slice; nothing but the id decides between validation and test."""
    participant, lesioned = row["id"].removeprefix("sub-"), int(row["lesion_px_axial68"]) > 0
    share = int(hashlib.sha256(row["id"].encode()).hexdigest()[:8], 16) / 2**32
    held_out = "validation" if share < VALIDATION else "test"
    return Scan(
        participant=participant,
        session="",
        modality="image",
        path=f"image/{row['id']}.png",
        age=parse_age(row["age"])[0],
        sex=parse_sex(row["sex"])[0],
        lesion=f"mask/{row['id']}_mask.png" if lesioned else NO_LESION,
        split=held_out if lesioned else "train",
    )


with open(Path(sys.argv[1]) / "index.csv", newline="") as table:
    write_sheet(Path(sys.argv[2]), [scan_of(row) for row in csv.DictReader(table)])
