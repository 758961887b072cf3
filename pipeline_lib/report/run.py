"""The run behind a page: state of the code, configuration, seeds."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import pipeline_lib

CHECKOUT = Path(pipeline_lib.__file__).resolve().parent.parent

COMMAND = Path("logs", "command.txt")
"""Where in the results a run notes how it was started."""


@dataclass(frozen=True)
class GitState:
    """The checkout that wrote a page: its commit, and files that differ from it. Empty: it is no checkout."""

    commit: str = ""
    changed: tuple[str, ...] = ()


def git_state(checkout: Path = CHECKOUT) -> GitState:
    """Commit and changed files of a checkout; nothing where there is no git, or the folder is not its own checkout."""
    top = _git(checkout, "rev-parse", "--show-toplevel")
    commit = _git(checkout, "rev-parse", "HEAD")
    if not top or not commit or Path(top.strip()).resolve() != checkout.resolve():
        return GitState()
    changed = _git(checkout, "status", "--porcelain", "--untracked-files=no") or ""
    return GitState(commit.strip(), tuple(line[3:] for line in changed.splitlines()))


def _git(checkout: Path, *words: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(checkout), *words], capture_output=True, text=True, check=False)
    except OSError:  # git is not installed
        return ""
    return done.stdout if done.returncode == 0 else ""


def command_of(results: Path) -> str:
    """How the last run was started; empty where it noted nothing."""
    path = results / COMMAND
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def as_yaml(options: Mapping[str, Any]) -> str:
    """Options as a person would write them."""
    return yaml.safe_dump(dict(options), sort_keys=False, allow_unicode=True, width=100)


def seeds(options: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Every seed among options, by its key."""
    return list(_seeds(options, ""))


def _seeds(options: Mapping[str, Any], where: str) -> Iterator[tuple[str, int]]:
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _seeds(value, f"{where}{name}.")
        elif name == "seed":
            yield f"{where}{name}", value
