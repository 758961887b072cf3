"""``python -m pipeline_lib.report compare A B``: two folders of results side by side; ``floors RESULTS``: what beats its floor;
``live RESULTS``: a run as it goes on."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipeline_lib.errors import UserError, print_anything, run_command
from pipeline_lib.report.atlas import fetch
from pipeline_lib.report.compare import compare
from pipeline_lib.report.floors import floors
from pipeline_lib.report.live import follow


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
    live = commands.add_parser(
        "live", help="a page of what is done, runs and is left, by stage, written again until the run has ended"
    )
    live.set_defaults(run=_live)
    live.add_argument("results", type=Path, nargs="?", default=Path("results"), help="(default: %(default)s)")
    live.add_argument("--out", type=Path, help="the page to write (default: report/live.html of the results)")
    live.add_argument("--every", type=float, default=30, help="seconds between two versions (default: %(default)s)")
    live.add_argument("--once", action="store_true", help="write it once")
    atlas = commands.add_parser("atlas", help="fetch an atlas by nilearn, which names the places of findings")
    atlas.set_defaults(run=lambda arguments: fetch(arguments.name, arguments.folder))
    atlas.add_argument("name", help="aal, destrieux_2009, harvard_oxford:cort-maxprob-thr25-1mm, ...")
    atlas.add_argument("folder", type=Path, help="where it is written")
    print_anything()
    arguments = parser.parse_args()
    try:
        lines = arguments.run(arguments)
    except UserError as error:
        sys.exit(f"ERROR {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    print("\n".join(lines))  # noqa: T201


def _compare(arguments: argparse.Namespace) -> list[str]:
    return [*compare(arguments.first, arguments.second, arguments.out), f"written: {arguments.out}"]


def _live(arguments: argparse.Namespace) -> list[str]:
    out = arguments.out or arguments.results / "report" / "live.html"
    if not arguments.once:
        print(f"open {out} in a browser; Ctrl+C ends")  # noqa: T201
    follow(arguments.results, out, every=arguments.every, once=arguments.once)
    return [f"written: {out}"]


if __name__ == "__main__":
    run_command(main)
