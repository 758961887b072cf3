"""python -m pipeline_lib.bundles list | show NAME | check PATH | build RESULTS NAME"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline_lib.bundle_plan import SHIPPED, find_bundle, read_plan, shipped, stated
from pipeline_lib.bundles.build import build
from pipeline_lib.bundles.check import check
from pipeline_lib.bundles.network import build_network, is_network
from pipeline_lib.errors import UserError, print_anything, run_command
from pipeline_lib.files import read_json


def main() -> int:
    """Run one command; 1 where something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m pipeline_lib.bundles", description="Trained models that travel.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the bundles that ship with the library")
    for name, what in (("show", "what a bundle is, in a few lines"), ("check", "whether a bundle is whole")):
        command = commands.add_parser(name, help=what)
        command.add_argument("bundle", help="folder of a bundle, or the name of one that ships")
    command = commands.add_parser(
        "build", help="a bundle of a finished recipe or network, with small weights and a card"
    )
    command.add_argument(
        "results", type=Path, help="results/<recipe>, run to its end, or the folder of a segmenter or autoencoder"
    )
    command.add_argument("name", help="of the bundle")
    command.add_argument("--data", required=True, help="a sentence on the scans it learned from, for the card")
    command.add_argument("--use", default="", help="a sentence on what it is for, for the card")
    command.add_argument("--licence-file", type=Path, help="terms as a text; cohort.licence unless given")
    command.add_argument("--figures", type=Path, help="of a network: JSON with its figures of held-out people")
    command.add_argument("--out", type=Path, default=SHIPPED, help="folder of bundles (default: those that ship)")
    print_anything()
    arguments = parser.parse_args()
    try:
        return {"list": _list, "show": _show, "check": _check, "build": _build}[arguments.command](arguments)
    except UserError as error:
        print(f"ERROR {error}", file=sys.stderr)  # noqa: T201
        return 1


def _list(_: argparse.Namespace) -> int:
    names = shipped()
    _say(
        [f"{name}  {_headline(read_plan(find_bundle(name)))}" for name in names]
        or ["no bundle ships with this version"]
    )
    return 0


def _show(arguments: argparse.Namespace) -> int:
    info = read_plan(find_bundle(arguments.bundle))
    prepared = info.get("prepared") or {}
    _say(
        [
            _headline(info),
            f"learned from: {info.get('train_people', '?')} people, {info.get('train_images', '?')} images, {info.get('steps', '?')} steps",
            f"preprocessing: {_options(prepared.get('preprocess'))}",
            f"images: {_options(prepared.get('data'))}",
            f"network: {_options(info.get('architecture'))}",
            f"told: {', '.join(map(_condition, info.get('conditions') or ())) or 'nothing'}",
            f"licence: {info.get('licence') or 'none stated'}",
            *(f"held out: {_figure(figure)}" for figure in stated(info)),
        ]
    )
    return 0


def _condition(told: Mapping[str, Any]) -> str:
    """``age (number, 20.9 to 79.4)`` or ``group (old, young)``."""
    low, *_, high = told.get("quantiles") or (None, None)
    span = f"number, {low:.3g} to {high:.3g}" if low is not None else "number"
    return f"{told['name']} ({', '.join(map(str, told.get('categories') or ())) or span})"


def _figure(row: Mapping[str, Any]) -> str:
    """``FID 33 [27.4, 38.5], diffusion (result)``, or what it is less than another method."""
    interval = f" [{row['low']:.3g}, {row['high']:.3g}]" if row.get("low") is not None else ""
    name = ", ".join(word for word in (row["name"], row.get("part")) if word)
    of = f"{row['method']} minus {row['against']}" if row.get("against") else f"{row['method']} ({row['role']})".strip()
    return f"{name} {row['value']:.3g}{interval}, {of}"


def _check(arguments: argparse.Namespace) -> int:
    faults = check(arguments.bundle)
    _say(faults or [f"{arguments.bundle} is whole"])
    return 1 if faults else 0


def _build(arguments: argparse.Namespace) -> int:
    options = {"data": arguments.data, "use": arguments.use, "licence_file": arguments.licence_file}
    if is_network(arguments.results):
        figures = read_json(arguments.figures) if arguments.figures else ()
        _say(build_network(arguments.results, arguments.name, arguments.out, **options, figures=figures))
    else:
        _say(build(arguments.results, arguments.name, arguments.out, **options))
    return 0


def _headline(info: Mapping[str, Any]) -> str:
    data = (info.get("prepared") or {}).get("data") or {}
    size = " x ".join(str(length) for length in data.get("size", ()))
    return f"{info['kind']}, {info.get('role', 'denoiser')} of {info.get('task') or 'images'}, {data.get('modality', '')} {size}".strip()


def _options(options: Mapping[str, Any] | None) -> str:
    if not options:
        return "not known"
    left_out = {"quality", "slices" if options.get("dimensions") == 3 else ""}
    return ", ".join(
        f"{name} ({_options(value)})" if isinstance(value, Mapping) else f"{name} {value}"
        for name, value in options.items()
        if name not in left_out
    )


def _say(lines: list[str]) -> None:
    print("\n".join(lines))  # noqa: T201


if __name__ == "__main__":
    run_command(main)
