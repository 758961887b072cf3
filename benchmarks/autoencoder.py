"""How well an autoencoder brings back people whom it has not seen, as the figures of its bundle.

python benchmarks/autoencoder.py results/ixi/latent > figures.json

Reads ``dataset`` and ``autoencoder/image`` of the recipe's folder. PSNR of each image over the whole range of intensities, mean over
a person's images and then over people, from the latent's mean and from a latent drawn about it, which is what a diffusion of latents
learns. Beside it what needs no network: principal components of blocks, fitted to training people, with as many numbers an image as
the latent has. The share of noise is that of the variance of a latent channel over the test people: mean over channels, also where
latents see brain alone, and the median channel's; a channel that is hardly used is nearly all noise.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from pipeline_lib.bundles.bundle import load_bundle
from pipeline_lib.metrics.bootstrap import bootstrap_mean
from pipeline_lib.metrics.image import psnr

RESAMPLES = 4000
BLOCK = 8
"""Voxels along a side of the blocks whose principal components are the floor."""
EACH = 7
"""Every so many of the blocks are fitted to."""

Images = NDArray[np.float32]


def read(chunks: Sequence[Path]) -> tuple[Images, NDArray[np.str_]]:
    """Images (N, 1, H, W) in [-1, 1] and whose each is."""
    people = pd.concat([pd.read_csv(chunk / "index.tsv", sep="\t", dtype=str) for chunk in chunks])["participant"]
    return np.concatenate([np.load(chunk / "data.npy") for chunk in chunks]), people.to_numpy(dtype=str)


def blocks(images: Images) -> Images:
    """(N, 1, H, W) -> (N * H / 8 * W / 8, 64)."""
    n, _, h, w = images.shape
    cut = images.reshape(n, h // BLOCK, BLOCK, w // BLOCK, BLOCK).transpose(0, 1, 3, 2, 4)
    return np.ascontiguousarray(cut.reshape(-1, BLOCK * BLOCK))


def unblocked(cut: Images, shape: Sequence[int]) -> Images:
    """Back from `blocks`."""
    n, _, h, w = shape
    back = cut.reshape(n, h // BLOCK, w // BLOCK, BLOCK, BLOCK).transpose(0, 1, 3, 2, 4)
    return np.ascontiguousarray(back.reshape(n, 1, h, w))


def components(train: Images, test: Images, numbers: int) -> Images:
    """Test images from ``numbers`` principal components a block."""
    fitted = blocks(train)[::EACH]
    mean = fitted.mean(0)
    axes = np.linalg.svd(fitted - mean, full_matrices=False)[2][:numbers]
    return unblocked(((blocks(test) - mean) @ axes.T @ axes + mean).astype(np.float32), test.shape).clip(-1, 1)


@torch.inference_mode()
def encoded(module: Any, images: Images) -> tuple[Images, Images]:
    """Means and standard deviations of the latents."""
    parts = [module.encode(part) for part in torch.from_numpy(images).split(32)]
    return (torch.cat([part[0] for part in parts]).numpy(), torch.cat([part[1] for part in parts]).numpy())


@torch.inference_mode()
def decoded(module: Any, latents: Images, size: Sequence[int]) -> Images:
    """Images of latents, in [-1, 1]."""
    parts = [module.decode(part, size).clamp(-1, 1) for part in torch.from_numpy(latents).split(32)]
    found: Images = torch.cat(parts).numpy()
    return found


def of_people(found: Images, truth: Images, people: NDArray[np.str_]) -> NDArray[np.float64]:
    """PSNR, dB, mean over the images of each person."""
    each = [psnr(one, other, data_range=2.0) for one, other in zip(found, truth, strict=True)]
    return pd.Series(each).groupby(people).mean().to_numpy(dtype=float)


def figure(
    name: str, values: NDArray[np.float64] | float, unit: str, role: str, method: str, **more: Any
) -> Mapping[str, Any]:
    """A row of a bundle's figures."""
    of_mean = bootstrap_mean(np.atleast_1d(values), resamples=RESAMPLES, seed=0)
    interval = {"value": of_mean.value, "low": of_mean.low, "high": of_mean.high}
    return {"name": name, "part": "", **interval, "unit": unit, "role": role, "method": method, "against": "", **more}


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the recipe, with dataset/ and autoencoder/image/")
    folder: Path = parser.parse_args().folder
    module, _ = load_bundle(folder / "autoencoder" / "image")
    (train, _), (test, people) = (read(sorted((folder / "dataset").glob(f"{split}-*"))) for split in ("train", "test"))
    mean, std = encoded(module, test)
    size = test.shape[2:]
    drawn = mean + std * np.random.default_rng(0).standard_normal(std.shape).astype(np.float32)
    noise = (std**2).mean((0, 2, 3)) / ((std**2).mean((0, 2, 3)) + mean.var((0, 2, 3)))
    factor = size[0] // mean.shape[2]
    seen = torch.nn.functional.max_pool2d((torch.from_numpy(test) > -1).float(), factor).numpy()[:, 0] > 0
    inside = [
        (std[:, c][seen] ** 2).mean() / ((std[:, c][seen] ** 2).mean() + mean[:, c][seen].var())
        for c in range(mean.shape[1])
    ]
    share, numbers = float(noise.mean()), mean.shape[1] * BLOCK**2 // factor**2
    floor = f"{numbers} principal components of blocks of {BLOCK} x {BLOCK}, as many numbers"
    all_of = {"people": len(set(people)), "images": len(test)}
    psnrs = {
        ("PSNR", "result", "from the latent's mean"): decoded(module, mean, size),
        ("PSNR of a drawn latent", "result", "from a drawn latent"): decoded(module, drawn, size),
        ("PSNR", "floor", floor): components(train, test, numbers),
    }
    rows = [
        figure(name, of_people(found, test, people), "dB", role, method, **all_of)
        for (name, role, method), found in psnrs.items()
    ]
    noisy = {
        "all of the latent": share,
        "where it sees brain": float(np.mean(inside)),
        "the median channel": float(np.median(noise)),
    }
    rows += [
        figure("noise in the latent's variance", 100 * value, "%", "result", of, **all_of)
        for of, value in noisy.items()
    ]
    json.dump(rows, sys.stdout, indent=2)
    sys.stderr.write("".join(f"{row['name']}, {row['method']}: {row['value']:.2f} {row['unit']}\n" for row in rows))


if __name__ == "__main__":
    main()
