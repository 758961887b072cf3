"""What the project installs is pinned in one place."""

from __future__ import annotations

import ast
import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import yaml

PLUGINS = {"snakemake-executor-plugin-slurm": "profiles/slurm", "tensorboard": "torch.utils.tensorboard"}
"""Dependencies that others import, and where they are named."""


def pins(repository: Path) -> dict[str, str]:
    lines = (repository / "envs" / "constraints.txt").read_text().splitlines()
    return {canonical(line.split("==")[0]): line.split("==")[1] for line in lines if "==" in line}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_dependency_is_pinned(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    names = {canonical(re.split(r"[<>=\[;]", name)[0]) for name in wanted}
    assert not names - set(pins(repository))


def test_conda_environment_matches_the_pins(repository: Path) -> None:
    environment = yaml.safe_load((repository / "envs" / "pipeline.yaml").read_text())
    listed = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    versions = {canonical(line.split("==")[0]): line.split("==")[1] for line in listed}
    pinned = pins(repository)
    assert versions == {name: pinned[name] for name in versions}
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    assert set(versions) == {canonical(re.split(r"[<>=\[;]", name)[0]) for name in project["dependencies"]}


def test_every_rule_has_an_environment_file_that_exists(repository: Path) -> None:
    for rules in (repository / "workflow" / "rules").glob("*.smk"):
        for path in re.findall(r'conda:\s+"([^"]+)"', rules.read_text()):
            assert (rules.parent / path).is_file()


def test_every_dependency_is_imported_and_every_import_is_a_dependency(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    wanted = {canonical(re.split(r"[<>=\[;]", name)[0]) for name in project["dependencies"]}
    optional = {canonical(name) for name in sum(project["optional-dependencies"].values(), [])}
    sources = [*repository.glob("pipeline_lib/**/*.py"), *repository.glob("workflow/scripts/*.py")]
    text = "".join(path.read_text() for path in [*sources, *repository.glob("workflow/rules/*.smk")])
    imported = {name.split(".")[0] for path in sources for name in imports_of(path)} | {"snakemake"}
    provided = packages_distributions()
    used = {canonical(name) for module in imported for name in provided.get(module, ())}
    for name, where in PLUGINS.items():
        assert (repository / where).exists() or where in text, name
    assert wanted - used - set(PLUGINS) == {"opensimplex"}, (
        "what the noise is held against; its version is in provenance"
    )
    carried = {"pydantic-core": "pydantic", "markupsafe": "jinja2"}
    missing = {carried.get(name, name) for name in used} - wanted - optional - {"brain-generative-pipeline"}
    assert not missing


def imports_of(path: Path) -> list[str]:
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append(node.module)
    return found
