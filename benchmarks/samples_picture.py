"""Samples of a recipe as they come, in one picture: slices and pictures as they are, volumes in three planes.

python benchmarks/samples_picture.py results/ixi/generation_1mm/samples --columns 8 --rows 2 --out docs/images/ixi_1mm.webp
python benchmarks/samples_picture.py results/ixi/volumes/samples --columns 2 --rows 4 --enlarged 1.5 --out docs/images/ixi_volumes.webp
python benchmarks/samples_picture.py results/emoji/generation/samples --columns 8 --rows 4 --enlarged 1.5 --out docs/images/emoji.webp
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline_lib.imaging.planes import ortho


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", type=Path, help="folder with samples.npy")
    parser.add_argument("--columns", type=int, default=8)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--enlarged", type=float, default=1.0)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()

    images = np.load(arguments.samples / "samples.npy", mmap_mode="r")
    some = min(len(images), arguments.rows * arguments.columns) // arguments.columns * arguments.columns
    places = np.arange(some).reshape(-1, arguments.columns)
    view = np.vstack([np.hstack([ortho(np.asarray(images[place])) for place in row]) for row in places])
    pixels = ((np.clip(view, -1, 1) + 1) * 127.5).round().astype(np.uint8)
    size = round(arguments.enlarged * pixels.shape[1]), round(arguments.enlarged * pixels.shape[0])
    Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS).save(arguments.out, quality=80)


if __name__ == "__main__":
    main()
