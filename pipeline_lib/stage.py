"""What every script of the workflow shares: its arguments, its log, one line for an error, the sidecar."""

from __future__ import annotations

import argparse
import errno
import importlib
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

from pipeline_lib.errors import UserError
from pipeline_lib.files import provenance, read_json, sha256_file, sha256_text, write_json

log = logging.getLogger("pipeline")
SIDECAR = "provenance.json"
RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
"""Where launchers of several processes say which one this is; only the first writes logs and results."""
RESULTS = {".npy", ".tsv", ".safetensors"}  # not curves and pictures, which tell of a run's speed


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


@contextmanager
def stage(parser: argparse.ArgumentParser) -> Iterator[argparse.Namespace]:
    """Run a stage: log to file and terminal, end with one line on an error, then write the sidecar.

    Of several processes of one job only the first does so; the others show their errors, no more.

    The sidecar ``provenance.json`` is written last, when the stage's folder is complete: it is the
    file by which the workflow knows that the stage is done.
    """
    arguments = parser.parse_args()
    name = arguments.rule or Path(sys.argv[0]).stem
    leads = all(os.environ.get(rank, "0") == "0" for rank in RANKS)
    _limit_threads(arguments.threads)
    _start_log(arguments.log if leads else None, logging.INFO if leads else logging.ERROR)
    started = time.monotonic()
    try:
        yield arguments
        if not leads:
            return
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


def outputs_key(folders: list[Path]) -> str:
    """A hash of the arrays, tables and weights that the given stages wrote, taken from their sidecars."""
    written = [read_json(folder / SIDECAR)["outputs"] for folder in folders]
    counted = [{name: value for name, value in files.items() if Path(name).suffix in RESULTS} for files in written]
    return sha256_text(json.dumps(counted, sort_keys=True))


def state_folder(root: Path, arguments: argparse.Namespace, inputs: list[Path]) -> Path:
    """``root/<key>``, the key being data + configuration + code: where progress is kept."""
    key = sha256_text(json.dumps([arguments.code, arguments.options, outputs_key(inputs)]))
    return root / key[:24]


def run(function: str, recipe: object, inputs: Mapping[str, list[Path]], out: Path) -> None:
    """Call ``module:function`` with a recipe's options, the inputs by name, and ``out``.

    What is annotated as a list gets all folders, a `Mapping` gets them by their names, anything else the one there is.
    """
    module, _, name = function.partition(":")
    called = getattr(importlib.import_module(module), name)
    hints = typing.get_type_hints(called)

    def fitted(kind: object, paths: list[Path]) -> object:
        if typing.get_origin(kind) is Mapping:
            return {path.name: path for path in paths}
        if typing.get_origin(kind) is list:
            return paths
        (path,) = paths
        return path

    called(recipe, **{key: fitted(hints[key], paths) for key, paths in inputs.items()}, out=out)


def _sidecar(name: str, arguments: argparse.Namespace) -> dict[str, object]:
    inputs = [
        path
        for value in vars(arguments).values()
        for path in (_flat(value) if isinstance(value, list) else [value])
        if isinstance(path, Path) and path not in (arguments.out, arguments.log)
    ]
    made = provenance(stage=name, code=arguments.code, options=json.loads(arguments.options), inputs=inputs)
    out: Path = arguments.out
    files = sorted(path for path in out.rglob("*") if path.is_file()) if out.is_dir() else [out]
    outputs = {str(path.relative_to(out.parent)): sha256_file(path) for path in files if path.name != SIDECAR}
    return {**made, "outputs": outputs}


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
