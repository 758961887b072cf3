"""Anomaly maps of a chunk on the grids of the scans as they came."""

from pipeline_lib.inference.native import write_native_maps
from pipeline_lib.stage import folder, stage, stage_parser

parser = stage_parser(__doc__)
parser.add_argument("--inference", type=folder, required=True, help="the chunk's anomaly maps")
parser.add_argument("--preprocess", type=folder, required=True, help="the preprocessed chunk")
parser.add_argument("--ingest", type=folder, required=True, help="the ingested chunk")

with stage(parser) as arguments:
    write_native_maps(arguments.inference, arguments.preprocess, arguments.ingest, arguments.out)
