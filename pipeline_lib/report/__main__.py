"""``python -m pipeline_lib.report compare A B``: two folders of results side by side."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipeline_lib.errors import UserError, print_anything
from pipeline_lib.report.compare import compare


def main() -> None:
    """Read the arguments and do what they say."""
    parser = argparse.ArgumentParser(prog="python -m pipeline_lib.report", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    two = commands.add_parser("compare", help="what differed between two runs, and what changed in results")
    two.add_argument("first", type=Path, help="a folder of results")
    two.add_argument("second", type=Path, help="another one")
    two.add_argument("--out", type=Path, default=Path("compare.html"), help="the page to write (default: %(default)s)")
    print_anything()
    arguments = parser.parse_args()
    try:
        lines = compare(arguments.first, arguments.second, arguments.out)
    except UserError as error:
        sys.exit(f"ERROR {error}")
    print("\n".join([*lines, f"written: {arguments.out}"]))  # noqa: T201


if __name__ == "__main__":
    main()
