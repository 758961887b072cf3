"""Write the page of a recipe."""

import json
from pathlib import Path

from pipeline_lib.config.schema import CohortOptions, RecipeOptions
from pipeline_lib.report.recipe import write_recipe_page
from pipeline_lib.stage import folder, stage, stage_parser

parser = stage_parser(__doc__)
parser.add_argument("recipe", help="its name in the configuration")
parser.add_argument("--stages", nargs="+", type=folder, required=True, help="finished stages, results/<recipe>/<stage>")
parser.add_argument("--datasets", nargs="+", type=folder, required=True, help="its packed chunks")
parser.add_argument("--from-nothing", type=folder, help="evaluation of the same recipe started from nothing")

with stage(parser) as arguments:
    options = json.loads(arguments.options)
    stages: list[Path] = arguments.stages
    write_recipe_page(
        arguments.recipe,
        RecipeOptions.model_validate(options["recipe"]),
        CohortOptions.model_validate(options["cohort"]),
        {path.as_posix().split(f"/{arguments.recipe}/", 1)[1]: path for path in stages},
        arguments.out,
        arguments.datasets,
        arguments.from_nothing,
    )
