"""A VQGAN of scikit-learn's digits beside a plain autoencoder of the same network, as a Markdown table and a picture.

    python benchmarks/digits.py --out digits

1,797 digits of 8 x 8 pixels, halved to 4 x 4 codes; a tenth validates, a tenth is test. Plain: the same network and training without codebook and
discriminator. Sharpness is the power above half of the Nyquist frequency over that of the digits themselves, 1 where it is theirs. A training that was stopped
goes on; what is there is not made again.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from pipeline_lib.bundles.bundle import load_bundle
from pipeline_lib.config.schema import AutoencoderOptions, DataOptions
from pipeline_lib.dataset.index import TEXT_COLUMNS
from pipeline_lib.files import atomic_directory, read_json, write_json
from pipeline_lib.metrics.bootstrap import bootstrap_mean
from pipeline_lib.metrics.image import psnr
from pipeline_lib.training.vae import train_vae
from pipeline_lib.training.vqgan import train_vqgan

DATA = DataOptions.model_validate({"modality": "image", "size": [8, 8], "fit": "pad"})
NETWORK = {"channels": [16, 32], "blocks": 1, "latent_channels": 4}
VECTORS = {"codes": 128, "adversarial_start": 400}
SHOWN = 12


def options(kind: str, steps: int) -> AutoencoderOptions:
    """Of either network: the same training."""
    training = {"steps": steps, "batch_size": 32, "learning_rate": 2e-3, "warmup": 50, "validate_every": 100}
    training |= {"augment": {"flip": False, "rotate": 0, "scale": 0, "shift": 0, "gamma": 0}}
    own = VECTORS if kind == "vqgan" else {"kl_weight": 0.0}
    return AutoencoderOptions.model_validate({"kind": kind, **NETWORK, **own, "training": training})


def pack(out: Path) -> dict[str, Path]:
    """The digits as packed chunks, each a person of its own."""
    images = (load_digits().images / 8 - 1).astype(np.float32)[:, None]
    order = np.random.default_rng(0).permutation(len(images))
    tenth = len(images) // 10
    parts = {"test": order[:tenth], "validation": order[tenth : 2 * tenth], "train": order[2 * tenth :]}
    for split, rows in parts.items():
        if (out / f"{split}-image-0001").is_dir():
            continue
        with atomic_directory(out / f"{split}-image-0001") as folder:
            np.save(folder / "data.npy", images[rows])
            np.save(folder / "mask.npy", np.ones((len(rows), 1, 8, 8), np.uint8))
            index = pd.DataFrame({name: [""] * len(rows) for name in (*TEXT_COLUMNS, "age", "slice")})
            index["scan"] = index["participant"] = [f"digit{row}" for row in rows]
            index.to_csv(folder / "index.tsv", sep="\t", index=False)
            write_json(folder / "layout.json", {"dimensions": 2, "size": [8, 8], "plane": None, "left_right": 1})
            write_json(folder / "prepared.json", {"preprocess": None, "data": DATA.model_dump(mode="json")})
    return {split: out / f"{split}-image-0001" for split in parts}


def sharpness(made: NDArray[np.floating], true: NDArray[np.floating]) -> NDArray[np.float64]:
    """Power above half of Nyquist of each image (N, 1, 8, 8) over the mean of the true ones'."""
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(8), np.fft.fftfreq(8)))
    made_power, true_power = (np.abs(np.fft.fft2(x[:, 0]))[:, radius > 0.25] ** 2 for x in (made, true))
    found: NDArray[np.float64] = made_power.sum(1) / true_power.sum(1).mean()
    return found


def main() -> None:
    """Train what is not there, print the table, write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--picture", type=Path, help="where to draw test digits and their reconstructions")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    out: Path = given.out
    chunks = pack(out / "dataset")
    for kind, train in (("vae", train_vae), ("vqgan", train_vqgan)):
        if not (out / kind).is_dir():
            splits = [chunks["train"]], [chunks["validation"]]
            train(options(kind, given.steps), DATA, *splits, out / kind, out / "state" / kind, "image")

    true = np.load(chunks["test"] / "data.npy")
    shown = {"digit": true}
    print("| network | test digits | PSNR, dB | sharpness | codes used | perplexity |")
    print("|---|---:|---:|---:|---:|---:|")
    for kind, name in (("vae", "plain autoencoder"), ("vqgan", "VQGAN")):
        module, _ = load_bundle(out / kind)
        with torch.no_grad():
            given_images = torch.from_numpy(true)
            if kind == "vqgan":
                made = module(given_images)[0].numpy()
            else:
                made = module.decode(module.encode(given_images)[0], DATA.size).numpy()  # type: ignore[operator]
        shown[name] = made = made.clip(-1, 1)
        each = np.array([psnr(one, other, data_range=2) for one, other in zip(made, true, strict=True)])
        cells = []
        for values in (each, sharpness(made, true)):
            found = bootstrap_mean(values, resamples=2000, seed=0)
            cells.append(f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]")
        file = out / kind / "codebook.json"
        book = read_json(file) if file.is_file() else None
        cells += [f"{book['usage']:.0%} of {book['codes']}", f"{book['perplexity']:.1f}"] if book else ["", ""]
        print(f"| {name} | {len(true)} | {' | '.join(cells)} |")
    if given.picture:
        figure = Figure(figsize=(SHOWN * 0.7, len(shown) * 0.8), layout="constrained")
        axes = figure.subplots(len(shown), SHOWN)
        for line, (name, images) in zip(axes, shown.items(), strict=True):
            for axis, image in zip(line, images, strict=False):
                axis.imshow(image[0], cmap="gray", vmin=-1, vmax=1)
                axis.set_xticks([])
                axis.set_yticks([])
            line[0].set_ylabel(name.replace(" ", "\n"), fontsize=7)
        FigureCanvasAgg(figure)
        figure.savefig(given.picture, dpi=110)


if __name__ == "__main__":
    main()
