"""Fit the translation baseline: interpolated source to target, linear, on training people only."""

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.inference.translation import fit_baseline
from pipeline_lib.stage import folder, stage, stage_parser

parser = stage_parser(__doc__)
parser.add_argument("--train", nargs="+", type=folder, required=True, help="packed training chunks")

with stage(parser) as arguments:
    fit_baseline(RecipeOptions.model_validate_json(arguments.options), arguments.train, arguments.out)
