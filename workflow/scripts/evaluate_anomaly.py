"""Judge anomaly maps against lesion masks, with thresholds from validation people."""

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.evaluation.anomaly import evaluate_anomaly
from pipeline_lib.stage import folder, stage, stage_parser

parser = stage_parser(__doc__)
parser.add_argument("--diffusion", type=folder, required=True, help="the trained denoiser")
parser.add_argument("--inference", nargs="+", type=folder, required=True, help="inferred chunks")
parser.add_argument("--datasets", nargs="+", type=folder, required=True, help="packed chunks of the same names")
parser.add_argument("--train", nargs="+", type=folder, required=True, help="packed training chunks")

with stage(parser) as arguments:
    recipe = RecipeOptions.model_validate_json(arguments.options)
    evaluate_anomaly(
        recipe, arguments.diffusion, arguments.inference, arguments.datasets, arguments.train, arguments.out
    )
