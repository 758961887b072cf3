"""Bring the scans of a chunk into a common space with comparable intensities."""

from pathlib import Path

from pipeline_lib.config.schema import PreprocessOptions
from pipeline_lib.imaging.picture_chunk import preprocess_pictures
from pipeline_lib.imaging.stacks import holds_pictures
from pipeline_lib.stage import folder, stage, stage_parser

parser = stage_parser(__doc__)
parser.add_argument("--ingested", type=folder, required=True, help="the ingested chunk")

with stage(parser) as arguments:
    if holds_pictures(arguments.ingested):
        preprocess_pictures(arguments.ingested, arguments.out)
    else:
        from pipeline_lib.imaging.preprocess import preprocess_chunk  # libraries that take seconds to import

        preprocess_chunk(
            arguments.ingested,
            PreprocessOptions.model_validate_json(arguments.options),
            arguments.out,
            workers=arguments.threads,
            cache=Path("state/scans/preprocess") / arguments.code,
        )
