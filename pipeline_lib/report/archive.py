"""The pages of a report as one folder that `snakemake --report report.zip` takes whole, so that links and viewer work there."""

from __future__ import annotations

import html
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from pipeline_lib.cohort.chunks import ChunkName
from pipeline_lib.files import atomic_directory

MOST_BYTES = 300_000_000
"""Of pages of scans: some 500 of a whole brain. Those of test people come first, then validation, then training."""
ORDER = ("test", "validation", "train")
ASSETS = ("cohort.js", "niivue.umd.js", "niivue.license.txt")
"""What pages load, beside the index."""
LEFT_OUT = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="default-src 'none'">
<title>{name}</title></head>
<body><main><h1>{name}</h1><p>This page is not in the archive, which holds at most {most} MB of pages of scans. It lies in
<code>report/scans/{chunk}</code> of the results.</p><p><a href="../../index.html">All results</a></p></main></body></html>
"""


def write_archive(
    index: Path, recipes: Sequence[Path], scans: Sequence[Path], out: Path, most: int = MOST_BYTES
) -> None:
    """Link the pages of a run into ``out``, as they lie in the folder of the index.

    Pages of an earlier run that lie there too, of recipes or chunks that are no more, are not taken. In place of a page
    of a scan that is left out stands a line that says where it is.

    Args:
        index: the index of the report; what its pages load lies beside it.
        recipes: pages of recipes, beside it.
        scans: the chunks' folders of scan pages, below it.
        out: the folder to write.
        most: bytes of pages of scans that are taken.
    """
    report = index.parent
    with atomic_directory(out) as folder:
        for path in (index, *recipes, *(report / name for name in ASSETS)):
            _link(path, folder / path.relative_to(report))
        total = 0
        for path in _pages(scans):
            total += path.stat().st_size
            place = folder / path.relative_to(report)
            place.parent.mkdir(parents=True, exist_ok=True)
            if total <= most:
                _link(path, place)
            else:
                text = {"name": html.escape(path.stem), "chunk": html.escape(path.parent.name)}
                place.write_text(LEFT_OUT.format(most=most // 1_000_000, **text), encoding="utf-8")


def _pages(scans: Sequence[Path]) -> list[Path]:
    """The pages of the chunks, those of test people first."""
    chunks = sorted(scans, key=lambda chunk: (ORDER.index(ChunkName.parse(chunk.name).split), chunk.name))
    return [page for chunk in chunks for page in sorted(chunk.glob("*.html"))]


def _link(path: Path, place: Path) -> None:
    """The same file under another name, or a copy where the file system has no such links; pages are never written in place."""
    try:
        os.link(path, place)
    except OSError:
        shutil.copyfile(path, place)
