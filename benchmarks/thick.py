"""Train a regression from slices of 6 mm to 2 mm on whole volumes, for `benchmarks/regression.py`.

python benchmarks/device/prepare.py travel --data SHARED_DATA --cohorts volumes
python benchmarks/thick.py travel/cohorts/volumes/results/volumes/dataset --out thick
python benchmarks/regression.py thick

The pairs are made by `device/derive.py`; network and training are those of config/ixi_noddi.yaml. A training that was stopped goes on.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import yaml

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.inference.translation import fit_floor
from pipeline_lib.training.regression import train_regression

CHECKOUT = Path(__file__).resolve().parents[1]


def recipe() -> RecipeOptions:
    """Of config/ixi_noddi.yaml, on pairs of one channel."""
    written = yaml.safe_load((CHECKOUT / "config" / "ixi_noddi.yaml").read_text())["recipes"]["translation"]
    pairs = yaml.safe_load((CHECKOUT / "benchmarks" / "device" / "config" / "thick.yaml").read_text())["recipes"]
    return RecipeOptions.model_validate({**written, "data": pairs["refined"]["data"]})


def main() -> None:
    """Make the pairs, the linear fit and the regression that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volumes", type=Path, help="packed chunks of whole volumes at 2 mm")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.path.insert(0, str(CHECKOUT / "benchmarks" / "device"))
    from derive import thick

    for chunk in sorted(given.volumes.glob("*-*-*")):
        if not (given.out / "dataset" / chunk.name).is_dir():
            thick(chunk, given.out / "dataset" / chunk.name)
    train, validation = (sorted((given.out / "dataset").glob(f"{split}-*")) for split in ("train", "validation"))
    chosen = recipe()
    if not (given.out / "floor").is_dir():
        fit_floor(chosen, train, given.out / "floor")
    if not (given.out / "regression").is_dir():
        state = given.out / "state"
        train_regression(chosen, train, validation, given.out / "floor", given.out / "regression", state, name="thick")


if __name__ == "__main__":
    main()
