"""The pictures of docs/results_synthesis.md.

python benchmarks/synthesis_pictures.py groups results/ixi/synthesis/samples --slices 15 25 --out docs/images/ixi_young_old.webp
python benchmarks/synthesis_pictures.py ventricles state/ventricles/packed --people IXI033HH1259 IXI598HH2606 IXI161HH2533 --slices 0 12 22 --out docs/images/ventricles.png
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from PIL import Image

from pipeline_lib.bundle_plan import starting_place
from pipeline_lib.bundles.bundle import load_bundle
from pipeline_lib.dataset.packed import PackedDataset
from pipeline_lib.models.segmentation import logits

COLUMNS = 8
"""Noises of the groups."""
ENLARGED = 1.5
FOUND = ("#35c2ff", "#ff5a36")
"""Colours of brain and ventricles."""


def groups(samples: Path, slices: Sequence[float], out: Path) -> None:
    """A row a slice and group, of a slice a column the same noise."""
    images, told = np.load(samples / "samples.npy")[:, 0], pd.read_csv(samples / "samples.tsv", sep="\t")
    rows = [
        np.hstack(images[(told["group"] == group) & (told["slice"] == place)][:COLUMNS])
        for place in slices
        for group in sorted(set(told["group"]), reverse=True)
    ]
    grey = ((np.vstack(rows) + 1) * 127.5).clip(0, 255).astype(np.uint8)
    size = [round(ENLARGED * length) for length in grey.shape[::-1]]
    Image.fromarray(grey).resize(size, Image.Resampling.LANCZOS).save(out, quality=80)


def ventricles(packed: Path, people: Sequence[str], slices: Sequence[float], out: Path) -> None:
    """Labels and what `ventricles-t1` finds side by side, a row a test person."""
    module, _ = load_bundle(starting_place("ventricles-t1", "segmenter"))
    images = PackedDataset(sorted(packed.glob("test*")))
    figure, axes = plt.subplots(len(people), 2 * len(slices), figsize=(12, 7.2), facecolor="black", squeeze=False)
    for line, person in enumerate(people):
        own = images.index[images.index["participant"] == person]
        for number, place in enumerate(slices):
            batch = images.batch([int((own["slice"].astype(float) - place).abs().idxmin())])
            with torch.no_grad():
                found = (logits(module, batch["image"])[0] > 0).numpy()
            for side, (name, masks) in enumerate((("labels", batch["label"][0].numpy()), ("found", found))):
                axis = axes[line, 2 * number + side]
                axis.imshow(batch["image"][0, 0], cmap="gray", vmin=-1, vmax=1)
                for mask, colour in zip(masks, FOUND, strict=True):
                    axis.contour(mask, [0.5], colors=colour, linewidths=0.9)
                axis.axis("off")
                if line == 0:
                    axis.set_title(f"{name}, {place:g} mm", color="white", fontsize=10)
    figure.tight_layout()
    figure.savefig(out, dpi=80, facecolor="black")


def main() -> None:
    """Draw one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", choices=("groups", "ventricles"))
    parser.add_argument("folder", type=Path, help="samples of a recipe, or packed slices of the segmenter's training")
    parser.add_argument("--people", nargs="+", default=[], help="test people (ventricles)")
    parser.add_argument("--slices", nargs="+", type=float, required=True, help="mm")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    mpl.use("Agg")
    if arguments.picture == "groups":
        groups(arguments.folder, arguments.slices, arguments.out)
    else:
        ventricles(arguments.folder, arguments.people, arguments.slices, arguments.out)


if __name__ == "__main__":
    main()
