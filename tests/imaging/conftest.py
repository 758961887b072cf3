"""What several of these tests use."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline_lib.cohort.sheet import Scan
from pipeline_lib.cohort.synthetic import make_cohort


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Scan]]:
    """A folder with a synthetic cohort of two people, and its scans."""
    folder = tmp_path_factory.mktemp("people")
    return folder, make_cohort(folder, [1, 4], root=folder, voxel_mm=3.0, workers=2)
