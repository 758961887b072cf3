"""The plan of the bundle `brain`: python -m pipeline_lib.bundles.extraction IXI_FOLDER

The weights of the brain extraction are where its training writes them and preprocessing reads them; the bundle links to
them. This writes the ``model.json`` beside that link: whom they learned from, as the weights' own metadata name them, as
hashes of people and of files, and their Dice on the heads that were held out.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import safe_open

from pipeline_lib.bundle_plan import FORMAT, PLAN, SHIPPED
from pipeline_lib.bundles.bundle import WEIGHTS
from pipeline_lib.cohort.importers import from_folder
from pipeline_lib.dataset.people import trained_people
from pipeline_lib.errors import UserError
from pipeline_lib.files import sha256_file, write_json
from pipeline_lib.imaging.brain import BOX, GRID_MM
from pipeline_lib.imaging.train_brain_extraction import SYNTHETIC, evaluate
from pipeline_lib.metrics.bootstrap import bootstrap_mean

NAME = "brain"
LICENCE = "IXI (brain-development.org), CC BY-SA 3.0; labels: DLMUSE by CBICA NiChart, SBIA licence"
CHANNELS = (16, 32, 64, 64)
RESAMPLES = 4000


def plan_of(weights: Path, ixi: Path, scores: Mapping[str, float]) -> dict[str, Any]:
    """``model.json`` of the brain extraction.

    Args:
        weights: as its training writes them.
        ixi: the folder that it learned from, with ``t1/``.
        scores: Dice of each held-out head.

    Raises:
        UserError: a head that it learned from is not in the folder.
    """
    with safe_open(weights, framework="pt") as file:
        said = file.metadata()
    learned = people_of(ixi, said["trained_on"].split())
    mean = bootstrap_mean(np.array(list(scores.values())), resamples=RESAMPLES, seed=0)
    of_all = {"part": "", "unit": "", "role": "result", "method": NAME, "against": "", "people": len(scores)}
    figures = [
        {"name": "Dice of the brain", "value": mean.value, "low": mean.low, "high": mean.high, **of_all},
        {"name": "least Dice of the brain", "value": min(scores.values()), "low": None, "high": None, **of_all},
    ]
    return {
        "format": FORMAT,
        "kind": "brain",
        "architecture": {"channels": list(CHANNELS)},
        "weights_sha256": sha256_file(weights),
        "role": "brain extraction",
        "task": "heads",
        "prepared": {
            "preprocess": {},
            "data": {"modality": "any contrast", "dimensions": 3, "size": list(BOX), "voxel_size": GRID_MM, "channels": 1},
        },
        "conditions": [],
        **trained_people(learned),
        "train_people": len(learned) + len(SYNTHETIC),
        "train_scans": len(learned) + 3 * len(SYNTHETIC),
        "train_images": len(learned) + 3 * len(SYNTHETIC),
        "steps": sum(int(steps) for steps in re.findall(r"--steps (\d+)", said["runs"])),
        "licence": LICENCE,
        "figures": figures,
        "options": {"runs": said["runs"]},
    }  # fmt: skip


def people_of(ixi: Path, names: Sequence[str]) -> pd.DataFrame:
    """``participant`` and ``sha256`` of the heads of these ids, a row each.

    Raises:
        UserError: one is not there.
    """
    by_name = {
        Path(scan.path).name.removesuffix("_T1.nii.gz"): scan
        for scan in from_folder(ixi, "t1/{participant}_T1.nii.gz").scans
    }
    if missing := sorted(set(names) - by_name.keys()):
        raise UserError(f"{ixi}: {len(missing)} heads that the weights learned from are not in t1/ ({missing[0]})")
    rows = [(by_name[name].participant, sha256_file(ixi / by_name[name].path)) for name in names]
    return pd.DataFrame(rows, columns=["participant", "sha256"])


def main() -> int:
    """Write the plan of the bundle that ships."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline_lib.bundles.extraction", description="Write the plan of `brain`."
    )
    parser.add_argument("data", type=Path, help="folder with t1/ and brainmask/ of IXI")
    ixi: Path = parser.parse_args().data
    weights = SHIPPED / NAME / WEIGHTS
    try:
        with safe_open(weights, framework="pt") as file:
            held_out = file.metadata()["held_out"].split()
        write_json(SHIPPED / NAME / PLAN, plan_of(weights, ixi, evaluate(ixi, held_out)))
    except UserError as error:
        print(f"ERROR {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
