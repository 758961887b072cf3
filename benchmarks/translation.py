"""Both ways of a translation, trained and judged on a block of each person, as Markdown tables.

    python benchmarks/translation.py results/on_labels/translation --out residual                                # diffusion of the residual
    python benchmarks/translation.py results/on_labels/translation --out published --way published               # the published way, factor 2
    python benchmarks/translation.py results/on_labels/translation --out factor4 --way autoencoder --factor 4    # a VQGAN alone

Reads ``dataset``, ``floor`` and ``regression`` of the recipe's folder and changes nothing. Of each person a block of 40 voxels is kept, which begins at the
left edge of the brain and lies in its middle otherwise; the VQGANs see it as eight of 20. Recipes are config/ixi_noddi.yaml and config/ixi_noddi_published.yaml. All is judged inside the
mask over the fixed range, of test people alone; intervals are percentile bootstraps over people. A training that was stopped goes on; what is there is not made again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans

from pipeline_lib.bundles.bundle import load_bundle
from pipeline_lib.config.schema import AutoencoderOptions, RecipeOptions
from pipeline_lib.dataset.prepared import PREPARED
from pipeline_lib.evaluation.translation import (
    CALIBRATION,
    DATA_RANGE,
    HALF_NYQUIST,
    REGIONS,
    channel_names,
    evaluate_translation,
)
from pipeline_lib.files import atomic_directory, read_json, write_json
from pipeline_lib.inference.translation import apply_floor, infer_translation
from pipeline_lib.metrics.bootstrap import bootstrap_mean
from pipeline_lib.training.denoiser import train_denoiser
from pipeline_lib.training.latents import encode_chunk
from pipeline_lib.training.vqgan import train_vqgan

CHECKOUT = Path(__file__).resolve().parents[1]
BLOCK = 40
"""Voxels along each axis of the block of a person."""
CUBE = {"residual": 40, "published": 20, "autoencoder": 20}
"""Voxels along each axis of what is trained and judged at once, by the way: the block, or the eight of it."""
LICENCE = "IXI (brain-development.org), CC BY-SA 3.0"
DRAWS = 4000
LEAST_BRAIN = 0.1
"""Of a cube, for it to be kept."""
FITTED = 100_000
"""Blocks that k-means is fitted to."""
TITLES = {
    "regression": "regression",
    "floor": "linear fit",
    "ceiling": "autoencoder",
    "draw": "one draw",
    "prediction": "mean of draws",
}
"""Arrays of an inference, the one the others are held against first."""


def recipe_of(config: str, length: int) -> RecipeOptions:
    """The one recipe of a file in config/, on cubes of so many voxels."""
    (written,) = yaml.safe_load((CHECKOUT / "config" / config).read_text())["recipes"].values()
    return RecipeOptions.model_validate({**written, "data": {**written["data"], "size": [length] * 3}})


def starts_of(mask: NDArray[np.bool_]) -> list[int]:
    """Where the block of a person begins along each axis."""
    ends = [np.flatnonzero(mask.any(tuple(other for other in range(3) if other != axis)))[[0, -1]] for axis in range(3)]
    starts = [int(ends[0][0]), *(int(first + last + 1 - BLOCK) // 2 for first, last in ends[1:])]
    return [min(max(0, start), length - BLOCK) for start, length in zip(starts, mask.shape, strict=True)]


def cut(chunk: Path, out: Path, length: int) -> None:
    """A packed chunk of cubes, the block of each person in as many as it has, those left out that hold hardly any brain."""
    arrays = {name: np.load(chunk / f"{name}.npy", mmap_mode="r") for name in ("data", "target", "mask")}
    index = pd.read_csv(chunk / "index.tsv", sep="\t", dtype=str, keep_default_na=False)
    cubes: dict[str, list[NDArray[np.generic]]] = {name: [] for name in arrays}
    rows = []
    for row, entry in enumerate(index.to_dict("records")):
        start = starts_of(np.asarray(arrays["mask"][row, 0]) > 0)
        for number, offset in enumerate(itertools.product(range(0, BLOCK, length), repeat=3)):
            corner = np.add(start, offset)
            where = (row, slice(None), *(slice(at, at + length) for at in corner))
            if (arrays["mask"][where] > 0).mean() < LEAST_BRAIN:
                continue
            for name, values in arrays.items():
                cubes[name].append(np.array(values[where]))
            affine = np.array(json.loads(entry["affine"]))
            affine[:3, 3] += affine[:3, :3] @ corner
            rows.append({**entry, "scan": f"block-{number}_{entry['scan']}", "affine": json.dumps(affine.tolist())})
    with atomic_directory(out) as folder:
        for name, kept in cubes.items():
            np.save(folder / f"{name}.npy", np.stack(kept))
        pd.DataFrame(rows).to_csv(folder / "index.tsv", sep="\t", index=False)
        write_json(folder / "layout.json", {**read_json(chunk / "layout.json"), "size": [length] * 3})
        prepared = read_json(chunk / PREPARED)
        write_json(folder / PREPARED, {**prepared, "data": {**prepared["data"], "size": [length] * 3}})


def interval(values: NDArray[np.floating]) -> str:
    """Mean with a bootstrap interval over people."""
    found = bootstrap_mean(values, resamples=DRAWS, seed=0)
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def psnrs(maps: Sequence[NDArray[np.floating]], folders: Sequence[Path], truth: str = "target") -> NDArray[np.float64]:
    """PSNR of each person and channel of ``truth``, (N, C): of all voxels of a person together."""
    errors: dict[str, list[tuple[NDArray[np.float64], int]]] = {}
    for values, folder in zip(maps, folders, strict=True):
        target, mask = np.load(folder / f"{truth}.npy"), np.load(folder / "mask.npy") > 0
        people = pd.read_csv(folder / "index.tsv", sep="\t", dtype=str)["participant"]
        squares = (np.square(values.clip(-1, 1) - target, dtype=np.float64) * mask).sum((2, 3, 4))
        for person, square, inside in zip(people, squares, mask.sum((1, 2, 3, 4)), strict=True):
            errors.setdefault(person, []).append((square, int(inside)))
    means = [sum(square for square, _ in parts) / sum(inside for _, inside in parts) for parts in errors.values()]
    return 10 * np.log10(DATA_RANGE**2 / np.array(means))


def print_psnrs(found: Mapping[str, NDArray[np.float64]], recipe: RecipeOptions) -> None:
    """PSNR of each method and map, and each method's less the first's, person by person."""
    first, *others = found
    titles = [*(f"{name}, dB" for name in found), *(f"{name} less {first}, dB" for name in others)]
    print(f"| map | people | {' | '.join(titles)} |")
    print("|---|" + "---:|" * (1 + len(titles)))
    for channel, name in enumerate(channel_names(recipe)):
        cells = [f"{values[:, channel].mean():.2f}" for values in found.values()]
        cells += [interval(found[other][:, channel] - found[first][:, channel]) for other in others]
        print(f"| {name} | {len(found[first])} | {' | '.join(cells)} |")
    print()


def train_role(
    options: AutoencoderOptions, recipe: RecipeOptions, cubes: Mapping[str, list[Path]], out: Path, role: str
) -> Path:
    """A VQGAN of the source or of the target, trained where it is not there yet."""
    if not (out / role).is_dir():
        chunks = cubes["train"], cubes["validation"]
        train_vqgan(options, recipe.data, *chunks, out / role, out / "state" / role, role, LICENCE)
    return out / role


def blocks_of(maps: NDArray[np.floating], factor: int) -> NDArray[np.float32]:
    """(N, C, *spatial) -> (blocks, C factor^3)."""
    n, c, x, y, z = maps.shape
    cut_up = maps.reshape(n, c, x // factor, factor, y // factor, factor, z // factor, factor)
    return np.ascontiguousarray(cut_up.transpose(0, 2, 4, 6, 1, 3, 5, 7).reshape(-1, c * factor**3), np.float32)


def maps_of(blocks: NDArray[np.floating], shape: Sequence[int], factor: int) -> NDArray[np.float32]:
    """Back from `blocks_of`."""
    n, c, x, y, z = shape
    apart = blocks.reshape(n, x // factor, y // factor, z // factor, c, factor, factor, factor)
    return np.ascontiguousarray(apart.transpose(0, 4, 1, 5, 2, 6, 3, 7).reshape(shape), np.float32)


def block_means(train: Sequence[Path], codes: int, factor: int) -> MiniBatchKMeans:
    """As many blocks of maps, each of what a code of a VQGAN stands for, by k-means: what needs no network."""
    blocks = np.concatenate([blocks_of(np.load(chunk / "target.npy"), factor) for chunk in train])
    blocks = blocks[blocks.max(1) > -1]
    chosen = np.random.default_rng(0).permutation(len(blocks))[:FITTED]
    return MiniBatchKMeans(codes, batch_size=4096, n_init=1, max_iter=10, random_state=0).fit(blocks[chosen])


@torch.inference_mode()
def print_reconstruction(
    model: Path, role: str, cubes: Mapping[str, Sequence[Path]], floor: Mapping[str, object], recipe: RecipeOptions
) -> None:
    """What an autoencoder keeps, of the maps beside the linear fit and k-means; how the codebook is used."""
    module, _ = load_bundle(model)
    book = read_json(model / "codebook.json")
    factor = int(module.factor)  # type: ignore[arg-type]
    test = cubes["test"]
    arrays = [np.load(folder / f"{'target' if role == 'target' else 'data'}.npy") for folder in test]
    made = [np.concatenate([module(x)[0].numpy() for x in torch.from_numpy(each).split(1)]) for each in arrays]
    if role == "target":
        sources, masks = ([np.load(folder / f"{name}.npy") for folder in test] for name in ("data", "mask"))
        fitted = [apply_floor(floor, source, mask > 0) for source, mask in zip(sources, masks, strict=True)]
        means = block_means(cubes["train"], book["codes"], factor)
        nearest = [means.cluster_centers_[means.predict(blocks_of(each, factor))] for each in arrays]
        simple = [maps_of(found, each.shape, factor) for found, each in zip(nearest, arrays, strict=True)]
        methods = {"linear fit": fitted, f"k-means of blocks of {factor} voxels": simple, "autoencoder": made}
        print_psnrs({name: psnrs(maps, test) for name, maps in methods.items()}, recipe)
    else:
        found = ", ".join(f"{value:.2f}" for value in psnrs(made, test, "data").mean(0))
        print(f"PSNR of the source's channels, dB: {found}")
    used = (
        f"{book['usage']:.1%} of {book['codes']} codes used on validation people, perplexity {book['perplexity']:.0f}"
    )
    print(f"{used}\n")


def judge(recipe: RecipeOptions, inferred: Sequence[Path], cubes: Sequence[Path], out: Path) -> None:
    """PSNR, power above half of Nyquist and coverage, of what `evaluate_translation` wrote and of one draw."""
    found = {
        title: psnrs([np.load(chunk / f"{name}.npy") for chunk in inferred], cubes)
        for name, title in TITLES.items()
        if (inferred[0] / f"{name}.npy").is_file() and (name != "prediction" or recipe.sampling.count > 1)
    }
    print_psnrs(found, recipe)
    spectrum = pd.read_csv(out / "spectrum.tsv", sep="\t")
    high = spectrum[spectrum["frequency"] > HALF_NYQUIST].pivot_table(
        index=["channel", "method"], columns="frequency", values="decibels", sort=False
    )
    print("Power over the truth's, dB, by cycles a voxel; of the diffusion, one draw:\n")
    print(f"| map | method | {' | '.join(f'{frequency:.2f}' for frequency in high)} |")
    print("|---|---|" + "---:|" * high.shape[1])
    for (channel, method), values in zip(high.index, high.to_numpy(), strict=True):
        print(f"| {channel} | {method} | {' | '.join(f'{value:.1f}' for value in values)} |")
    print()
    if (out / "calibration.tsv").is_file():
        known = pd.read_csv(out / "calibration.tsv", sep="\t")
        print(f"| map | {' | '.join(CALIBRATION)} |\n|---|{'---:|' * len(CALIBRATION)}")
        for channel, rows in known.groupby("channel", sort=False):
            people = rows.groupby("participant")[list(CALIBRATION)].mean()
            print(f"| {channel} | {' | '.join(interval(people[name].to_numpy()) for name in CALIBRATION)} |")
        print()
    if (out / REGIONS).is_file():
        regions = pd.read_csv(out / REGIONS, sep="\t")
        methods = [name for name in high.index.unique("method") if name in regions]
        print("Correlation within regions, mean over people, median over regions:\n")
        print(f"| map | regions | {' | '.join(methods)} |\n|---|{'---:|' * (1 + len(methods))}")
        for channel, rows in regions.groupby("map", sort=False):
            print(f"| {channel} | {len(rows)} | {' | '.join(f'{rows[name].median():.2f}' for name in methods)} |")


def draw_picture(recipe: RecipeOptions, inferred: Path, cubes: Path, path: Path) -> None:
    """The middle axial slice of the first test person's first cube, a row a map, from 0 to 1; the spread five times."""
    shown = {
        title: np.load(inferred / f"{name}.npy")[0]
        for name, title in TITLES.items()
        if (inferred / f"{name}.npy").is_file()
    }
    shown |= {"spread, x 5": 5 * np.load(inferred / "spread.npy")[0] - 1} if recipe.sampling.count > 1 else {}
    shown |= {"truth": np.load(cubes / "target.npy")[0]}
    figure = Figure(figsize=(1.3 * len(shown), 4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name, channel in zip(figure.subplots(3, len(shown)), channel_names(recipe), range(3), strict=True):
        for axis, (title, maps) in zip(axes, shown.items(), strict=True):
            axis.imshow(maps[channel, :, :, maps.shape[-1] // 2].T[::-1], cmap="gray", vmin=-1, vmax=1)
            axis.set(xticks=[], yticks=[])
            if channel == 0:
                axis.set_title(title, fontsize=8)
        axes[0].set_ylabel(name, fontsize=8)
    figure.savefig(path, dpi=100)


def main() -> None:
    """Train what is not there and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the recipe, with dataset/, floor/ and regression/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--way", choices=["residual", "published", "autoencoder"], default="residual")
    parser.add_argument("--factor", type=int, choices=[2, 4], default=2, help="of the VQGANs")
    parser.add_argument("--role", choices=["source", "target"], default="target", help="of the VQGAN alone")
    parser.add_argument("--codebook-start", type=int, help="of the VQGANs; 0: the codebook from the first step on")
    parser.add_argument("--steps", type=int, help="of the denoiser, or of the VQGAN alone, instead of the recipe's")
    parser.add_argument("--rate", type=float, help="learning rate of the same, instead of the recipe's")
    parser.add_argument("--regions", help="of each person, as `evaluation.regions`: correlation in each of them")
    parser.add_argument("--picture", type=Path, help="where to draw a test person's maps")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder, out = given.folder, given.out
    if not list((folder / "dataset").glob("test-*")):
        parser.exit(1, f"{folder}/dataset has no test people; run the workflow --until train_regression dataset\n")
    for chunk in sorted((folder / "dataset").glob("*-*-*")):
        if not (out / "dataset" / chunk.name).is_dir():
            cut(chunk, out / "dataset" / chunk.name, CUBE[given.way])
    cubes = {split: sorted((out / "dataset").glob(f"{split}-*")) for split in ("train", "validation", "test")}
    config = "ixi_noddi.yaml" if given.way == "residual" else "ixi_noddi_published.yaml"
    recipe = recipe_of(config, CUBE[given.way])
    own = {name: value for name, value in (("steps", given.steps), ("learning_rate", given.rate)) if value}

    autoencoders: dict[str, Path] = {}
    if given.way != "residual":
        assert recipe.autoencoder is not None
        options = recipe.autoencoder.model_dump()
        if given.factor == 4:  # an eighth of the codes a cube: a smaller book of them
            options["channels"].append(2 * options["channels"][0])
            options["codes"] //= 4
        if given.codebook_start is not None:
            options["codebook_start"] = given.codebook_start
        if given.way == "autoencoder":
            options["training"] |= own
        vqgan = AutoencoderOptions.model_validate(options)
        floor = read_json(folder / "floor" / "coefficients.json")
        for role in ["source", "target"] if given.way == "published" else [given.role]:
            autoencoders[role] = train_role(vqgan, recipe, cubes, out, role)
            print_reconstruction(autoencoders[role], role, cubes, floor, recipe)
        if given.way == "autoencoder":
            return
    denoiser = recipe.denoiser.model_dump()
    denoiser["training"] |= own
    changed = recipe.model_dump(exclude_unset=True)
    changed["evaluation"]["regions"] = given.regions
    recipe = RecipeOptions.model_validate({**changed, "denoiser": denoiser})

    latents = {}
    for chunk in [chunk for chunks in cubes.values() for chunk in chunks] if autoencoders else []:
        latents[chunk] = out / "latents" / chunk.name
        if not latents[chunk].is_dir():
            encode_chunk(autoencoders, chunk, latents[chunk])
    regression = None if autoencoders else folder / "regression"
    if not (out / "diffusion").is_dir():
        known = [[latents.get(chunk, chunk) for chunk in cubes[split]] for split in ("train", "validation")]
        train_denoiser(
            recipe,
            *known,
            out / "diffusion",
            out / "state" / "diffusion",
            autoencoders,
            regression=regression,
            name=given.way,
            licence=LICENCE,
        )
    inferred = [out / "inference" / chunk.name for chunk in cubes["test"]]
    for chunk, into in zip(cubes["test"], inferred, strict=True):
        if not into.is_dir():
            infer_translation(
                recipe, out / "diffusion", autoencoders, regression, folder / "floor", chunk, latents.get(chunk), into
            )
    if not (out / "evaluation").is_dir():
        evaluate_translation(recipe, out / "diffusion", inferred, cubes["test"], out / "evaluation")
    judge(recipe, inferred, cubes["test"], out / "evaluation")
    if given.picture:
        draw_picture(recipe, inferred[0], cubes["test"][0], given.picture)


if __name__ == "__main__":
    main()
