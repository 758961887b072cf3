"""Take a map in template space back to a scan: ``python -m pipeline_lib.imaging to-native``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import SimpleITK as sitk

from pipeline_lib.errors import UserError, print_anything, run_command
from pipeline_lib.files import atomic_path
from pipeline_lib.imaging.canonical import open_described
from pipeline_lib.imaging.nifti import write_volume
from pipeline_lib.imaging.registration import native_map


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 1 on a fault of the user's."""
    parser = argparse.ArgumentParser(prog="python -m pipeline_lib.imaging", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    native = commands.add_parser("to-native", help="a map in template space on the grid of the scan it was made from")
    native.add_argument("map", type=Path, help="e.g. an anomaly map, NIfTI in MNI152 space")
    native.add_argument("transform", type=Path, help="the scan's ..._from-MNI152_to-T1w_mode-image_xfm file")
    native.add_argument("scan", type=Path, help="the scan whose grid is wanted")
    native.add_argument("out", type=Path, help="NIfTI file to write")
    print_anything()
    options = parser.parse_args(arguments)
    try:
        if not options.out.name.endswith((".nii", ".nii.gz")):
            raise UserError(f"{options.out}: a NIfTI file is written; call it .nii.gz")
        transform = _read_transform(options.transform)
        brought, scan = (open_described(path, str(path), constant=True) for path in (options.map, options.scan))
        moved = native_map(brought.volume, scan.volume, transform)
        with atomic_path(options.out) as temporary:
            write_volume(temporary, moved, orientation=scan.notes["orientation"])
    except OSError as error:
        sys.stderr.write(f"{options.out}: cannot be written ({error.strerror}); choose another place\n")
        return 1
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _read_transform(path: Path) -> sitk.Transform:
    if "_from-MNI152_to-" not in path.name:
        raise UserError(f"{path}: not a transform from MNI152; give the scan's ..._from-MNI152_to-..._xfm file")
    try:
        return sitk.ReadTransform(str(path))
    except RuntimeError:
        raise UserError(f"{path}: cannot be read as a transform; preprocess the scan again") from None


if __name__ == "__main__":
    run_command(main)
