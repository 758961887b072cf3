"""Make a sheet, or take a person out: ``python -m pipeline_lib.cohort from-bids|from-folder|from-pictures|synthetic|on-labels|withdraw``."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import NoReturn

from pipeline_lib.cohort.importers import Found, from_bids, from_folder, from_pictures, group_by_age
from pipeline_lib.cohort.ledger import read_ledger
from pipeline_lib.cohort.people import few, read_people
from pipeline_lib.cohort.sheet import append_to_sheet, write_sheet
from pipeline_lib.cohort.withdrawal import carry_out, find_withdrawal
from pipeline_lib.config.load import read_config
from pipeline_lib.errors import UserError, print_anything, run_command
from pipeline_lib.files import write_table


def main() -> int:
    """Run one of the commands; 1 on a fault of the user's."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    print_anything()
    arguments = _parser().parse_args()
    try:
        arguments.run(arguments)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except BrokenPipeError:
        raise
    except OSError as error:
        sys.stderr.write(
            f"{error.filename or arguments.command}: {error.strerror or error}; correct the path or its permissions\n"
        )
        return 1
    return 0


def _import(arguments: argparse.Namespace) -> None:
    if not arguments.folder.is_dir():
        raise UserError(f"{arguments.folder}: no such folder")
    _refuse_existing(arguments)
    found: Found = arguments.find(arguments)
    if getattr(arguments, "age_groups", None):
        found.scans = group_by_age(found.scans, arguments.age_groups)
        unnamed = sorted({scan.participant for scan in found.scans if not scan.group})
        if unnamed:
            found.notes.append(f"{len(unnamed)} people are in no age group: {few(unnamed)}")
    write_sheet(arguments.sheet, found.scans)
    listed = arguments.sheet.with_suffix(".left_out.tsv")
    listed.unlink(missing_ok=True)
    if found.left_out:
        write_table(listed, ("file", "reason"), [{"file": _shown(file), "reason": why} for file, why in found.left_out])
        found.notes.append(f"{len(found.left_out)} files left out, each with its reason: {listed}")
    for note in found.notes:
        sys.stdout.write(f"{note}\n")
    people = len({scan.participant for scan in found.scans})
    sys.stdout.write(f"{arguments.sheet}: {len(found.scans)} scans of {people} people\n")


def _synthetic(arguments: argparse.Namespace) -> None:
    # Imported here: it loads the template, which the other commands do without.
    from pipeline_lib.cohort.synthetic import PEOPLE, make_cohort

    numbers = range(1, (arguments.people or PEOPLE) + 1)
    scans = make_cohort(arguments.out, numbers, modalities=arguments.modalities, workers=arguments.workers)
    if arguments.sheet.exists() and not arguments.force:
        added = append_to_sheet(arguments.sheet, scans)
        sys.stdout.write(f"{arguments.sheet}: is there already; {added} scans added\n")
        return
    write_sheet(arguments.sheet, scans)
    sys.stdout.write(f"{arguments.sheet}: {len(scans)} scans of {len(numbers)} people\n")


def _on_labels(arguments: argparse.Namespace) -> None:
    # Imported here, as above.
    from pipeline_lib.cohort.labelled import Simulation, simulate_on_labels

    _refuse_existing(arguments)
    people = read_people(arguments.participants) if arguments.participants else None
    labels = from_folder(arguments.folder, arguments.pattern, people)
    for note in labels.notes:
        sys.stdout.write(f"{_shown(note)}\n")
    options = Simulation(arguments.factor, arguments.snr, seed=arguments.seed)
    scans = simulate_on_labels(labels.scans, arguments.folder, arguments.out, Path(), options)
    write_sheet(arguments.sheet, scans)
    sys.stdout.write(f"{arguments.sheet}: {len(scans)} scans of {len(labels.scans)} people\n")


def _withdraw(arguments: argparse.Namespace) -> None:
    cohort = read_config(arguments.configfile).cohort
    subjects, splits, results = Path(cohort.subjects), Path(cohort.splits), Path(cohort.results)
    found = find_withdrawal(arguments.participant, subjects, read_ledger(splits), results)
    who = " and ".join(found.ids)
    if arguments.yes:  # first, so that nobody who stops reading stops it
        carry_out(found, subjects, splits)
    for path in found.remove:
        sys.stdout.write(f"{path}{' (a model that learned from them)' if path in found.models else ''}\n")
    sys.stdout.write(
        f"{who}: {len(found.remove)} files and folders hold them, name them or were made from them, {len(found.models)} of them models; "
        f"{len(found.rows)} row{'s' * (len(found.rows) != 1)} of {subjects}; what is in {splits} becomes a hash\n"
    )
    if not arguments.yes:
        sys.stdout.write("nothing was changed; --yes removes all of it\n")
        return
    sys.stdout.write(
        f"removed; the next run makes anew what must be. The scans in {cohort.root}, .snakemake/log and copies elsewhere "
        "are for you to delete\n"
    )


def _refuse_existing(arguments: argparse.Namespace) -> None:
    if arguments.sheet.exists() and not arguments.force:
        raise UserError(f"{arguments.sheet} exists; name another with --sheet, or replace it with --force")


def _shown(text: str) -> str:
    """Text that can be written, whatever bytes a file's name has."""
    return text.encode("utf-8", "backslashreplace").decode()


def _bids(arguments: argparse.Namespace) -> Found:
    return from_bids(arguments.folder, covariates=arguments.covariates)


def _folder(arguments: argparse.Namespace) -> Found:
    people = read_people(arguments.participants, arguments.covariates) if arguments.participants else None
    return from_folder(
        arguments.folder,
        arguments.pattern,
        people,
        modality=arguments.modality,
        lesion_pattern=arguments.lesion_pattern,
    )


def _pictures(arguments: argparse.Namespace) -> Found:
    return from_pictures(arguments.folder, whose=arguments.whose, lesion_pattern=arguments.lesion_pattern)


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the arguments."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see --help\n")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m pipeline_lib.cohort", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    shared = _Parser(add_help=False)
    shared.add_argument("--sheet", type=Path, default=Path("config/subjects.tsv"), help="sheet to write")
    shared.add_argument("--force", action="store_true", help="replace the sheet where there is one")

    bids = commands.add_parser("from-bids", parents=[shared], help="a BIDS dataset")
    bids.set_defaults(run=_import, find=_bids)
    folder = commands.add_parser("from-folder", parents=[shared], help="a folder of NIfTI files")
    folder.set_defaults(run=_import, find=_folder)
    folder.add_argument("--pattern", required=True, help="e.g. t1/{participant}_T1.nii.gz")
    folder.add_argument("--modality", default="T1w", help="of all files, where the pattern does not name it")
    folder.add_argument("--participants", type=Path, help="CSV or TSV with participant, age, sex, group")
    folder.add_argument("--lesion-pattern", default="", help="lesion masks, e.g. lesion/{participant}_lesion.nii.gz")
    pictures = commands.add_parser("from-pictures", parents=[shared], help="PNG or JPEG slices, or class folders")
    pictures.set_defaults(run=_import, find=_pictures)
    pictures.add_argument(
        "--whose", choices=["name", "picture", "folder"], default="name",
        help="whose a picture is: the patient's in its name, a person's of its own, or its folder's",
    )  # fmt: skip
    pictures.add_argument("--lesion-pattern", default="", help="lesion masks, e.g. masks/{folder}/{name}.png")
    for command in (bids, folder):
        command.add_argument("--age-groups", nargs="+", metavar="NAME:FROM-TO", help="groups by age, e.g. young:0-45")
        command.add_argument("--covariates", nargs="+", default=[], help="further columns of the participants to keep")
    for command in (bids, folder, pictures):
        command.add_argument("folder", type=Path, help="folder of scans; set cohort.root to it")

    synthetic = commands.add_parser("synthetic", parents=[shared], help="the embedded synthetic cohort")
    synthetic.set_defaults(run=_synthetic)
    synthetic.add_argument("--out", type=Path, default=Path("data/synthetic"), help="folder for the scans")
    synthetic.add_argument("--people", type=_positive, help="how many people; default 28")
    synthetic.add_argument(
        "--modalities", nargs="+", default=["T1w"], choices=["T1w", "T2w", "FLAIR"], help="anatomical scans of each"
    )
    synthetic.add_argument("--workers", type=_positive, default=os.cpu_count() or 1, help="processes")

    on_labels = commands.add_parser(
        "on-labels", parents=[shared], help="simulated diffusion MRI and NODDI maps on people's maps of labels"
    )
    on_labels.set_defaults(run=_on_labels)
    on_labels.add_argument("folder", type=Path, help="folder of the maps of labels, of MUSE's numbers")
    on_labels.add_argument("--pattern", required=True, help="e.g. dlmuse/{participant}_T1_DLMUSE.nii.gz")
    on_labels.add_argument("--participants", type=Path, help="CSV or TSV with participant, age, sex, group")
    on_labels.add_argument("--out", type=Path, default=Path("data/on_labels"), help="folder for the scans")
    on_labels.add_argument(
        "--factor", type=_positive, default=2, help="voxels of a map in one of diffusion MRI, an axis"
    )
    on_labels.add_argument("--snr", type=float, default=30.0, help="of fluid without weighting")
    on_labels.add_argument("--seed", type=int, default=0, help="of noise and variation")

    withdraw = commands.add_parser("withdraw", help="remove a person from results, state, sheet and ledger")
    withdraw.set_defaults(run=_withdraw)
    withdraw.add_argument("participant", help="as in the sheet")
    withdraw.add_argument("--configfile", type=Path, default=Path("config/config.yaml"), help="the run's configuration")
    withdraw.add_argument("--yes", action="store_true", help="remove what is listed")
    return parser


if __name__ == "__main__":
    run_command(main)
