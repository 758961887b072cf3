"""Is this machine ready? ``python -m pipeline_lib.doctor`` checks it and says what to do.

One line a check: OK, NOTE (works, but) or PROBLEM (will not work). The exit code is 1 only with a PROBLEM.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline_lib.errors import print_anything, run_command

LEAST_PYTHON = (3, 11)
LEAST_MEMORY_GB = 8.0
LEAST_DISK_GB = 10.0
PROGRAMS = {
    "mri_synthstrip": "brain_extraction: synthstrip",
    "hd-bet": "brain_extraction: hd-bet",
    "dcm2niix": "converting DICOM folders to NIfTI before they come here",
    "streamlit": "the simplex visualiser (pip install '.[visualizer]')",
}


@dataclass(frozen=True)
class Finding:
    """One line of the answer."""

    level: str  # OK, NOTE or PROBLEM
    what: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.level:<8} {self.what}" + (f": {self.advice}" if self.advice else "")


@dataclass(frozen=True)
class Machine:
    """What the checks ask of a machine; a test gives its own."""

    python: tuple[int, int]
    memory_gb: float
    disk_gb: float
    cores: int
    gpus: Sequence[str]
    find: Callable[[str], str | None]
    run: Callable[[Sequence[str]], tuple[int, str]]


def examine(machine: Machine, checkout: Path) -> Iterator[Finding]:
    """All findings, in order; ``checkout`` is the folder with pyproject.toml, ``envs`` and ``profiles``."""
    yield _python(machine.python)
    yield _enough(
        "memory", machine.memory_gb, LEAST_MEMORY_GB, "lower batch_size, or --cores to run fewer jobs at once"
    )
    yield _enough("free disk", machine.disk_gb, LEAST_DISK_GB, "free space, or set cohort.results to another disk")
    yield Finding("OK", f"{machine.cores} CPU cores")
    yield _gpu(machine.gpus)
    yield from _missing(checkout / "pyproject.toml")
    yield from _versions(checkout / "envs" / "constraints.txt")
    yield from _slurm(machine, checkout / "profiles" / "slurm" / "profile.yaml")
    for program, use in PROGRAMS.items():
        found = machine.find(program)
        yield (
            Finding("OK", program)
            if found
            else Finding("NOTE", f"{program} is not installed", f"needed only for {use}")
        )


def _python(version: tuple[int, int]) -> Finding:
    name = f"Python {version[0]}.{version[1]}"
    if version >= LEAST_PYTHON:
        return Finding("OK", name)
    return Finding("PROBLEM", name, "3.11 or newer is needed; run make PYTHON=python3.11 demo")


def _enough(what: str, have: float, least: float, advice: str) -> Finding:
    text = f"{have:.0f} GB {what}"
    return Finding("OK", text) if have >= least else Finding("NOTE", f"{text}, the demo wants {least:.0f}", advice)


def _gpu(names: Sequence[str]) -> Finding:
    if names:
        return Finding("OK", f"GPU: {', '.join(names)}")
    return Finding("NOTE", "no GPU", "the demo runs without; the recipes of config/recipes need one")


def _missing(pyproject: Path) -> Iterator[Finding]:
    """Packages the pipeline cannot do without."""
    if not pyproject.is_file():
        return
    wanted = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["dependencies"]
    names = [re.split(r"[\s<>=!~\[;]", requirement, maxsplit=1)[0] for requirement in wanted]
    absent = [name for name in names if not _is_installed(name)]
    if absent:
        yield Finding("PROBLEM", f"not installed: {', '.join(absent)}", "run make demo, or source .venv/bin/activate")


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _versions(constraints: Path) -> Iterator[Finding]:
    """Installed versions against the pinned ones."""
    if not constraints.is_file():
        yield Finding("NOTE", f"{constraints} is missing", "run this from the checkout")
        return
    differing = []
    for line in constraints.read_text().splitlines():
        name, _, pinned = line.partition("==")
        if not pinned or not _is_installed(name):
            continue
        installed = importlib.metadata.version(name).split("+")[0]
        if installed != pinned.split("+")[0]:
            differing.append(f"{name} {installed} instead of {pinned}")
    if differing:
        yield Finding("NOTE", f"{len(differing)} packages differ from {constraints.name}", "; ".join(differing[:5]))
    else:
        yield Finding("OK", f"packages are those of {constraints.name}")


def _slurm(machine: Machine, profile: Path) -> Iterator[Finding]:
    if machine.find("sbatch") is None:
        yield Finding("NOTE", "no SLURM on this machine", "run on a login node for snakemake --profile slurm")
        return
    code, answer = machine.run(["sinfo", "--noheader", "--format=%P %a %G"])
    if code:
        yield Finding("PROBLEM", "sinfo does not answer", f"{_last(answer)}; is the controller (slurmctld) running?")
        return
    partitions = sorted({line.split()[0].rstrip("*") for line in answer.splitlines() if line.split()})
    yield Finding("OK", f"SLURM partitions: {', '.join(partitions)}")
    for wanted in sorted({"cpu", "gpu"} - set(partitions)):
        advice = "name one of yours in profiles/slurm/profile.yaml"
        yield Finding("NOTE", f"no partition {wanted}", advice)
    if "gpu:" not in answer:
        yield Finding("NOTE", "no GPU is declared (gres)", "training will run on CPU; remove gres from the profile")
    _, config = machine.run(["scontrol", "show", "config"])
    found = re.search(r"AccountingStorageType\s*=\s*(\S+)", config)
    accounting = found is not None and not found[1].endswith("/none")
    code, answer = machine.run(["sacct", "--noheader", "-X", "-n"]) if machine.find("sacct") else (1, "no sacct")
    status = re.search(r"^slurm-status-command:\s*(\S+)", profile.read_text(encoding="utf-8"), re.MULTILINE)
    if status is not None and status[1] == "squeue":
        yield Finding("OK", f"the state of jobs is asked of squeue, as {profile} says")
    elif accounting and code == 0:
        yield Finding("OK", "SLURM accounting is on: slurm-status-command sacct, the default")
    else:
        yield Finding(
            "NOTE",
            "SLURM accounting is off",
            f"set slurm-status-command: squeue in {profile}, or jobs are never seen to end",
        )


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no message"


def this_machine(folder: Path) -> Machine:
    """The machine this runs on; ``folder`` is where results will go."""
    gpus = []
    if importlib.util.find_spec("torch") is not None:
        import torch

        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Machine(
        python=(sys.version_info.major, sys.version_info.minor),
        memory_gb=_memory_bytes() / 1e9,
        disk_gb=shutil.disk_usage(folder).free / 1e9,
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        gpus=gpus,
        find=shutil.which,
        run=_run,
    )


def _memory_bytes() -> float:
    """Memory of the machine, or of the container where that is less."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else "max"
    return float(machine if text == "max" else min(machine, int(text)))


def _run(command: Sequence[str]) -> tuple[int, str]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    return done.returncode, done.stdout + done.stderr


def main() -> int:
    """Print the findings; 1 when there is a PROBLEM."""
    print_anything()
    findings = list(examine(this_machine(Path.cwd()), Path()))
    if not os.access(Path.cwd(), os.W_OK):
        findings.append(Finding("PROBLEM", f"{Path.cwd()} cannot be written to", "work in a folder of your own"))
    for finding in findings:
        sys.stdout.write(f"{finding}\n")
    return int(any(finding.level == "PROBLEM" for finding in findings))


if __name__ == "__main__":
    run_command(main)
