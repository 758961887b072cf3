"""Pack what a recipe sees of a chunk's scans."""

from pipeline_lib.cohort.chunks import ChunkName
from pipeline_lib.config.part import read_part
from pipeline_lib.dataset.pack import pack_chunk
from pipeline_lib.stage import folder, stage, stage_parser

parser = stage_parser(__doc__)
parser.add_argument("--preprocessed", type=folder, required=True, help="the preprocessed chunk")

with stage(parser) as arguments:
    alone = ChunkName.parse(arguments.preprocessed.name).split == "test"  # nobody learns from it
    pack_chunk(arguments.preprocessed, read_part(arguments.options).data, arguments.out, alone=alone)
