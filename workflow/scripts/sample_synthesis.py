"""Sample new scans of every group."""

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.inference.synthesis import sample_synthesis
from pipeline_lib.stage import folder, stage, stage_parser

parser = stage_parser(__doc__)
parser.add_argument("--diffusion", type=folder, required=True, help="the trained denoiser")
parser.add_argument("--autoencoder", type=folder, required=True, help="the trained autoencoder")

with stage(parser) as arguments:
    recipe = RecipeOptions.model_validate_json(arguments.options)
    sample_synthesis(recipe, arguments.diffusion, arguments.autoencoder, arguments.out)
