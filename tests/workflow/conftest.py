"""Checkouts on which real DAGs run on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from workspace import Workspace, checkout, tiny_cohort


@pytest.fixture(scope="session")
def fresh_workspace(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A checkout in which nothing has run."""
    return checkout(repository, tmp_path_factory.mktemp("workspace"))


@pytest.fixture(scope="session")
def finished_workspace(fresh_workspace: Workspace) -> Workspace:
    """A checkout in which everything has run on the tiny cohort."""
    tiny_cohort(fresh_workspace)
    fresh_workspace.run()
    return fresh_workspace
