"""Pack what a recipe sees of a chunk's scans."""

import json

from pipeline_lib.config.schema import DataOptions
from pipeline_lib.dataset.pack import pack_chunk
from pipeline_lib.stage import folder, stage, stage_parser

parser = stage_parser(__doc__)
parser.add_argument("preprocessed", type=folder, help="the preprocessed chunk")

with stage(parser) as arguments:
    data = DataOptions.model_validate(json.loads(arguments.options)["data"])
    pack_chunk(arguments.preprocessed, data, arguments.out)
