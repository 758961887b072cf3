"""What a group that the start does not know does to samples, by the highest rate of its embedding.

python benchmarks/new_condition.py results/synthesis/dataset --rates 0.0002 0.01 0.05 --out rates

Trains `synthesis` of config/config.yaml on the demo's packed slices from its start, once a rate, and prints for each what
share of the middle of samples is dark, beside that of people, and by how much the wrong group raises the error of the denoised image
of held-out people in much noise.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from numpy.typing import NDArray

from pipeline_lib.config import fine_tuning
from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.dataset.conditions import Conditions
from pipeline_lib.dataset.packed import PackedDataset
from pipeline_lib.inference.denoise import load_denoiser
from pipeline_lib.inference.synthesis import sample_synthesis
from pipeline_lib.training.denoiser import train_denoiser

CHECKOUT = Path(__file__).resolve().parents[1]
MIDDLE = (slice(30, 80), slice(30, 66))
DARK = (-0.97, -0.35)
"""What counts as dark, in [-1, 1]: fluid, and not the background."""
NOISY = (850, 1000)
"""Timesteps at which the error is measured."""


def dark(images: NDArray[np.floating]) -> NDArray[np.float64]:
    """Share of dark pixels in the middle of each image (N, 1, H, W)."""
    middle = images[:, 0, *MIDDLE]
    share: NDArray[np.float64] = ((middle > DARK[0]) & (middle < DARK[1])).mean(axis=(1, 2))
    return share


def by_group(index: pd.DataFrame, images: NDArray[np.floating]) -> dict[str, float]:
    """Mean dark share of each group and slice."""
    table = index.assign(dark=dark(images), slice=index["slice"].astype(float))
    means = table.groupby(["group", "slice"])["dark"].mean()
    return {f"{group} {place:g} mm": round(float(value), 3) for (group, place), value in means.items()}


@torch.no_grad()
def of_the_wrong_group(recipe: RecipeOptions, model: Path, held_out: list[Path]) -> float:
    """Mean squared error of x0 with the other group over that with the right one, less 1."""
    loaded = load_denoiser(recipe, model)
    conditions = Conditions.of(loaded.info)
    images = PackedDataset(held_out, conditions=conditions)
    known = images.index.index[images.index["group"].isin(recipe.data.train_groups)].tolist()
    batch = images.batch(known)
    generator = torch.Generator().manual_seed(0)
    t = torch.randint(*NOISY, (len(known),), generator=generator)
    noisy = loaded.process.forward_diffusion(batch["image"], torch.randn(batch["image"].shape, generator=generator), t)
    right, wrong = batch["condition"], batch["condition"].clone()
    place = conditions.names.index("group")
    wrong[:, place] = 1 - wrong[:, place]
    errors = [
        (loaded.process.to_x0(noisy, loaded.network(noisy, t, told), t) - batch["image"]).square().mean()
        for told in (right, wrong)
    ]
    return float(errors[1] / errors[0] - 1)


def main() -> None:
    """Train once a rate, and print a row each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="packed chunks of the demo's synthesis")
    parser.add_argument("--rates", type=float, nargs="+", required=True)
    parser.add_argument("--steps", type=int, help="instead of the recipe's")
    parser.add_argument("--out", type=Path, required=True, help="folder for the models and samples")
    arguments = parser.parse_args()
    written = yaml.safe_load((CHECKOUT / "config" / "config.yaml").read_text())["recipes"]["synthesis"]
    start = written["denoiser"].pop("start_from")
    written["denoiser"]["training"]["learning_rate"] = 2e-4
    written["sampling"]["checkpoints"] = 1
    written["denoiser"]["training"]["steps"] = arguments.steps or written["denoiser"]["training"]["steps"]
    recipe = RecipeOptions.model_validate(written)
    train, *held_out = (sorted(arguments.dataset.glob(f"{split}-*")) for split in ("train", "validation", "test"))
    both = [chunk for chunks in held_out for chunk in chunks]
    people = PackedDataset(train, only_groups=recipe.data.train_groups)
    shown = people.index["slice"].astype(float).isin(recipe.sampling.conditions["slice"])
    print("people", by_group(people.index[shown], people.batch(people.index.index[shown].tolist())["image"].numpy()))
    for rate in arguments.rates:
        fine_tuning.NEW_CATEGORIES = rate
        folder = arguments.out / f"{rate:g}"
        train_denoiser(recipe, train, held_out[0], folder / "diffusion", folder / "state", {}, start_from=start)
        sample_synthesis(recipe, folder / "diffusion", both, folder / "samples")
        told = pd.read_csv(folder / "samples" / "samples.tsv", sep="\t")
        raised = of_the_wrong_group(recipe, folder / "diffusion", both)
        print(f"{rate:g}", by_group(told, np.load(folder / "samples" / "samples.npy")), f"wrong group {raised:+.1%}")


if __name__ == "__main__":
    main()
