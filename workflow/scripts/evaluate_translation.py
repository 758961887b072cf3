"""Judge translated volumes between the interpolated floor and the autoencoder's ceiling."""

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.evaluation.translation import evaluate_translation
from pipeline_lib.stage import folder, stage, stage_parser

parser = stage_parser(__doc__)
parser.add_argument("--diffusion", type=folder, required=True, help="the trained denoiser")
parser.add_argument("--inference", nargs="+", type=folder, required=True, help="inferred chunks")
parser.add_argument("--datasets", nargs="+", type=folder, required=True, help="packed chunks of the same names")

with stage(parser) as arguments:
    recipe = RecipeOptions.model_validate_json(arguments.options)
    evaluate_translation(recipe, arguments.diffusion, arguments.inference, arguments.datasets, arguments.out)
