"""Wrong inputs made from real heads, and the real heads themselves, through ingest and preprocessing, as Markdown.

    python benchmarks/wrong_inputs.py DATA WORK --write docs/preprocessing.md

DATA holds ixi_t1_2mm_rawhead, ds000011_t1_rawhead_defaced, ds002748_mdd_vs_control_stripped_2mm and
open_ms_mni_brain. WORK keeps what is finished, and a run that was stopped goes on; take an empty one after a change of
the code. The tables replace what stands between the two marks in the page.
"""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from wrong_heads import KINDS, Head, write

from pipeline_lib.cohort.sheet import Scan
from pipeline_lib.cohort.values import as_label
from pipeline_lib.config.schema import PreprocessOptions
from pipeline_lib.files import read_table, write_text
from pipeline_lib.imaging.brain import extract_brain
from pipeline_lib.imaging.canonical import open_scan
from pipeline_lib.imaging.ingest import ingest_chunk
from pipeline_lib.imaging.preprocess import preprocess_chunk

START, END = "<!-- wrong inputs: start -->", "<!-- wrong inputs: end -->"
OPTIONS = PreprocessOptions(voxel_size=2.0)
BATCH = 8
"""Scans after which a run that was stopped goes on."""
REAL = (
    ("ixi_t1_2mm_rawhead", "t1/*.nii.gz"),
    ("ds000011_t1_rawhead_defaced", "*.nii.gz"),
    ("ds002748_mdd_vs_control_stripped_2mm", "*.nii.gz"),
    ("open_ms_mni_brain", "*/*.nii.gz"),
)
MADE_FROM = (
    "ixi_t1_2mm_rawhead/t1/IXI049-HH-1358_T1.nii.gz",
    "ds002748_mdd_vs_control_stripped_2mm/sub-13_T1w_2mm.nii.gz",
)
CONTRASTS = {"inplaneT2": "T2w", "T2_": "T2w", "FLAIR_": "FLAIR"}
FIGURES = (
    "registration_cost",
    "white_over_grey",
    "grey_over_fluid",
    "white_over_fluid",
    "outside_field",
    "empty_inside",
)

Rows = list[dict[str, str]]


def real_scans(folder: Path, pattern: str) -> list[Scan]:
    """Every scan of a data set with the modality it is."""
    paths = [path for path in sorted(folder.glob(pattern)) if "GOLD" not in path.name]
    scans = []
    for row, path in enumerate(paths, 2):
        modality = next((name for part, name in CONTRASTS.items() if part in path.name[: len(part) + 7]), "T1w")
        person = as_label(path.name.removesuffix(".nii.gz").removesuffix("_T1"))
        scans.append(Scan(person, "", modality, path.relative_to(folder).as_posix(), row=row))
    return scans


def wrong_scans(data: Path, folder: Path) -> list[Scan]:
    """Every kind of wrong input made from each of the heads."""
    scans: list[Scan] = []
    folder.mkdir(parents=True, exist_ok=True)
    for name in MADE_FROM:
        scan = open_scan(data / name, name)
        head = Head(Path(name).name, scan, extract_brain(scan, "learned").mask)
        for kind, (_, make) in KINDS.items():
            label = f"{kind.replace('_', '')}{len(scans):03d}"
            stem = folder / f"{kind}-{len(scans):03d}"
            cells = write(make(head), stem)
            scans.append(
                Scan(label, "", cells["modality"], cells["path"], mask=cells.get("mask", ""), row=len(scans) + 2)
            )
    return scans


def through(scans: Sequence[Scan], root: Path, work: Path) -> Rows:
    """The status rows of scans after ingest and preprocessing."""
    rows: Rows = []
    for first in range(0, len(scans), BATCH):
        ingested, done = (work / f"{first:03d}" / stage for stage in ("ingest", "preprocess"))
        if not (done / "status.tsv").is_file():
            ingest_chunk(scans[first : first + BATCH], root, ingested, workers=1, cache=work / "state" / "ingest")
            preprocess_chunk(ingested, OPTIONS, done, workers=1, cache=work / "state" / "preprocess")
        rows += read_table(done / "status.tsv")
    return rows


def wrong_table(scans: Sequence[Scan], rows: Rows) -> str:
    """A row a kind: what is wrong, how many were excluded, for the right reason, and one of the reasons."""
    lines = [
        "| kind | what is wrong | inputs | excluded | for the right reason | reason of one |",
        "|---|---|---:|---:|---:|---|",
    ]
    totals = np.zeros(3, int)
    for kind, (said, make) in KINDS.items():
        own = [row for scan, row in zip(scans, rows, strict=True) if scan.path.rpartition("-")[0] == kind]
        excluded = [row for row in own if row["ok"] == "false"]
        right = [row for row in excluded if re.search(said, row["reason"])]
        example = (right or excluded or own)[0]["reason"].partition(": ")[2] or "accepted"
        example = re.split(r"; (?:look at its picture|correct the mod)", example)[0]
        meaning = (make.__doc__ or "").strip().rstrip(".")
        counts = np.array([len(own), len(excluded), len(right)])
        totals += counts
        lines.append(f"| {kind.replace('_', ' ')} | {meaning} | {' | '.join(map(str, counts))} | {example} |")
    lines.append(f"| all | {len(KINDS)} kinds | {' | '.join(map(str, totals))} | |")
    return "\n".join(lines)


def distribution_table(real: Rows, wrong: Rows) -> str:
    """Range of each figure over real scans by contrast, and over wrong inputs that came as far as to be measured."""
    lines = [
        "| figure | "
        + " | ".join(f"{label}" for label in ("real T1w", "real T2w", "real FLAIR", "wrong inputs"))
        + " |"
    ]
    lines.append("|---|---:|---:|---:|---:|")
    sets = [[row for row in real if row["modality"] == name] for name in ("T1w", "T2w", "FLAIR")] + [wrong]
    for figure in FIGURES:
        cells = []
        for rows in sets:
            values = [float(row[figure]) for row in rows if row.get(figure)]
            low, middle, high = np.percentile(values, [0, 50, 100]) if values else (np.nan,) * 3
            cells.append(f"{low:.3g} to {high:.3g}, median {middle:.3g} ({len(values)})")
        lines.append(f"| {figure} | {' | '.join(cells)} |")
    return "\n".join(lines)


def section(data: Path, work: Path) -> str:
    """The tables with what they say."""
    wrong_list = wrong_scans(data, work / "wrong")
    wrong = through(wrong_list, work / "wrong", work / "wrong-done")
    real = [
        row
        for folder, pattern in REAL
        for row in through(real_scans(data / folder, pattern), data / folder, work / folder)
    ]
    lost = [row for row in real if row["ok"] == "false"]
    names = "; ".join(f"{row['source'].rpartition('/')[2]}: {row['reason'].partition(': ')[2]}" for row in lost)
    return f"""{START}

Made by `python benchmarks/wrong_inputs.py DATA WORK --write docs/preprocessing.md`.

{wrong_table(wrong_list, wrong)}

Of {len(real)} real scans {len(lost)} {"was" if len(lost) == 1 else "were"} excluded{f" ({names})" if names else ""}. What the limits were chosen from:

{distribution_table(real, wrong)}

{END}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--write", type=Path, help="page whose section between the marks is replaced")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    text = section(options.data, options.work)
    if options.write is None:
        print(text)
        return
    page = options.write.read_text(encoding="utf-8")
    write_text(options.write, page[: page.index(START)] + text + page[page.index(END) + len(END) :])


if __name__ == "__main__":
    main()
