"""Translate the source scans of a chunk into the target modality."""

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.inference.translation import infer_translation
from pipeline_lib.stage import folder, stage, stage_parser

parser = stage_parser(__doc__)
parser.add_argument("--diffusion", type=folder, required=True, help="the trained denoiser")
parser.add_argument("--autoencoders", nargs="+", type=folder, required=True, help="folders named by their role")
parser.add_argument("--floor", type=folder, required=True, help="the fitted baseline")
parser.add_argument("--dataset", type=folder, required=True, help="the packed chunk")
parser.add_argument("--latents", type=folder, required=True, help="the encoded chunk")

with stage(parser) as arguments:
    infer_translation(
        RecipeOptions.model_validate_json(arguments.options),
        arguments.diffusion,
        {path.name: path for path in arguments.autoencoders},
        arguments.floor,
        arguments.dataset,
        arguments.latents,
        arguments.out,
    )
