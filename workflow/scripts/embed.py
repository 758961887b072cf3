"""Embed the autoencoder's latents of every scan, and of the samples, in a plane."""

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.inference.embedding import embed
from pipeline_lib.stage import folder, stage, stage_parser

parser = stage_parser(__doc__)
parser.add_argument("--autoencoder", type=folder, required=True, help="the trained autoencoder")
parser.add_argument("--latents", nargs="+", type=folder, required=True, help="encoded chunks of every split")
parser.add_argument("--samples", type=folder, required=True, help="the sampled scans")

with stage(parser) as arguments:
    recipe = RecipeOptions.model_validate_json(arguments.options)
    embed(recipe, arguments.autoencoder, arguments.latents, arguments.samples, arguments.out)
