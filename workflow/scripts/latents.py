"""Encode a packed chunk with the autoencoders of its recipe."""

from pipeline_lib.stage import folder, stage, stage_parser
from pipeline_lib.training.latents import encode_chunk

parser = stage_parser(__doc__)
parser.add_argument("--dataset", type=folder, required=True, help="the packed chunk")
parser.add_argument("--autoencoders", nargs="+", type=folder, required=True, help="folders named by their role")

with stage(parser) as arguments:
    encode_chunk({path.name: path for path in arguments.autoencoders}, arguments.dataset, arguments.out)
