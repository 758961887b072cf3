"""What every script of the workflow shares: its arguments, its log, one line for an error, the sidecar."""

from __future__ import annotations

import argparse
import errno
import importlib
import importlib.metadata
import json
import logging
import os
import sys
import time
import traceback
import typing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from pipeline_lib import __version__
from pipeline_lib.errors import UserError
from pipeline_lib.files import provenance, read_json, sha256_file, write_json, write_table
from pipeline_lib.state import SIDECAR, TRAINED_ON, trained_on, training_key, with_run_time

log = logging.getLogger("pipeline")
RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
"""Where launchers of several processes say which one this is; only the first writes logs and results."""


def folder(text: str) -> Path:
    """A stage's folder, given as such or by its sidecar, as the workflow names it."""
    path = Path(text)
    return path.parent if path.name == SIDECAR else path


def stage_parser(description: str | None) -> argparse.ArgumentParser:
    """The arguments every stage has; a script adds its own inputs."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rule", help="what the workflow calls this stage; the script's name unless given")
    parser.add_argument("--out", type=folder, required=True, help="folder (or page, or table) to write")
    parser.add_argument("--options", default="{}", help="this stage's part of the configuration, as JSON")
    parser.add_argument("--code", default="unknown", help="hash of the code that this stage runs")
    parser.add_argument("--log", type=Path, help="file that keeps the whole log")
    parser.add_argument("--threads", type=int, default=1, help="threads or processes to use")
    return parser


def training_parser(description: str | None) -> argparse.ArgumentParser:
    """The arguments of every stage that trains."""
    parser = stage_parser(description)
    parser.add_argument("--recipe", required=True, help="whose network it is")
    parser.add_argument("--state", type=Path, required=True, help="folder that keeps training progress")
    parser.add_argument("--settings", default="{}", help="run-time settings, which change no result, as JSON")
    parser.add_argument("--licence", default="", help="terms of the scans, kept with the model")
    parser.add_argument("--start-from", default="", help="weights to start from: a bundle or a file")
    parser.add_argument("--train", nargs="+", type=folder, required=True, help="training chunks")
    parser.add_argument("--validation", nargs="+", type=folder, required=True, help="validation chunks")
    return parser


def training_options(arguments: argparse.Namespace) -> str:
    """The options of a training with its run-time settings, as the configuration gave them, as JSON."""
    return json.dumps(with_run_time(json.loads(arguments.options), json.loads(arguments.settings)))


def leads_others() -> bool:
    """Whether this is the first of the processes of a job, or the only one."""
    return all(os.environ.get(rank, "0") == "0" for rank in RANKS)


@contextmanager
def stage(parser: argparse.ArgumentParser) -> Iterator[argparse.Namespace]:
    """Run a stage: log to file and terminal, end with one line on an error, then write the sidecar.

    Of several processes of one job only the first does so; the others show their errors, no more.

    The sidecar ``provenance.json`` is written last, when the stage's folder is complete: it is the
    file by which the workflow knows that the stage is done.
    """
    arguments = parser.parse_args()
    name = arguments.rule or Path(sys.argv[0]).stem
    leads = leads_others()
    _limit_threads(arguments.threads)
    _start_log(arguments.log if leads else None, logging.INFO if leads else logging.ERROR)
    started = time.monotonic()
    try:
        yield arguments
        if not leads:
            return
        if "state" in arguments:
            chunks = [*arguments.train, *arguments.validation]
            write_table(arguments.out / TRAINED_ON, *trained_on(json.loads(arguments.options), chunks))
        sidecar = _sidecar(name, arguments)
    except UserError as error:
        _fail(f"{name}: {error}")
    except OSError as error:
        log.debug(traceback.format_exc())
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            _fail(f"{name}: {error} (the full traceback is in {arguments.log})")
        _fail(f"{name}: cannot write {error.filename or arguments.out}: {error.strerror}; free space or permit writing")
    except MemoryError:
        _fail(f"{name}: out of memory; give the job more memory or lower batch_size")
    except Exception as error:  # noqa: BLE001 - the last line of defence: the traceback goes to the log
        log.debug(traceback.format_exc())
        _fail(f"{name}: unexpected {type(error).__name__}: {error} (the full traceback is in {arguments.log})")
    write_json(sidecar_of(arguments.out), sidecar)
    log.info("%s: done in %.1f s: %s", name, time.monotonic() - started, arguments.out)


def sidecar_of(out: Path) -> Path:
    """Where the sidecar of a folder (inside it) or of a single file (beside it) is."""
    return out.with_suffix(f".{SIDECAR}") if out.suffix else out / SIDECAR


def state_folder(root: Path, arguments: argparse.Namespace, inputs: list[Path]) -> Path:
    """``root/<key>``, where the progress of one training is kept: see `state.training_key`."""
    role = getattr(arguments, "role", "denoiser")
    key = training_key(arguments.recipe, role, arguments.code, json.loads(arguments.options), inputs)
    return root / key


def run(function: str, recipe: object, inputs: Mapping[str, list[Path]], out: Path) -> None:
    """Call ``module:function`` with a recipe's options, the inputs by name, and ``out``.

    What is annotated as a list gets all folders, a `Mapping` gets them by their names, anything else the one
    there is, or None.
    """
    module, _, name = function.partition(":")
    called = getattr(importlib.import_module(module), name)
    hints = typing.get_type_hints(called)

    def fitted(kind: object, paths: list[Path]) -> object:
        if typing.get_origin(kind) is Mapping:
            return {path.name: path for path in paths}
        if typing.get_origin(kind) is list:
            return paths
        if not paths:
            return None
        (path,) = paths
        return path

    called(recipe, **{key: fitted(hints[key], paths) for key, paths in inputs.items()}, out=out)


def _sidecar(name: str, arguments: argparse.Namespace) -> dict[str, object]:
    inputs = [
        path
        for key, value in vars(arguments).items()
        for path in (_flat(value) if isinstance(value, list) else [value])
        if isinstance(path, Path) and key not in ("out", "log", "state")
    ]
    made = provenance(stage=name, code=arguments.code, options=json.loads(arguments.options), inputs=inputs)
    out: Path = arguments.out
    files = sorted(path for path in out.rglob("*") if path.is_file()) if out.is_dir() else [out]
    outputs = {str(path.relative_to(out.parent)): sha256_file(path) for path in files if path.name != SIDECAR}
    versions = {"pipeline_lib": __version__, "snakemake": _version("snakemake"), **made["versions"]}
    return {**made, "versions": versions, "lineage": _lineage(inputs), "outputs": outputs}


def _version(package: str) -> str | None:
    """Its version; None where it is absent, as on a machine that only trains."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _lineage(inputs: list[Path]) -> dict[str, object]:
    """Code and options of every stage that led to the inputs, by its name; of the first input where they differ."""
    lineage: dict[str, object] = {}
    for sidecar in dict.fromkeys(sidecar_of(path) for path in inputs):
        if sidecar.is_file():
            made = read_json(sidecar)
            own = {made["stage"]: {"code": made["code"], "options": made["options"]}} if "stage" in made else {}
            lineage = {**made.get("lineage", {}), **own, **lineage}
    return lineage


def _flat(values: list[Any]) -> Iterator[object]:
    for value in values:
        yield from _flat(value) if isinstance(value, list) else [value]


def _limit_threads(threads: int) -> None:
    """Let the libraries use so many threads: two jobs of one thread each must not become four."""
    for variable in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
        os.environ[variable] = str(threads)
    if "torch" in sys.modules:  # it has read its variable already
        sys.modules["torch"].set_num_threads(threads)


def _start_log(path: Path | None, shown: int) -> None:
    log.setLevel(logging.DEBUG)
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setLevel(shown)
    terminal.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(terminal)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = logging.FileHandler(path, mode="w")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(file)


def _fail(message: str) -> NoReturn:
    log.error("ERROR %s", message)
    raise SystemExit(1)
