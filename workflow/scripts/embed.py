"""Embed every scan, and the samples, in the spaces of autoencoder and denoiser."""

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.inference.embedding import embed
from pipeline_lib.stage import folder, stage, stage_parser

parser = stage_parser(__doc__)
parser.add_argument("--diffusion", type=folder, required=True, help="the trained denoiser")
parser.add_argument("--autoencoder", nargs="*", type=folder, default=[], help="the trained autoencoder, if any")
parser.add_argument("--data", nargs="+", type=folder, required=True, help="packed or encoded chunks of every split")
parser.add_argument("--samples", type=folder, required=True, help="the sampled scans")

with stage(parser) as arguments:
    recipe = RecipeOptions.model_validate_json(arguments.options)
    autoencoder = next(iter(arguments.autoencoder), None)
    embed(recipe, arguments.diffusion, autoencoder, arguments.data, arguments.samples, arguments.out)
