"""Take a map in template space back to a scan: ``python -m pipeline_lib.imaging to-native``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import SimpleITK as sitk

from pipeline_lib.errors import UserError
from pipeline_lib.imaging.canonical import open_scan
from pipeline_lib.imaging.nifti import write_volume
from pipeline_lib.imaging.registration import native_map


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 1 on a fault of the user's."""
    parser = argparse.ArgumentParser(prog="python -m pipeline_lib.imaging", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    native = commands.add_parser("to-native", help="a map in template space on the grid of the scan it was made from")
    native.add_argument("map", type=Path, help="e.g. an anomaly map, NIfTI in MNI152 space")
    native.add_argument("transform", type=Path, help="the scan's ..._from-MNI152_to-native_mode-image_xfm file")
    native.add_argument("scan", type=Path, help="the scan whose grid is wanted")
    native.add_argument("out", type=Path, help="NIfTI file to write, in RAS+ voxel order")
    options = parser.parse_args(arguments)
    try:
        moved = native_map(
            open_scan(options.map, str(options.map)),
            open_scan(options.scan, str(options.scan)),
            _read_transform(options.transform),
        )
        write_volume(options.out, moved)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _read_transform(path: Path) -> sitk.Transform:
    try:
        return sitk.ReadTransform(str(path))
    except RuntimeError:
        raise UserError(f"{path}: not a transform that can be read; give a ..._to-native_mode-image_xfm file") from None


if __name__ == "__main__":
    sys.exit(main())
