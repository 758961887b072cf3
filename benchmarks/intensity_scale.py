"""What the scale of intensities is worth where bright means lesion: AP of plain intensity on validation people, as pictures came.

python benchmarks/intensity_scale.py config/soop/subjects.tsv /path/to/soop_flair_axial
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from pipeline_lib.inference.baselines import NORMAL_MAD
from pipeline_lib.metrics.detection import average_precision
from pipeline_lib.metrics.smoothing import smooth

Values = NDArray[np.float32]
BOXES = (1, 17)
"""Sides in pixels of 1 mm; 17 are 7 of the slices that are trained on."""


def by_median(brain: Values) -> Values:
    """In robust standard deviations from the median."""
    centred = brain - np.median(brain)
    return centred / (np.median(np.abs(centred)) / NORMAL_MAD)


SCALES: dict[str, Callable[[Values], Values]] = {
    "98th percentile": lambda brain: brain / np.percentile(brain, 98),
    "mean and standard deviation": lambda brain: (brain - brain.mean()) / brain.std(),
    "median and MAD": by_median,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subjects", type=Path, help="the sheet")
    parser.add_argument("root", type=Path, help="folder of its pictures, whose background is 0")
    arguments = parser.parse_args()
    sheet = pd.read_csv(arguments.subjects, sep="\t", dtype=str)
    people = sheet[sheet["split"] == "validation"]
    images = np.stack([np.asarray(Image.open(arguments.root / path), np.float32) for path in people["path"]])[:, None]
    lesion = np.stack([np.asarray(Image.open(arguments.root / path)) > 0 for path in people["lesion"]])[:, None]
    brain = images > 0
    print(f"| AP of {len(people)} people | {' | '.join(f'box {box}' for box in BOXES)} |")
    print("|---|" + "---:|" * len(BOXES))
    for name, scale in SCALES.items():
        scores = np.zeros_like(images)
        for score, image, inside in zip(scores, images, brain, strict=True):
            score[inside] = scale(image[inside])
        found = [average_precision(smooth(scores, brain, box, "box")[brain], lesion[brain]) for box in BOXES]
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in found) + " |")


if __name__ == "__main__":
    main()
