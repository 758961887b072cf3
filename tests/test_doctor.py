"""The doctor says what is missing and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline_lib.doctor import Machine, examine, this_machine

SINFO = "cpu* up (null)\ngpu up gpu:a100:2\n"


def machine(answers: dict[str, tuple[int, str]] | None = None, programs: Sequence[str] = ()) -> Machine:
    known = answers or {}
    return Machine(
        python=(3, 12),
        memory_gb=64,
        disk_gb=500,
        cores=8,
        gpus=["A100"],
        find=lambda name: f"/bin/{name}" if name in programs else None,
        run=lambda command: known.get(command[0], (1, f"{command[0]} failed")),
    )


def lines(of: Machine, tmp_path: Path, profile: str = "# slurm-status-command: squeue") -> str:
    """The findings in a checkout that pins an old pytest and needs a package that nobody has."""
    for folder in ("envs", "profiles/slurm"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "envs" / "constraints.txt").write_text("pytest==0.0.1\n")
    (tmp_path / "profiles" / "slurm" / "profile.yaml").write_text(f"executor: slurm\n{profile}\n")
    (tmp_path / "pyproject.toml").write_text("[project]\ndependencies = ['pytest>=8', 'not-a-package[extra]>=1']\n")
    return "\n".join(str(finding) for finding in examine(of, tmp_path))


def test_old_python_is_a_problem_and_says_what_to_do(tmp_path: Path) -> None:
    assert "PROBLEM  Python 3.9: 3.11 or newer is needed; run make PYTHON=" in lines(
        replace(machine(), python=(3, 9)), tmp_path
    )


def test_little_memory_and_no_gpu_are_notes(tmp_path: Path) -> None:
    text = lines(replace(machine(), memory_gb=4, gpus=[]), tmp_path)
    assert "NOTE     4 GB memory, the demo wants 8: lower batch_size" in text
    assert "NOTE     no GPU" in text


def test_package_that_is_missing_is_a_problem(tmp_path: Path) -> None:
    assert "PROBLEM  not installed: not-a-package: run" in lines(machine(), tmp_path)


def test_profile_that_asks_squeue_needs_no_accounting(tmp_path: Path) -> None:
    answers = {"sinfo": (0, SINFO), "scontrol": (0, "AccountingStorageType = accounting_storage/none")}
    text = lines(machine(answers, ["sbatch"]), tmp_path, "slurm-status-command: squeue")
    assert "asked of squeue" in text
    assert "accounting is off" not in text


def test_package_that_differs_from_its_pin_is_named(tmp_path: Path) -> None:
    assert "instead of 0.0.1" in lines(machine(), tmp_path)


@pytest.mark.parametrize(
    ("config", "sacct", "expected"),
    [
        ("AccountingStorageType = accounting_storage/slurmdbd", (0, ""), "OK       SLURM accounting is on"),
        ("AccountingStorageType = accounting_storage/none", (0, ""), "set slurm-status-command: squeue"),
        ("AccountingStorageType = accounting_storage/slurmdbd", (1, "down"), "set slurm-status-command: squeue"),
    ],
)
def test_accounting_decides_the_status_command(
    tmp_path: Path, config: str, sacct: tuple[int, str], expected: str
) -> None:
    answers = {"sinfo": (0, SINFO), "scontrol": (0, config), "sacct": sacct}
    text = lines(machine(answers, ["sbatch", "sacct"]), tmp_path)
    assert expected in text
    assert "SLURM partitions: cpu, gpu" in text
    assert "no GPU is declared" not in text


def test_cluster_without_gpus_and_with_other_partitions(tmp_path: Path) -> None:
    answers = {"sinfo": (0, "batch* up (null)\n"), "scontrol": (0, "")}
    text = lines(machine(answers, ["sbatch"]), tmp_path)
    assert "no partition cpu" in text
    assert "no GPU is declared" in text


def test_dead_controller_is_a_problem(tmp_path: Path) -> None:
    assert "PROBLEM  sinfo does not answer" in lines(machine({}, ["sbatch"]), tmp_path)


def test_this_machine_can_be_examined(tmp_path: Path, repository: Path) -> None:
    findings = list(examine(this_machine(tmp_path), repository))
    assert any(finding.what.startswith("Python") for finding in findings)
