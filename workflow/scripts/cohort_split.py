"""List who is in a split and who is out, and stop when too many scans failed."""

from pipeline_lib.cohort.summary import summarise_split
from pipeline_lib.config.schema import CohortOptions
from pipeline_lib.stage import folder, stage, stage_parser

parser = stage_parser(__doc__)
parser.add_argument("split", help="train, validation or test")
parser.add_argument("--chunks", nargs="+", type=folder, required=True, help="preprocessed chunks of the split")

with stage(parser) as arguments:
    options = CohortOptions.model_validate_json(arguments.options)
    summarise_split(arguments.split, arguments.chunks, options, arguments.out)
