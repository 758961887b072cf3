"""What the project installs is pinned in one place."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml


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
