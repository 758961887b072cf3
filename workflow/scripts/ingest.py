"""Check every scan of a chunk and make it canonical."""

import json
from pathlib import Path

from pipeline_lib.cohort.ledger import read_ledger
from pipeline_lib.cohort.ratings import without_rated_bad
from pipeline_lib.cohort.sheet import read_sheet
from pipeline_lib.imaging.ingest import ingest_chunk
from pipeline_lib.stage import stage, stage_parser

parser = stage_parser(__doc__)
parser.add_argument("chunk", help="name of the chunk in the ledger")
parser.add_argument("--subjects", required=True, help="the sheet")
parser.add_argument("--splits", required=True, help="the ledger")
parser.add_argument("--rows", default="", help="hash of the chunk's rows and of the content of their files")
parser.add_argument("--root", type=Path, required=True, help="folder from which the sheet's paths start")
parser.add_argument("--ratings", default="", help="what people who looked at the scans say of them")

with stage(parser) as arguments:
    members = {row.scan for row in read_ledger(arguments.splits).rows if row.chunk == arguments.chunk}
    sheet = read_sheet(arguments.subjects, arguments.root, json.loads(arguments.options)["covariates"])
    sheet = without_rated_bad(sheet, arguments.ratings)
    ingest_chunk(
        [scan for scan in sheet.scans if scan.id in members],
        arguments.root,
        arguments.out,
        workers=arguments.threads,
        cache=Path("state/scans/ingest") / arguments.code,
        key=arguments.rows,
    )
