"""The regression of a translation beside what needs none, person by person, as a Markdown table.

python benchmarks/regression.py results/on_labels/translation

Reads ``dataset``, ``floor`` and ``regression`` of the recipe's folder and changes nothing. Of each test person and map: PSNR inside
the mask over the fixed range, of the source as it is (where it has the target's channels), of its linear fit and of the regression.
Differences are paired over people; intervals are percentile bootstraps.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from pipeline_lib.bundles.regression import Regression
from pipeline_lib.files import read_json
from pipeline_lib.inference.translation import apply_floor
from pipeline_lib.metrics.bootstrap import bootstrap_mean
from pipeline_lib.metrics.image import psnr

DRAWS = 4000


def of_chunk(folder: Path, chunk: Path) -> list[dict[str, object]]:
    """A row a person and map."""
    regression = Regression(folder / "regression", torch.device("cpu"))
    coefficients = read_json(folder / "floor" / "coefficients.json")
    data, target, mask = (np.load(chunk / f"{name}.npy", mmap_mode="r") for name in ("data", "target", "mask"))
    rows = []
    for row, person in enumerate(pd.read_csv(chunk / "index.tsv", sep="\t")["participant"]):
        source, inside = np.array(data[row : row + 1]), np.array(mask[row : row + 1]) > 0
        predicted = {
            "linear fit": np.asarray(apply_floor(coefficients, source, inside))[0],
            "regression": regression.predict(torch.from_numpy(source), torch.from_numpy(inside)).numpy()[0],
        }
        if source.shape[1] == target.shape[1]:
            predicted["source"] = source[0]
        for channel in range(target.shape[1]):
            truth = target[row, channel]
            found = {
                name: psnr(maps[channel].clip(-1, 1), truth, data_range=2, mask=inside[0, 0])
                for name, maps in predicted.items()
            }
            rows.append({"person": person, "map": channel + 1, **found})
    return rows


def interval(values: NDArray[np.floating]) -> str:
    """Mean with a bootstrap interval over people."""
    found = bootstrap_mean(values, resamples=DRAWS, seed=0)
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    if not list((folder / "dataset").glob("test-*")):
        parser.exit(1, f"{folder}/dataset has no test people; run the workflow --until train_regression dataset\n")
    table = pd.DataFrame(
        row for chunk in sorted((folder / "dataset").glob("test-*")) for row in of_chunk(folder, chunk)
    )
    floors = [name for name in ("source", "linear fit") if name in table]
    print("| map | people | " + " | ".join(f"{name}, dB" for name in [*floors, "regression"]), end=" | ")
    print(" | ".join(f"gain over {name}, dB" for name in floors) + " |")
    print("|---|" + "---:|" * (2 + 2 * len(floors)))
    for number, rows in table.groupby("map"):
        cells = [f"{rows[name].mean():.2f}" for name in [*floors, "regression"]]
        cells += [interval((rows["regression"] - rows[name]).to_numpy()) for name in floors]
        print(f"| {number} | {rows['person'].nunique()} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
