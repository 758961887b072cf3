"""Judge sampled images at every checkpoint against held-out ones."""

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.evaluation.generation import evaluate_generation
from pipeline_lib.stage import folder, stage, stage_parser

parser = stage_parser(__doc__)
parser.add_argument("--diffusion", type=folder, required=True, help="the trained denoiser")
parser.add_argument("--samples", type=folder, required=True, help="the sampled images")
parser.add_argument("--train", nargs="+", type=folder, required=True, help="packed training chunks")
parser.add_argument("--held-out", nargs="+", type=folder, required=True, help="packed validation and test chunks")

with stage(parser) as arguments:
    recipe = RecipeOptions.model_validate_json(arguments.options)
    evaluate_generation(
        recipe, arguments.diffusion, arguments.samples, arguments.train, arguments.held_out, arguments.out
    )
