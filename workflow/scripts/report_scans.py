"""Write a page for each scan of a chunk."""

from pathlib import Path

from pipeline_lib.config.schema import Config
from pipeline_lib.report.atlas import Atlas
from pipeline_lib.report.scans import write_scan_pages
from pipeline_lib.report.view import Inferred
from pipeline_lib.stage import folder, stage, stage_parser

parser = stage_parser(__doc__)
parser.add_argument("--ingest", type=folder, required=True, help="the ingested chunk")
parser.add_argument("--preprocess", type=folder, required=True, help="the preprocessed chunk")
for name in ("inference", "dataset", "evaluation"):
    parser.add_argument(
        f"--{name}", nargs="*", default=[], type=folder, help="of the recipes applied to the chunk, in order"
    )
parser.add_argument("--atlas", nargs=2, type=Path, help="image and table of regions, by which findings are named")

with stage(parser) as arguments:
    config = Config.model_validate_json(arguments.options)
    recipes = zip(arguments.inference, arguments.dataset, arguments.evaluation, strict=True)
    write_scan_pages(
        arguments.ingest,
        arguments.preprocess,
        config.preprocess,
        config.cohort,
        arguments.out,
        [Inferred.of(*folders) for folders in recipes],
        Atlas.read(*arguments.atlas) if arguments.atlas else None,
    )
