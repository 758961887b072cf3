"""The visualiser's page runs and answers to its sliders."""

from __future__ import annotations

from pathlib import Path

import pytest

testing = pytest.importorskip("streamlit.testing.v1", reason="streamlit is not installed: pip install '.[visualizer]'")


def test_page_shows_the_configuration_it_draws(repository: Path) -> None:
    page = testing.AppTest.from_file(str(repository / "simplex_visualizer.py"), default_timeout=120).run()
    assert not page.exception
    assert "octaves: 6" in page.code[0].value
    page.sidebar.slider[0].set_value(2).run()
    assert "octaves: 2" in page.code[0].value
    assert not page.exception
