"""The pages of a report as one folder that `snakemake --report report.zip` takes whole, so that links and viewer work there."""

from __future__ import annotations

import html
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipeline_lib.files import atomic_directory

MOST_BYTES = 300_000_000
"""Of pages of scans: some 500 of a whole brain. Those of test people come first, then validation, then training."""
ORDER = ("test", "validation", "train")
BESIDE = ("*.html", "cohort.js", "niivue.umd.js", "niivue.license.txt")
LEFT_OUT = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="default-src 'none'">
<title>{name}</title></head>
<body><main><h1>{name}</h1><p>This page is not in the archive, which holds at most {most} MB of pages of scans. It lies in
<code>report/scans/{chunk}</code> of the results.</p><p><a href="../../index.html">All results</a></p></main></body></html>
"""


def write_archive(report: Path, out: Path, most: int = MOST_BYTES) -> None:
    """Link the pages of ``report`` into ``out``, as they lie there: index, recipes, scans up to ``most`` bytes.

    In place of a page of a scan that is left out stands a line that says where it is.
    """
    with atomic_directory(out) as folder:
        for pattern in BESIDE:
            for path in sorted(report.glob(pattern)):
                if path.name != "live.html":
                    _link(path, folder / path.name)
        total = 0
        for path in _scans(report):
            total += path.stat().st_size
            place = folder / path.relative_to(report)
            place.parent.mkdir(parents=True, exist_ok=True)
            if total <= most:
                _link(path, place)
            else:
                text = {"name": html.escape(path.stem), "chunk": html.escape(path.parent.name)}
                place.write_text(LEFT_OUT.format(most=most // 1_000_000, **text), encoding="utf-8")


def _scans(report: Path) -> Iterator[Path]:
    for split in ORDER:
        yield from sorted(report.glob(f"scans/{split}-*/*.html"))


def _link(path: Path, place: Path) -> None:
    """The same file under another name, or a copy where the file system has no such links; pages are never written in place."""
    try:
        os.link(path, place)
    except OSError:
        shutil.copyfile(path, place)
