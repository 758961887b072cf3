"""Anomaly maps of a chunk: noise every image partly, denoise it, and compare."""

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.inference.anomaly import infer_anomaly
from pipeline_lib.stage import folder, stage, stage_parser

parser = stage_parser(__doc__)
parser.add_argument("--diffusion", type=folder, required=True, help="the trained denoiser")
parser.add_argument("--dataset", type=folder, required=True, help="the packed chunk")

with stage(parser) as arguments:
    recipe = RecipeOptions.model_validate_json(arguments.options)
    infer_anomaly(recipe, arguments.diffusion, arguments.dataset, arguments.out)
