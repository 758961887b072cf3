"""A stage ends with its sidecar, or with one line and no sidecar."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

from pipeline_lib.files import provenance, write_json
from pipeline_lib.stage import state_folder

SCRIPT = """
import sys
from pipeline_lib.errors import UserError
from pipeline_lib.stage import stage, stage_parser

parser = stage_parser("test")
parser.add_argument("what")
with stage(parser) as arguments:
    arguments.out.mkdir(parents=True)
    (arguments.out / "result.txt").write_text("42")
    if arguments.what == "user":
        raise UserError("sub-01.nii.gz, row 3: is empty; remove the row")
    if arguments.what == "bug":
        raise KeyError("inner")
    if arguments.what == "disk":
        raise OSError(28, "No space left on device", "big.npy")
"""


def run(tmp_path: Path, repository: Path, what: str) -> tuple[subprocess.CompletedProcess[str], Path, str]:
    script = tmp_path / "some_stage.py"
    script.write_text(SCRIPT)
    out, log = tmp_path / "out", tmp_path / "logs" / "log.txt"
    done = subprocess.run(
        [sys.executable, script, what, "--out", out, "--log", log, "--options", '{"a": 1}', "--code", "abc"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(repository), "PATH": ""},
    )
    return done, out / "provenance.json", log.read_text()


def test_a_sidecar_names_every_seed_of_its_options() -> None:
    training = {"seed": 3, "steps": 7}
    options = {"denoiser": {"training": training}, "sampling": {"seed": 0, "count": 4}, "data": {"size": [8, 8]}}
    made = provenance(stage="samples", code="c", options=options, inputs=[])
    assert made["seed"] == {"denoiser.training.seed": 3, "sampling.seed": 0}
    assert provenance(stage="dataset", code="c", options={"data": {"size": [8]}}, inputs=[])["seed"] is None


def test_finished_stage_says_what_made_it(tmp_path: Path, repository: Path) -> None:
    done, sidecar, _ = run(tmp_path, repository, "fine")
    assert done.returncode == 0
    made = json.loads(sidecar.read_text())
    assert made["stage"] == "some_stage"
    assert made["options"] == {"a": 1}
    assert made["code"] == "abc"
    assert made["outputs"]["out/result.txt"].startswith("73475cb40a568e8d")
    assert "torch" in made["versions"]


def test_user_error_is_one_line_without_traceback(tmp_path: Path, repository: Path) -> None:
    done, sidecar, _ = run(tmp_path, repository, "user")
    assert done.returncode == 1
    assert done.stderr == "ERROR some_stage: sub-01.nii.gz, row 3: is empty; remove the row\n"
    assert not sidecar.exists()


def test_unexpected_error_keeps_its_traceback_in_the_log(tmp_path: Path, repository: Path) -> None:
    done, sidecar, log = run(tmp_path, repository, "bug")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "unexpected KeyError" in done.stderr
    assert "Traceback" in log
    assert not sidecar.exists()


def test_full_disk_names_the_file(tmp_path: Path, repository: Path) -> None:
    done, _, _ = run(tmp_path, repository, "disk")
    assert "cannot write big.npy: No space left on device" in done.stderr


def test_progress_is_kept_under_a_key_of_data_configuration_and_code(tmp_path: Path) -> None:
    def key(*, code: str = "a", options: str = "{}", data: str = "1", picture: str = "1") -> Path:
        outputs = {"data.npy": data, "figure.png": picture}
        write_json(tmp_path / "chunk" / "provenance.json", {"outputs": outputs})
        return state_folder(tmp_path, Namespace(recipe="one", code=code, options=options), [tmp_path / "chunk"])

    assert key() == key() == key(picture="2")
    assert len({key(), key(code="b"), key(options='{"steps": 2}'), key(data="2")}) == 4
