"""Check every scan of a chunk and make it canonical."""

from pathlib import Path

from pipeline_lib.cohort.rows import read_rows
from pipeline_lib.imaging.ingest import ingest_chunk
from pipeline_lib.stage import stage, stage_parser

parser = stage_parser(__doc__)
parser.add_argument("rows", type=Path, help="the chunk's rows of the sheet")
parser.add_argument("--key", default="", help="hash of the rows and of the content of their files")
parser.add_argument("--root", type=Path, required=True, help="folder from which the rows' paths start")

with stage(parser) as arguments:
    ingest_chunk(
        read_rows(arguments.rows),
        arguments.root,
        arguments.out,
        workers=arguments.threads,
        cache=Path("state/scans/ingest") / arguments.code,
        key=arguments.key,
    )
