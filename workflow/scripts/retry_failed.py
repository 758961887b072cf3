"""Mark the chunks that hold failed scans to be done again; finished scans are not repeated."""

import argparse
from pathlib import Path

from pipeline_lib.cohort.summary import mark_failed_chunks

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("results", type=Path, help="the results folder")

for line in mark_failed_chunks(parser.parse_args().results):
    print(line)  # noqa: T201 - the answer to the user
