"""A hash of the code that a stage runs, so that a stage reruns when its code changes, and only then.

The modules are found by following ``import`` statements from a script through ``pipeline_lib``,
without importing anything. Comments, blank lines and docstrings do not count. Files beside a module
that it names (weights, templates) are part of it.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
# Not counted: what cannot change a result. The configuration's types act through the values a stage receives.
IGNORED = {
    "pipeline_lib",
    "pipeline_lib.code",
    "pipeline_lib.config",
    "pipeline_lib.config.part",
    "pipeline_lib.config.schema",
    "pipeline_lib.errors",
    "pipeline_lib.stage",
    "pipeline_lib.state",
    "pipeline_lib.training.owner",
}

# Of the bundles that ship: what people read, and what travels with a whole recipe, which a stage receives by its digest.
NO_NETWORK = {"card.md", "LICENSE", "fitted"}


def code_hash(script: Path | str, *modules: str) -> str:
    """First 16 hexadecimal digits of the SHA-256 of a script and all library code it imports.

    Args:
        script: the file of ``workflow/scripts`` that a rule runs.
        modules: dotted names of modules that the script chooses by configuration, for
            instance ``pipeline_lib.models.vqgan``.
    """
    digest = hashlib.sha256(_meaning(Path(script)).encode())
    for module in sorted(imported_modules(script, *modules)):
        digest.update(module.encode())
        digest.update(_meaning(_file_of(module)).encode())
    return digest.hexdigest()[:16]


def imported_modules(script: Path | str, *modules: str) -> set[str]:
    """Dotted names of every ``pipeline_lib`` module reached from a script and ``modules``."""
    found: set[str] = set()
    waiting = [*_imports(Path(script)), *modules]
    while waiting:
        module = waiting.pop()
        if module not in found and module not in IGNORED:
            found.add(module)
            waiting += _imports(_file_of(module))
    return found


@functools.cache
def _tree(path: Path) -> ast.Module:
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
            ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return tree


@functools.cache
def _meaning(path: Path) -> str:
    return "".join([ast.dump(_tree(path)), *(_content(file) for file in _named_files(path))])


def _named_files(path: Path) -> list[Path]:
    """Data files beside a module, or in folders beside it, that it names."""
    texts = {node.value for node in ast.walk(_tree(path)) if isinstance(node, ast.Constant)}
    names = {text for text in texts if isinstance(text, str) and text.isprintable() and 0 < len(text) < 100}
    beside = sorted(entry for entry in path.parent.iterdir() if entry.name in names and entry.suffix != ".py")
    found = [file for entry in beside for file in (sorted(entry.rglob("*")) if entry.is_dir() else [entry])]
    return [
        file
        for file in found
        if file.is_file()
        and file.suffix != ".py"
        and not {"__pycache__", *NO_NETWORK}.intersection(file.relative_to(path.parent).parts)
    ]


def _content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@functools.cache
def _imports(path: Path) -> tuple[str, ...]:
    names: list[str] = []
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(name for name in names if name.split(".")[0] == PACKAGE.name and _is_module(name))


def _is_module(name: str) -> bool:
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def _file_of(module: str) -> Path:
    path = PACKAGE.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
