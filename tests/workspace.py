"""A checkout of its own with a tiny cohort, on which real DAGs run."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from pipeline_lib.cohort.sheet import write_sheet
from pipeline_lib.cohort.synthetic import make_cohort

CHECKOUT = ("Snakefile", "workflow", "pipeline_lib", "profiles", "config", "envs", "slurm")
SIDE_BY_SIDE = (
    "--set-threads",
    *(f"train_{kind}=1" for kind in ("vae", "vqgan", "regression", "denoiser")),
    *(
        "latents=1",
        "anomaly_standards=1",
        "infer_anomaly=1",
        "infer_translation=1",
        "sample_synthesis=1",
        "sample_generation=1",
    ),
)
"""One thread each: jobs as short as these are mostly imports, which two of them do side by side."""
TINY = Path(__file__).with_name("tiny.yaml")
BROKEN = "syn008"
"""Whose scan is truncated in the tiny cohort."""


@dataclass(frozen=True)
class Planned:
    """What a dry run would do."""

    counts: dict[str, int]  # rule to number of jobs
    jobs: dict[str, str]  # message of a job to Snakemake's reason for it
    output: str


@dataclass
class Workspace:
    """A checkout in a folder of its own."""

    folder: Path
    log: list[str] = field(default_factory=list)

    def snakemake(
        self, *arguments: str, check: bool = True, config: str = "config/tiny.yaml"
    ) -> subprocess.CompletedProcess[str]:
        """Run Snakemake on a configuration; output and errors together."""
        command = [sys.executable, "-m", "snakemake", *arguments, "--configfile", config]
        done = subprocess.run(
            command, cwd=self.folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment()
        )
        self.log.append(done.stdout)
        if check and done.returncode:
            raise AssertionError(f"snakemake {' '.join(arguments)} failed:\n{done.stdout[-8000:]}")
        return done

    def start(self, *arguments: str, config: str = "config/tiny.yaml") -> subprocess.Popen[str]:
        """Start Snakemake in the background; what it prints goes to ``snakemake.log``."""
        command = [sys.executable, "-m", "snakemake", *arguments, "--configfile", config]
        with open(self.folder / "snakemake.log", "a") as log:
            return subprocess.Popen(
                command, cwd=self.folder, text=True, stdout=log, stderr=log, env=environment(), start_new_session=True,
                preexec_fn=_heed_interrupts,
            )  # fmt: skip

    def forget_state(self) -> None:
        """Remove all training progress."""
        shutil.rmtree(self.folder / "state", ignore_errors=True)

    def run(self, *targets: str) -> Planned:
        """Run for real; what ran."""
        return _planned(self.snakemake(*(targets or ("all",)), "--cores", "2", *SIDE_BY_SIDE).stdout)

    def planned(self, *targets: str) -> Planned:
        """What a dry run would do."""
        return _planned(self.snakemake("-n", *(targets or ("all",))).stdout)

    @contextmanager
    def edited(self, name: str, *changes: tuple[str, str], append: str = "") -> Iterator[None]:
        """A file with some text replaced or appended, put back afterwards with its time."""
        path = self.folder / name
        before, times = path.read_text(), path.stat()
        text = before
        for old, new in changes:
            assert old in text, f"{old!r} is not in {name}"
            text = text.replace(old, new)
        path.write_text(text + append)
        try:
            yield
        finally:
            path.write_text(before)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    def configuration(self) -> dict:
        """The tiny configuration as written."""
        return yaml.safe_load((self.folder / "config" / "tiny.yaml").read_text())


def _heed_interrupts() -> None:
    """Ctrl-C means something again, where these tests themselves run in the background and ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def environment() -> dict[str, str]:
    """The environment without what this test run itself was started with."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "SNAKEMAKE"))}
    return kept | {"OMP_NUM_THREADS": "1"}


def _planned(output: str) -> Planned:
    table = output.split("Job stats:")[-1].split("total")[0] if "Job stats:" in output else ""
    counts = {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, flags=re.MULTILINE)}
    jobs = dict(re.findall(r"^Job \d+: (.*)\nReason: (.*)$", output, flags=re.MULTILINE))
    return Planned(counts, jobs, output)


def checkout(repository: Path, folder: Path) -> Workspace:
    """A checkout in which nothing has run."""
    for name in CHECKOUT:
        source = repository / name
        if source.is_symlink():
            (folder / name).symlink_to(source.readlink())
        elif source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / name)
    (folder / "config" / "splits.tsv").unlink(missing_ok=True)
    shutil.copy2(TINY, folder / "config" / "tiny.yaml")
    return Workspace(folder)


def tiny_cohort(workspace: Workspace) -> None:
    """12 synthetic people, one truncated scan, one faulty row."""
    folder = workspace.folder
    scans = make_cohort(folder / "data", range(1, 13), root=folder, voxel_mm=6.0, workers=2)
    write_sheet(folder / "config" / "subjects.tsv", scans)
    with open(folder / "config" / "subjects.tsv", "a") as sheet:
        sheet.write("bad/id\t1\tT1w\tdata/nowhere.nii.gz\tCN\n")
    broken = folder / next(scan.path for scan in scans if scan.participant == BROKEN and scan.modality == "T1w")
    broken.write_bytes(broken.read_bytes()[:5000])
