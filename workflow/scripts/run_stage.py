"""Do a stage that belongs to one task: what the task names for it, with the inputs of its rule."""

from pathlib import Path

from pipeline_lib.config.part import read_part
from pipeline_lib.stage import folder, run, stage, stage_parser
from pipeline_lib.tasks import TASKS

parser = stage_parser(__doc__)
parser.add_argument("stage", help="its name in the task")
parser.add_argument("--input", nargs="+", action="append", default=[], type=folder, help="a name, then its folders")

with stage(parser) as arguments:
    recipe = read_part(arguments.options)
    inputs: dict[str, list[Path]] = {str(name): paths for name, *paths in arguments.input}
    arguments.input = list(inputs.values())  # the sidecar names folders, not what they are called here
    run(TASKS[recipe.task].stage(arguments.stage).function, recipe, inputs, arguments.out)
