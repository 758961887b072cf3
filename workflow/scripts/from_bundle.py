"""Take a part of a frozen recipe from its bundle."""

from pipeline_lib.bundles.parts import copy_part
from pipeline_lib.stage import stage, stage_parser

parser = stage_parser(__doc__)
parser.add_argument("part", help="its folder below results/<recipe>/")
parser.add_argument("--weights", required=True, help="the bundle, by its name or folder")

with stage(parser) as arguments:
    copy_part(arguments.weights, arguments.part, arguments.out)
