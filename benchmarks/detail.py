"""Fine detail by frequency: of samples, and of what a trained denoiser leaves of scans with little noise. As Markdown tables.

python benchmarks/detail.py results/ixi/generation
python benchmarks/detail.py pipeline_lib/bundles/generator-t1 --dataset results/ixi/generation/dataset

Power at each frequency over that of test people's slices: 1 is theirs. ``diffusion`` (or the bundle itself), ``samples`` where there are
any, and ``dataset`` are read, and nothing is changed. Only 2D.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.files import read_json
from pipeline_lib.inference.denoise import load_denoiser

EDGES = np.linspace(0, 0.5, 11)
"""Of bands of frequencies, cycles a pixel."""
IMAGES = 33
TIMESTEPS = (5, 20, 60, 120, 300)


def power(images: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mean power (bands,) of images (N, 1, H, W), each about its own mean."""
    flat = images[:, 0] - images[:, 0].mean((1, 2), keepdims=True)
    spectrum = np.square(np.abs(np.fft.fft2(flat))).mean(0)
    height, width = spectrum.shape
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    return np.array(
        [spectrum[(radius >= low) & (radius < high)].mean() for low, high in zip(EDGES, EDGES[1:], strict=False)]
    )


def table(title: str, rows: Sequence[tuple[str, NDArray[np.float64]]]) -> None:
    """Print rows of a number a band."""
    print(
        f"\n| {title} | "
        + " | ".join(f"{low:.2f}-{high:.2f}" for low, high in zip(EDGES, EDGES[1:], strict=False))
        + " |"
    )
    print("|---|" + "---:|" * (len(EDGES) - 1))
    for name, values in rows:
        print(f"| {name} | " + " | ".join(f"{value:.2f}" for value in values) + " |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dataset", type=Path)
    given = parser.parse_args()
    chunks = sorted((given.dataset or given.folder / "dataset").glob("test-*"))
    real = np.concatenate([np.load(chunk / "data.npy") for chunk in chunks])
    index = pd.concat([pd.read_csv(chunk / "index.tsv", sep="\t") for chunk in chunks], ignore_index=True)
    people = power(real)

    if (samples := given.folder / "samples" / "samples.npy").is_file():
        table("samples over test people", [("power", power(np.load(samples)) / people)])

    weights = given.folder / "diffusion" if (given.folder / "diffusion").is_dir() else given.folder
    model = read_json(weights / "model.json")
    recipe = RecipeOptions.model_validate({"task": "generation", **{key: model[key] for key in ("data", "diffusion")}})
    denoiser = load_denoiser(recipe, weights)
    chosen = np.linspace(0, len(real) - 1, IMAGES).round().astype(int)
    x, told = torch.from_numpy(real[chosen]), denoiser.told(index.iloc[chosen])
    seen = power(x.numpy())
    kept, errors = [], []
    for step in TIMESTEPS:
        t = torch.full((len(x),), step)
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
        clean, _ = denoiser.restore_once(denoiser.process.forward_diffusion(x, noise, t), t, told)
        name = f"noise {(1 - denoiser.process.abar(step)) ** 0.5:.2f}"
        kept.append((name, power(clean.numpy()) / seen))
        errors.append((f"{name}: {float((clean - x).square().mean().sqrt()):.3f}", power((clean - x).numpy()) / seen))
    table("scans denoised in one step, over the scans", kept)
    table("error of it, over the scans; rms", errors)


if __name__ == "__main__":
    main()
