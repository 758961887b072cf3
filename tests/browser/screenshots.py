"""Pictures of a report for the docs: ``python tests/browser/screenshots.py results/report docs/images``."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path
from typing import Any

from conftest import chromium
from PIL import Image

MOST_BYTES = 150_000
SHOWN = (
    ("report_index", "index.html", "#recipes", "light"),
    ("report_index_dark", "index.html", "#recipes", "dark"),
    ("report_stages", "index.html", "#stages", "light"),
    ("report_recipe", "synthesis.html", "main", "light"),
)
"""Name of the picture, page, what is at its top, colours."""


def main(report: Path, out: Path) -> None:
    """Write the pictures; of scans, the first of the test split with findings is taken."""
    browser = chromium()
    pages = sorted(report.glob("scans/test-*/*.html"))
    scan = next((page for page in pages if 'class="place"' in page.read_text()), pages[0])
    for name, page, top, scheme in (
        *SHOWN,
        ("report_scan", scan.relative_to(report), "#viewer", "light"),
        ("report_pairs", scan.relative_to(report), "#pairs", "light"),
    ):
        colours = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": colours})
        browser.get((report / page).resolve().as_uri())
        wait(browser)
        browser.execute_script("document.querySelector(arguments[0]).scrollIntoView()", top)
        time.sleep(1)
        write(Image.open(io.BytesIO(browser.get_screenshot_as_png())), out / f"{name}.webp")
    browser.quit()


def wait(browser: Any) -> None:
    """Until the scripts have done what they do at the start."""
    while not browser.execute_script(
        "return document.querySelectorAll('.explorer[hidden]').length === 0 && "
        "[...document.querySelectorAll('.viewer')].every(box => box.dataset.ready)"
    ):
        time.sleep(0.2)


def write(picture: Image.Image, path: Path) -> None:
    """WebP of at most `MOST_BYTES`."""
    for quality in range(90, 20, -10):
        picture.convert("RGB").save(path, quality=quality, method=6)
        if path.stat().st_size <= MOST_BYTES:
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
