"""Put the pages of the report into one folder, for `snakemake --report report.zip`."""

from pathlib import Path

from pipeline_lib.report.archive import write_archive
from pipeline_lib.stage import folder, stage, stage_parser

parser = stage_parser(__doc__)
parser.add_argument("--index", type=Path, required=True, help="the index of the report")
parser.add_argument("--recipes", nargs="+", type=Path, required=True, help="pages of the recipes, which lie beside it")
parser.add_argument("--scans", nargs="+", type=folder, required=True, help="folders of scan pages, which lie below it")

with stage(parser) as arguments:
    write_archive(arguments.index, arguments.recipes, arguments.scans, arguments.out)
