"""``python -m pipeline_lib.config check FILE`` checks a configuration; ``schema`` writes its reference."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipeline_lib.config.describe import describe_options
from pipeline_lib.config.load import config_schema, read_config
from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.errors import UserError, print_anything, run_command
from pipeline_lib.files import write_text


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m pipeline_lib.config", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    schema = commands.add_parser("schema", help="write the schemas of configuration and recipe, and the reference page")
    schema.add_argument("folder", type=Path, help="folder of the schemas")
    schema.add_argument("page", type=Path, help="Markdown page")
    commands.add_parser("check", help="check a configuration file").add_argument("file")
    print_anything()
    arguments = parser.parse_args()
    if arguments.command == "schema":
        write_text(arguments.folder / "schema.json", config_schema())
        write_text(arguments.folder / "recipe.schema.json", config_schema(RecipeOptions))
        write_text(arguments.page, describe_options())
        return 0
    try:
        config = read_config(arguments.file)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{arguments.file}: valid, recipes {', '.join(config.recipes) or 'none'}\n")
    return 0


if __name__ == "__main__":
    run_command(main)
