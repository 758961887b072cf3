"""Sample images at every checkpoint of a denoiser, and animate the reverse process."""

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.inference.generation import sample_generation
from pipeline_lib.stage import folder, stage, stage_parser

parser = stage_parser(__doc__)
parser.add_argument("--diffusion", type=folder, required=True, help="the trained denoiser")
parser.add_argument("--held-out", nargs="*", type=folder, default=[], help="packed chunks of held-out people")

with stage(parser) as arguments:
    recipe = RecipeOptions.model_validate_json(arguments.options)
    sample_generation(recipe, arguments.diffusion, arguments.held_out, arguments.out)
