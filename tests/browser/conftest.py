"""A headless Chromium; tests that need one are skipped, saying so, where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_report import make_report

SCANS = 10_000


@pytest.fixture(scope="session")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the browser saves files."""
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="session")
def browser(downloads: Path) -> Iterator[Any]:
    """Selenium's driver of the system's Chromium, its console kept."""
    pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install '.[browser]'")
    if not (program("chromium", "google-chrome") and program("chromedriver")):
        pytest.skip("no chromium with chromedriver: apt-get install chromium chromium-driver")
    opened = chromium(downloads)
    yield opened
    opened.quit()


def program(*names: str) -> str | None:
    """The first of these that is installed."""
    return next((path for path in map(shutil.which, names) if path), None)


def chromium(downloads: Path | None = None) -> Any:
    """A headless Chromium that draws WebGL without a graphics card."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = program("chromium", "google-chrome") or ""
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--use-angle=swiftshader",
        "--enable-unsafe-swiftshader",
        "--disable-dev-shm-usage",
        "--window-size=1280,900",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    if downloads:
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(program("chromedriver")))
    opened.command_executor.client_config.timeout = 600
    opened.set_script_timeout(500)
    opened.set_page_load_timeout(500)
    return opened


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report on so many scans."""
    return make_report(tmp_path_factory.mktemp("made"), SCANS).parent
