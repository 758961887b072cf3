"""The visualiser's page answers to its sliders, shows a trained model at work, and opens in a browser."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_chunks import packed
from tiny_training import train

from pipeline_lib.config.load import load_config

pytestmark = pytest.mark.browser
testing = pytest.importorskip("streamlit.testing.v1", reason="streamlit is not installed: pip install '.[visualizer]'")
PAGE = "simplex_visualizer.py"


def block(page: Any) -> dict[str, Any]:
    """The configuration that the page writes."""
    return dict(yaml.safe_load(page.code[0].value))


def slider(page: Any, label: str) -> Any:
    return next(one for one in page.sidebar.slider if one.label.startswith(label))


@pytest.fixture
def page(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "argv", [PAGE])
    return testing.AppTest.from_file(str(repository / PAGE), default_timeout=300).run()


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe's results with a model of a few steps."""
    folder = tmp_path_factory.mktemp("recipe")
    chunks = [
        packed(folder / "dataset", f"{split}-anat-0001", [(f"{split}1", "CN")]) for split in ("train", "validation")
    ]
    train("denoiser", ([chunks[0]], [chunks[1]]), folder / "diffusion", folder / "state")
    return folder


def test_sliders_change_the_configuration_that_is_written(page: Any) -> None:
    assert not page.exception
    slider(page, "octaves").set_value(2)
    slider(page, "timestep").set_value(0)
    page.sidebar.selectbox[1].set_value("linear").run()
    assert not page.exception
    written = block(page)
    assert written["diffusion"]["noise"]["octaves"] == 2
    assert written["diffusion"]["schedule"] == "linear"
    assert written["evaluation"]["score"]["levels"] == [0.9999], "1 - beta of the first of 1,000 steps, 1e-4"
    assert load_config({"recipes": {"anomaly": {"task": "anomaly", **written}}}), "a recipe takes it as it is"


def test_a_trained_model_brings_its_own_schedule_and_slices(page: Any, recipe: Path) -> None:
    page.sidebar.text_input[0].set_value(str(recipe)).run()
    assert not page.exception
    assert "trained with gaussian noise" in page.caption[0].value
    assert block(page)["diffusion"]["timesteps"] == 10
    assert slider(page, "timestep").max == 9


def test_a_folder_without_slices_is_one_clear_line(page: Any, tmp_path: Path) -> None:
    page.sidebar.text_input[0].set_value(str(tmp_path)).run()
    assert not page.exception
    assert "has no packed slices" in page.error[0].value


@pytest.fixture
def address(repository: Path, recipe: Path) -> Iterator[str]:
    """Where streamlit serves the page."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", PAGE, "--server.headless", "true", "--global.developmentMode", "false", "--server.port", str(port),
               "--browser.gatherUsageStats", "false", "--", str(recipe)]  # fmt: skip
    served = subprocess.Popen(command, cwd=repository, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    address = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            urllib.request.urlopen(f"{address}/_stcore/health", timeout=1)
            break
        except OSError:
            time.sleep(0.1)
    yield address
    served.terminate()
    served.wait()


def test_the_page_opens_in_a_browser(browser: Any, address: str) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(address)
    WebDriverWait(browser, 240).until(lambda page: len(page.find_elements(By.CSS_SELECTOR, "code")) > 0)
    images = browser.find_elements(By.CSS_SELECTOR, '[data-testid="stMain"] img')
    assert len(images) == 2
    assert all(browser.execute_script("return arguments[0].naturalWidth > 400", image) for image in images)
    assert not browser.find_elements(By.CSS_SELECTOR, '[data-testid="stException"]')
