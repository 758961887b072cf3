"""``python -m pipeline_lib.report compare A B``: two folders of results side by side; ``floors``: what beats its floor."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipeline_lib.errors import UserError, print_anything
from pipeline_lib.report.compare import compare
from pipeline_lib.report.floors import floors


def main() -> None:
    """Read the arguments and do what they say."""
    parser = argparse.ArgumentParser(prog="python -m pipeline_lib.report", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    two = commands.add_parser("compare", help="what differed between two runs, and what changed in results")
    two.set_defaults(run=_compare)
    two.add_argument("first", type=Path, help="a folder of results")
    two.add_argument("second", type=Path, help="another one")
    two.add_argument("--out", type=Path, default=Path("compare.html"), help="the page to write (default: %(default)s)")
    one = commands.add_parser("floors", help="how many recipes beat their floor, and what the others fall short by")
    one.set_defaults(run=lambda arguments: floors(arguments.results))
    one.add_argument("results", type=Path, help="a folder of results")
    print_anything()
    arguments = parser.parse_args()
    try:
        lines = arguments.run(arguments)
    except UserError as error:
        sys.exit(f"ERROR {error}")
    print("\n".join(lines))  # noqa: T201


def _compare(arguments: argparse.Namespace) -> list[str]:
    return [*compare(arguments.first, arguments.second, arguments.out), f"written: {arguments.out}"]


if __name__ == "__main__":
    main()
