"""Write the index of the report."""

from pathlib import Path

from pipeline_lib.config.schema import Config
from pipeline_lib.report.index import write_index
from pipeline_lib.stage import folder, stage, stage_parser

parser = stage_parser(__doc__)
parser.add_argument("--tables", nargs="+", type=Path, required=True, help="who is in each split and who is out")
parser.add_argument("--checks", type=Path, required=True, help="what was found wrong with the cohort")
parser.add_argument("--scans", nargs="+", type=folder, required=True, help="folders of scan pages")
parser.add_argument("--recipes", nargs="+", type=Path, required=True, help="pages of the recipes")

with stage(parser) as arguments:
    config = Config.model_validate_json(arguments.options)
    write_index(
        config.cohort,
        config.split,
        config.preprocess,
        arguments.tables,
        arguments.checks,
        [path / "scans.tsv" for path in arguments.scans],
        {path.stem: path for path in arguments.recipes},
        arguments.out,
    )
