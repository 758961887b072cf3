"""Make a sheet: ``python -m pipeline_lib.cohort from-bids|from-folder|from-pictures|synthetic``."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from pipeline_lib.cohort.importers import from_bids, from_folder, from_pictures, group_by_age, read_people
from pipeline_lib.cohort.sheet import Scan, append_to_sheet, write_sheet
from pipeline_lib.errors import UserError


def main() -> int:
    """Run one of the commands; 1 on a fault of the user's."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = _parser().parse_args()
    try:
        scans = _scans(arguments)
        if arguments.command == "synthetic" and arguments.sheet.exists():
            added = append_to_sheet(arguments.sheet, scans)
            sys.stdout.write(f"{arguments.sheet}: is there already; {added} scans added\n")
            return 0
        if arguments.sheet.exists() and not arguments.force:
            raise UserError(f"{arguments.sheet} exists; name another with --sheet, or replace it with --force")
        write_sheet(arguments.sheet, scans)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    people = len({scan.participant for scan in scans})
    sys.stdout.write(f"{arguments.sheet}: {len(scans)} scans of {people} people\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline_lib.cohort", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--sheet", type=Path, default=Path("config/subjects.tsv"), help="sheet to write")
    shared.add_argument("--force", action="store_true", help="replace the sheet where there is one")

    bids = commands.add_parser("from-bids", parents=[shared], help="a BIDS dataset")
    folder = commands.add_parser("from-folder", parents=[shared], help="a folder of NIfTI files")
    folder.add_argument("--pattern", required=True, help="e.g. t1/{participant}_T1.nii.gz")
    folder.add_argument("--modality", default="T1w", help="of all files, where the pattern does not name it")
    folder.add_argument("--participants", type=Path, help="CSV or TSV with participant, age, sex, group")
    pictures = commands.add_parser("from-pictures", parents=[shared], help="PNG or JPEG slices, or class folders")
    for command in (bids, folder):
        command.add_argument("--age-groups", nargs="+", metavar="NAME:FROM-TO", help="groups by age, e.g. young:0-45")
    for command in (bids, folder, pictures):
        command.add_argument("folder", type=Path, help="folder of scans; set cohort.root to it")

    synthetic = commands.add_parser("synthetic", parents=[shared], help="the embedded synthetic cohort")
    synthetic.add_argument("--out", type=Path, default=Path("data/synthetic"), help="folder for the scans")
    synthetic.add_argument("--people", type=int, help="how many people; default 28")
    synthetic.add_argument(
        "--modalities", nargs="+", default=["T1w"], choices=["T1w", "T2w", "FLAIR"], help="anatomical scans of each"
    )
    synthetic.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    return parser


def _scans(arguments: argparse.Namespace) -> list[Scan]:
    if arguments.command == "synthetic":
        # Imported here: it loads the template, which the other commands do without.
        from pipeline_lib.cohort.synthetic import PEOPLE, make_cohort

        numbers = range(1, (arguments.people or PEOPLE) + 1)
        return make_cohort(arguments.out, numbers, modalities=arguments.modalities, workers=arguments.workers)
    if not arguments.folder.is_dir():
        raise UserError(f"{arguments.folder}: no such folder")
    if arguments.command == "from-pictures":
        return from_pictures(arguments.folder)
    if arguments.command == "from-bids":
        scans = from_bids(arguments.folder)
    else:
        people = read_people(arguments.participants) if arguments.participants else {}
        scans = from_folder(arguments.folder, arguments.pattern, people, modality=arguments.modality)
    return group_by_age(scans, arguments.age_groups) if arguments.age_groups else scans


if __name__ == "__main__":
    sys.exit(main())
