"""The report in a real browser: nothing in the console, what can be clicked works, and strings stay strings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from made_report import EVIL

pytestmark = pytest.mark.browser

PAGES = (
    "index.html",
    "anomaly.html",
    "synthesis.html",
    "generation.html",
    "scans/train-anat-0001/sub-00001_ses-1_T1w.html",
)
WAIT = 120
"""Seconds after which what a page does counts as never happening."""


def opened(browser: Any, page: Path) -> Any:
    """A page whose scripts have done what they do at the start."""
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(page.as_uri())
    waiting = "return document.querySelectorAll('.explorer[hidden], .scatter[hidden]').length === 0"
    WebDriverWait(browser, WAIT).until(lambda driver: driver.execute_script(waiting))
    return browser


def texts(browser: Any, selector: str) -> list[str]:
    found: list[str] = browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map(item => item.textContent.trim())", selector
    )
    return found


def column(browser: Any, name: str) -> list[str]:
    place = texts(browser, ".explorer thead th").index(name)
    return texts(browser, f".explorer tbody tr > :nth-child({place + 1})")


def set_value(browser: Any, selector: str, value: str) -> None:
    browser.execute_script(
        "const item = document.querySelector(arguments[0]); item.value = arguments[1];"
        "for (const kind of ['input', 'change']) item.dispatchEvent(new Event(kind, {bubbles: true}));",
        selector,
        value,
    )


def click(browser: Any, selector: str) -> None:
    browser.execute_script("document.querySelector(arguments[0]).click()", selector)


@pytest.mark.parametrize("page", PAGES)
def test_console_stays_empty_and_strings_stay_text(browser: Any, report: Path, page: str) -> None:
    browser.get_log("browser")
    opened(browser, report / page)
    assert browser.get_log("browser") == []
    assert not browser.execute_script("return document.querySelectorAll('img[src=x], [onerror]').length")
    assert browser.execute_script("return [...document.images].every(image => image.src.startsWith('data:image/webp'))")


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_is_wider_than_the_window(browser: Any, report: Path, page: str, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    opened(browser, report / page)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_an_inline_script_that_is_not_ours_does_not_run(browser: Any, report: Path) -> None:
    opened(browser, report / "index.html")
    ran = browser.execute_script(
        "const script = document.createElement('script'); script.textContent = 'window.ran = true';"
        "document.body.append(script); return window.ran === true"
    )
    assert not ran
    browser.get_log("browser")


def test_ten_thousand_scans_are_found_filtered_and_sorted(browser: Any, report: Path) -> None:
    assert (report / "index.html").stat().st_size < 2_000_000
    opened(browser, report / "index.html")
    assert texts(browser, ".explorer [role=status]") == ["1 to 50 of 10,001"]
    click(browser, ".explorer .next")
    assert texts(browser, ".explorer [role=status]") == ["51 to 100 of 10,001"]

    set_value(browser, ".explorer input", "sub-00123_")
    assert column(browser, "Scan") == ["sub-00123_ses-1_T1w"]
    set_value(browser, ".explorer input", "no such scan")
    assert texts(browser, ".explorer [role=status]") == ["Nothing found, 10,001 in all"]
    set_value(browser, ".explorer input", "")

    set_value(browser, "select[data-name=verdict]", "excluded")
    set_value(browser, "select[data-name=split]", "test")
    assert set(column(browser, "Verdict")) == {"excluded"}
    assert set(column(browser, "Split")) == {"test"}
    assert all("slices are empty" in reason for reason in column(browser, "Reason"))
    set_value(browser, "select[data-name=verdict]", "all")
    set_value(browser, "select[data-name=split]", "all")
    set_value(browser, "select[data-name=site]", EVIL)
    assert set(column(browser, "Site")) == {EVIL}
    set_value(browser, "select[data-name=site]", "all")

    place = texts(browser, ".explorer thead th").index("SNR") + 1
    for order in ("ascending", "descending"):
        click(browser, f".explorer thead th:nth-child({place}) button")
        values = [float(value) for value in column(browser, "SNR")]
        assert len(values) == 50
        assert values == sorted(values, reverse=order == "descending")
        assert browser.execute_script("return document.querySelector('[aria-sort]').ariaSort") == order


def test_scan_of_the_table_leads_to_its_page(browser: Any, report: Path) -> None:
    opened(browser, report / "index.html")
    set_value(browser, ".explorer input", "sub-00001_")
    click(browser, ".explorer tbody a")
    assert texts(browser, "h1") == ["sub-00001_ses-1_T1w"]


def test_embedding_is_coloured_by_any_column_and_told_by_keys(browser: Any, report: Path) -> None:
    opened(browser, report / "synthesis.html")
    assert EVIL in texts(browser, ".scatter .legend li")
    set_value(browser, ".scatter label:nth-child(2) select", "age")
    assert len(texts(browser, ".scatter .legend li")) == 5, "a scale of numbers"
    browser.execute_script(
        "document.querySelector('canvas').dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true}))"
    )
    assert texts(browser, ".scatter [role=status]")[0].startswith("scan sub-00000, participant 00000")


def test_lowest_checkpoint_is_marked_and_its_table_linked(browser: Any, report: Path) -> None:
    opened(browser, report / "generation.html")
    marked = browser.execute_script("return document.querySelector('.best').previousElementSibling.textContent")
    assert marked == "samples: 0.900 at 1,500"
    links = browser.execute_script(
        "return [...document.querySelectorAll('a[download]')].map(link => [link.download, link.href])"
    )
    assert "evaluation_fid.tsv" in dict(links)
    assert dict(links)["evaluation_fid.tsv"].startswith("data:text/tab-separated-values")


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Any, report: Path, page: str, scheme: str) -> None:
    axe = Path(os.environ.get("AXE", ""))
    if not axe.is_file():
        pytest.skip("no axe-core: set AXE to its axe.min.js (npm pack axe-core), as `make test-browser` does")
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    opened(browser, report / page)
    browser.execute_script("document.querySelectorAll('details').forEach(item => { item.open = true })")
    browser.execute_script(axe.read_text())
    found = browser.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
    bad = [
        (issue["id"], issue["nodes"][0]["html"][:200])
        for issue in found["violations"]
        if issue["impact"] in ("serious", "critical")
    ]
    assert bad == []
