"""Sample new scans of every combination of conditions."""

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.inference.synthesis import sample_synthesis
from pipeline_lib.stage import folder, stage, stage_parser

parser = stage_parser(__doc__)
parser.add_argument("--diffusion", type=folder, required=True, help="the trained denoiser")
parser.add_argument("--autoencoder", nargs="*", type=folder, default=[], help="the trained autoencoder, if any")
parser.add_argument("--held-out", nargs="*", type=folder, default=[], help="packed chunks of held-out people")

with stage(parser) as arguments:
    recipe = RecipeOptions.model_validate_json(arguments.options)
    autoencoder = next(iter(arguments.autoencoder), None)
    sample_synthesis(recipe, arguments.diffusion, autoencoder, arguments.held_out, arguments.out)
