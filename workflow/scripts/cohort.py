"""Check the whole cohort for duplicates, leakage and balance."""

import json
from pathlib import Path

from pipeline_lib.cohort.ratings import without_rated_bad
from pipeline_lib.cohort.sheet import read_sheet
from pipeline_lib.cohort.summary import check_cohort
from pipeline_lib.stage import stage, stage_parser

parser = stage_parser(__doc__)
parser.add_argument("--tables", nargs="+", type=Path, required=True, help="one table for each split and kind of scan")
parser.add_argument("--subjects", required=True, help="the sheet")
parser.add_argument("--root", required=True, help="folder from which the sheet's paths start")
parser.add_argument("--ratings", default="", help="what people who looked at the scans say of them")

with stage(parser) as arguments:
    sheet = read_sheet(arguments.subjects, arguments.root, json.loads(arguments.options)["covariates"])
    sheet = without_rated_bad(sheet, arguments.ratings)
    check_cohort(arguments.tables, sheet, arguments.out)
