"""Time and memory of a dry run over cohorts of 100, 1,000 and 10,000 scans, as a Markdown table.

    python benchmarks/dry_run.py > docs/dry_run.md

The sheet names files that need not exist; the configuration is the demo's, with chunks of 50.
"""

from __future__ import annotations

import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
SIZES = (100, 1_000, 10_000)


def write_cohort(folder: Path, scans: int) -> Path:
    """A sheet of one T1w a person and ten pairs of diffusion MRI, and a configuration that names it."""
    draw = random.Random(0)
    rows = ["participant\tmodality\tpath\tgroup\tage\tsex\tbval\tbvec"]
    for i in range(scans):
        person = f"p{i:05d}"
        about = f"{draw.choice(['CN', 'AD'])}\t{draw.randint(20, 85)}\t{draw.choice('MF')}"
        rows.append(f"{person}\tT1w\t{person}_T1w.nii.gz\t{about}\t\t")
        if i < 20:
            rows.append(f"{person}\tdwi\t{person}_dwi.nii.gz\t{about}\t{person}.bval\t{person}.bvec")
            rows.append(f"{person}\tnoddi\t{person}_noddi.nii.gz\t{about}\t\t")
    (folder / "subjects.tsv").write_text("\n".join(rows) + "\n")
    config = yaml.safe_load((REPOSITORY / "config" / "config.yaml").read_text())
    config["cohort"] |= {
        "subjects": str(folder / "subjects.tsv"),
        "splits": str(folder / "splits.tsv"),
        "root": str(folder),
        "results": str(folder / "results"),
        "chunk_size": 50,
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def measure(scans: int) -> tuple[int, float, float]:
    """Jobs planned, seconds, and the largest memory of any run so far in MB."""
    with tempfile.TemporaryDirectory() as folder:
        config = write_cohort(Path(folder), scans)
        command = [sys.executable, "-m", "snakemake", "-n", "-q", "all", "--configfile", str(config)]
        started = time.perf_counter()
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
        seconds = time.perf_counter() - started
    jobs = next(int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("total "))
    return jobs, seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def main() -> None:
    """Print the table."""
    print("# Dry runs of large cohorts\n")
    print("Made by `python benchmarks/dry_run.py > docs/dry_run.md`: all four recipes, chunks of 50 scans, 2 cores.\n")
    print("| scans | jobs | seconds | memory, MB |")
    print("|---:|---:|---:|---:|")
    for scans in SIZES:
        jobs, seconds, memory = measure(scans)
        print(f"| {scans:,} | {jobs:,} | {seconds:.1f} | {memory:.0f} |")


if __name__ == "__main__":
    main()
