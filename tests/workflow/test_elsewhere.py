"""The workflow is used from a project folder of its own, and as a module of another workflow."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from workspace import TINY, Workspace, tiny_cohort

from pipeline_lib.files import read_table

pytestmark = pytest.mark.dag

TARGET = "results/ingest/test-anat-0001/provenance.json"
MODULE = """
configfile: "config/tiny.yaml"


module brains:
    snakefile: "{snakefile}"
    config: config


use rule * from brains as brains_*
"""


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Configuration and data, and no code."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "config").mkdir()
    shutil.copy2(TINY, folder / "config" / "tiny.yaml")
    tiny_cohort(Workspace(folder))
    return folder


@pytest.fixture
def project(cohort: Path, tmp_path: Path) -> Workspace:
    return Workspace(Path(shutil.copytree(cohort, tmp_path / "project")))


def _written(repository: Path) -> dict[Path, int]:
    """What runs left in the repository, with the time of its last change."""
    return {
        path: path.stat().st_mtime_ns
        for folder in ("results", "state", ".snakemake")
        for path in (repository / folder).rglob("*")
    }


def test_a_project_folder_apart_from_the_code(project: Workspace, repository: Path) -> None:
    before = _written(repository)
    project.snakemake("-s", str(repository / "Snakefile"), TARGET, "--cores", "1")
    assert (project.folder / TARGET).is_file()
    assert _written(repository) == before


def test_a_module_of_another_workflow(project: Workspace, repository: Path) -> None:
    (project.folder / "Snakefile").write_text(MODULE.format(snakefile=repository / "Snakefile"))
    project.snakemake(TARGET, "--cores", "1")
    assert len(read_table(project.folder / "results/ingest/test-anat-0001/status.tsv")) > 1
    assert (project.folder / "config" / "splits.tsv").is_file()
    assert "brains_train_denoiser" in project.snakemake("-n", "brains_all").stdout


def test_a_folder_with_a_space_and_a_quote(project: Workspace, repository: Path) -> None:
    config = project.folder / "config" / "tiny.yaml"
    config.write_text(config.read_text().replace("cohort:\n", 'cohort:\n  results: "it\'s a study"\n', 1))
    target = TARGET.replace("results", "it's a study")
    project.snakemake("-s", str(repository / "Snakefile"), target, "--cores", "1")
    assert (project.folder / target).is_file()
