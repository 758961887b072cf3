"""Write the figures of a recipe as files, each with its data beside it."""

from pipeline_lib.report.exported import write_figures
from pipeline_lib.stage import folder, stage, stage_parser

parser = stage_parser(__doc__)
parser.add_argument("recipe", help="its name in the configuration")
parser.add_argument("--stages", nargs="+", type=folder, required=True, help="finished stages, results/<recipe>/<stage>")

with stage(parser) as arguments:
    named = {path.as_posix().split(f"/{arguments.recipe}/", 1)[1]: path for path in arguments.stages}
    write_figures(named, arguments.out)
