"""``python -m pipeline_lib.apply anomaly-flair scans/ --out results/study``: a trained recipe on a folder of new scans.

The folder is BIDS, or holds NIfTI files (or pictures, for a model of pictures). A sheet and a configuration are written
beside the folder of results (``results/study_config``) and Snakemake is started with them; whatever it is told after ``--``, it gets.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from pipeline_lib.bundle_plan import FinishedRecipe, finished_recipe
from pipeline_lib.cohort.importers import Found, from_bids, from_folder, from_pictures
from pipeline_lib.cohort.sheet import write_sheet
from pipeline_lib.config.load import load_config
from pipeline_lib.config.schema import TOGETHER
from pipeline_lib.errors import UserError
from pipeline_lib.files import read_table, write_text

CHECKOUT = Path(__file__).resolve().parent.parent
PATTERNS = ("{participant}.nii.gz", "{participant}.nii")
"""Of a plain folder: a file a person."""
DRY = {"-n", "--dry-run", "--dryrun"}
"""Options of Snakemake with which nothing is run."""
DESCRIPTION = (
    "A trained recipe on a folder of new scans: BIDS, or NIfTI files (or pictures, for a model of pictures). Sheet and configuration are "
    "written beside the folder of results (results/study_config); what follows -- is given to Snakemake."
)
SHOWN = re.compile(
    r"^(Job \d+: .*|\d+ of \d+ steps .*|NOTE .*|.*\bERROR\b.*|(Workflow|Missing|Lock)\w*(Error|Exception).*)"
)
"""Lines of Snakemake that a person watching wants to see; the log has all."""


@dataclass(frozen=True)
class Study:
    """A folder of results, and beside it what is written for Snakemake: sheet, ledger, configuration."""

    out: Path
    recipe: str

    @property
    def given(self) -> Path:
        """The folder of ``subjects.tsv``, ``splits.tsv``, ``config.yaml`` and ``apply.log``."""
        return self.out.with_name(f"{self.out.name}_config")

    @property
    def config(self) -> Path:
        """The configuration."""
        return self.given / "config.yaml"

    @property
    def report(self) -> Path:
        """Where the report will be."""
        return self.out / "report" / "index.html"


def main() -> int:
    """Write the study and run it; Snakemake's exit status."""
    words, more = _split(sys.argv[1:])
    arguments = _parser().parse_args(words)
    try:
        finished = finished_recipe(arguments.weights)
        study, notes = write_study(
            finished, **{k: v for k, v in vars(arguments).items() if k not in ("cores", "profile")}
        )
        command = snakemake(study, arguments.cores, arguments.profile, more)
    except UserError as error:
        sys.stderr.write(f"ERROR {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"ERROR {error.filename}: {error.strerror}; correct the path or its permissions\n")
        return 1
    for note in notes:
        _say(note)
    return _run(command, study, planned=bool(DRY.intersection(more)))


def write_study(
    finished: FinishedRecipe, weights: str, folder: Path, out: Path | None, pattern: str, lesion_pattern: str
) -> tuple[Study, list[str]]:
    """Write sheet and configuration; what is to be said of them.

    Args:
        finished: the recipe to apply.
        weights: what it is called in the configuration.
        folder: the scans.
        out: folder of results; None: ``results/`` and the recipe's name.
        pattern, lesion_pattern: see `importers.from_folder`; empty: `PATTERNS`, none.

    Raises:
        UserError: there is no scan that the recipe can be applied to.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    data = finished.options["data"]
    name = re.sub("[^a-z0-9]+", "_", finished.name.lower()).strip("_")
    study = Study(out or Path("results") / name, name if re.match("[a-z]", name) else f"recipe_{name}")
    found = _scans(folder, data, pattern, lesion_pattern)
    write_sheet(study.given / "subjects.tsv", found.scans)
    values = {
        "cohort": {
            "name": folder.resolve().name,
            "note": f"Nothing was trained on these scans: the model is {finished.name}.",
            "subjects": (study.given / "subjects.tsv").as_posix(),
            "splits": (study.given / "splits.tsv").as_posix(),
            "root": folder.as_posix(),
            "results": study.out.as_posix(),
            "chunk_size": 10,
            "max_failed_fraction": 1.0,
        },
        "recipes": {study.recipe: {"weights": weights}},
    }
    load_config(values)
    write_text(study.config, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
    people = len({scan.participant for scan in found.scans})
    return study, [*found.notes, f"{len(found.scans)} scans of {people} people: {study.given / 'subjects.tsv'}"]


def snakemake(study: Study, cores: int, profile: str, more: Sequence[str]) -> list[str]:
    """The command that runs the study from any folder.

    Raises:
        UserError: the workflow is not where this library is.
    """
    snakefile = CHECKOUT / "Snakefile"
    if not snakefile.is_file():
        raise UserError(
            f"{snakefile} is missing: install from a checkout (pip install --editable), which has the workflow"
        )
    own = CHECKOUT / "profiles" / profile
    where = ["--profile", str(own if profile and own.is_dir() else profile)] if profile else ["--cores", str(cores)]
    started = [sys.executable, "-m", "snakemake", "all", "--snakefile", str(snakefile), *where, *more]
    return [*started, "--configfile", str(study.config)]


def _scans(folder: Path, data: dict[str, Any], pattern: str, lesion_pattern: str) -> Found:
    """The scans of the recipe's modality, and of its target where there are any."""
    modality = data["modality"]
    modalities = modality.split(TOGETHER)
    if modality == "image":
        return from_pictures(folder, lesion_pattern=lesion_pattern)
    bids = not pattern and any(path.is_dir() for path in folder.glob("sub-*"))
    if not bids and len(modalities) > 1 and "{modality}" not in pattern:
        raise UserError(
            f"{folder}: the model is for {' and '.join(modalities)}; say where each is, for instance "
            "--pattern '{participant}_{modality}.nii.gz'"
        )
    found = from_bids(folder) if bids else _plain(folder, pattern, modalities[0], lesion_pattern)
    there = sorted({scan.modality for scan in found.scans})
    found.scans = [scan for scan in found.scans if scan.modality in (*modalities, data.get("target"))]
    if not any(scan.modality in modalities for scan in found.scans):
        raise UserError(
            f"{folder}: no {' or '.join(modalities)} scan, which the model is for; there are {', '.join(there)}"
        )
    return found


def _plain(folder: Path, pattern: str, modality: str, lesion_pattern: str) -> Found:
    endings = [each for each in PATTERNS if next(folder.glob(each.replace("{participant}", "*")), None)]
    patterns = [pattern] if pattern else endings
    if not patterns:
        raise UserError(
            f"{folder}: neither BIDS (sub-*/anat) nor NIfTI files in it; say where they are below it, for instance "
            "--pattern '{participant}/flair.nii.gz'"
        )
    first, *others = [from_folder(folder, each, modality=modality, lesion_pattern=lesion_pattern) for each in patterns]
    if twice := sorted({scan.id for scan in first.scans} & {scan.id for found in others for scan in found.scans}):
        raise UserError(f"{folder}: {twice[0]} is there as .nii and as .nii.gz; remove one")
    for found in others:
        first.scans += found.scans
    if others:
        first.notes = []
    return first


def _run(command: Sequence[str], study: Study, *, planned: bool = False) -> int:
    """Run Snakemake, showing how far it is; all it says goes to ``apply.log``. What was only ``planned`` has no result."""
    log = study.given / "apply.log"
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace") as run,
        open(log, "w", encoding="utf-8") as file,
    ):
        assert run.stdout is not None
        for line in run.stdout:
            file.write(line)
            if SHOWN.match(line):
                _say(line.rstrip())
    if run.returncode:
        _say(f"ERROR not finished: the whole log is {log}; the same command goes on from here")
        return run.returncode
    if planned:
        _say("Planned only, nothing was run")
        return 0
    for line in _left_out(study.out):
        _say(line)
    _say(f"Report: {study.report}" if study.report.is_file() else f"Done; see {log}")
    return 0


def _left_out(out: Path) -> Iterator[str]:
    """How many scans were used, and why the others were not."""
    rows = [row for table in sorted((out / "cohort").glob("test-*.tsv")) for row in read_table(table)]
    gone = [row for row in rows if row["included"] != "true"]
    if rows:
        yield f"{len(rows) - len(gone)} of {len(rows)} scans were used"
    yield from (f"left out: {row['scan']}: {row['reason']}" for row in gone)


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is for this command, and what comes after ``--``."""
    place = words.index("--") if "--" in words else len(words)
    return list(words[:place]), list(words[place + 1 :])


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m pipeline_lib.apply", description=DESCRIPTION)
    parser.add_argument("weights", help="a bundle by its name or folder, or the folder of a finished recipe")
    parser.add_argument("folder", type=Path, help="folder of scans")
    parser.add_argument("--out", type=Path, help="folder of results; results/ and the bundle's name unless given")
    parser.add_argument("--pattern", default="", help="where scans are, e.g. '{participant}/flair.nii.gz'")
    parser.add_argument("--lesion-pattern", default="", help="where lesion masks are, with the same placeholders")
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1, help="CPU cores to use")
    parser.add_argument("--profile", default="", help="of Snakemake, e.g. slurm, instead of cores of this machine")
    return parser


if __name__ == "__main__":
    sys.exit(main())
