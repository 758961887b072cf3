"""Training and validation loss of the published anomaly recipe beside the published ones, by epoch.

    python benchmarks/published_loss.py results/ixi/published/diffusion
    python benchmarks/published_loss.py state/KEY --images 2448      # a training that is not done yet

Both are mean squared errors of noise that is not of unit variance: published simplex noise, and `raw: true` here, sums its octaves
as they are. So every loss also stands as a share of the variance of its noise, which is what a network that predicts no noise at all
has as its loss. The published noise's variance is taken from the same noise.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import pandas as pd
import torch

from pipeline_lib.errors import UserError
from pipeline_lib.files import read_json
from pipeline_lib.noise.simplex import SimplexNoise

PUBLISHED = {
    10: (0.1041, 0.0902), 50: (0.0600, 0.0707), 100: (0.0496, 0.0521), 150: (0.0393, 0.0425), 200: (0.0379, 0.0355),
    250: (0.0332, 0.0357),
}  # fmt: skip
"""Epoch: training and validation loss."""
SIZE = 128
DRAWS = 64


def raw_variance() -> float:
    """Variance of the published simplex noise around 0: six octaves from 1/64 on, decay .8, 128 x 128."""
    noise = SimplexNoise(octaves=6, decay=0.8, frequency=1 / 64, raw=True)
    drawn = noise((DRAWS, 1, SIZE, SIZE), generator=torch.Generator().manual_seed(0))
    return float(drawn.square().mean())


def history(folder: Path) -> pd.DataFrame:
    """The recorded steps of a finished training, or of the newest checkpoint of one that is not.

    Raises:
        UserError: the folder holds neither.
    """
    if (folder / "history.csv").is_file():
        return pd.read_csv(folder / "history.csv")
    manifests = sorted(folder.glob("step-*.json"))
    if not manifests:
        raise UserError(f"{folder}: neither history.csv nor a checkpoint; give diffusion/ of a recipe, or state/<key>")
    return pd.DataFrame(read_json(manifests[-1])["content"]["values"]["record"]["history"])


def by_epoch(rows: pd.DataFrame, images: int) -> pd.DataFrame:
    """Training loss, a mean over each epoch, and the last validation loss in it, by whole epochs that are done."""
    epoch = (rows["images"] / images).apply(lambda done: math.ceil(done - 1e-9))
    steps = rows["images"].diff().fillna(rows["images"])
    weighted = (rows["train_loss"] * steps).groupby(epoch).sum() / steps.groupby(epoch).sum()
    validated = rows["validation_loss"] if "validation_loss" in rows else pd.Series(float("nan"), rows.index)
    table = pd.DataFrame({"train": weighted, "validation": validated.groupby(epoch).last()})
    return table[table.index <= rows["images"].iloc[-1] / images + 1e-9]


def markdown(found: pd.DataFrame, variance: float, unit: float) -> str:
    """A row for each published epoch, and for the first and the last that was reached.

    Args:
        variance: of the published noise.
        unit: of the noise that the losses found refer to.
    """
    wanted = sorted({*PUBLISHED, *found.index[:1], *found.index[-1:]})
    lines = [
        "| epoch | published: training, validation | here: training, validation | as shares: published | here |",
        "|---:|---|---|---|---|",
    ]
    for epoch in wanted:
        published = PUBLISHED.get(epoch)
        own = tuple(found.loc[epoch]) if epoch in found.index else None
        cells = [_pair(published, 1, 4), _pair(own, 1, 4), _pair(published, variance, 3), _pair(own, unit, 3)]
        lines.append(f"| {epoch} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _pair(losses: tuple[float, float] | None, unit: float, digits: int) -> str:
    if losses is None:
        return "-"
    return ", ".join("-" if math.isnan(loss) else f"{loss / unit:.{digits}f}".lstrip("0") for loss in losses)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, help="training images, where the folder has no model.json")
    parser.add_argument(
        "--unit-variance", action="store_true", help="the noise was scaled to unit variance (raw: false)"
    )
    arguments = parser.parse_args()
    images = arguments.images or int(read_json(arguments.folder / "model.json")["train_images"])
    variance = raw_variance()
    rows = history(arguments.folder)
    print(f"Variance of the published noise: {variance:.3f}. Training images: {images:,}.\n")
    print(markdown(by_epoch(rows, images), variance, 1.0 if arguments.unit_variance else variance))


if __name__ == "__main__":
    main()
