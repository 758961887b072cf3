"""Both ways of a translation, trained and judged on a block of each person, as Markdown tables.

    python benchmarks/translation.py results/on_labels/translation --out residual                                # diffusion of the residual
    python benchmarks/translation.py results/on_labels/translation --out published --way published               # the published way, factor 2
    python benchmarks/translation.py results/on_labels/translation --out factor4 --way autoencoder --factor 4    # the maps' VQGAN alone

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
from numpy.typing import NDArray

from pipeline_lib.bundles.bundle import load_bundle
from pipeline_lib.config.schema import AutoencoderOptions, RecipeOptions
from pipeline_lib.dataset.prepared import PREPARED
from pipeline_lib.evaluation.translation import (
    CALIBRATION,
    DATA_RANGE,
    HALF_NYQUIST,
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


def psnrs(maps: Sequence[NDArray[np.floating]], folders: Sequence[Path]) -> NDArray[np.float64]:
    """PSNR of each person and map, (N, C): of all voxels of a person together."""
    errors: dict[str, list[tuple[NDArray[np.float64], int]]] = {}
    for values, folder in zip(maps, folders, strict=True):
        target, mask = np.load(folder / "target.npy"), np.load(folder / "mask.npy") > 0
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


@torch.inference_mode()
def print_ceiling(model: Path, cubes: Sequence[Path], floor: Mapping[str, object], recipe: RecipeOptions) -> None:
    """The maps through their autoencoder beside the linear fit; how the codebook is used."""
    module, _ = load_bundle(model)
    made: dict[str, list[NDArray[np.floating]]] = {"linear fit": [], "autoencoder": []}
    for folder in cubes:
        source, target, mask = (np.load(folder / f"{name}.npy") for name in ("data", "target", "mask"))
        made["linear fit"].append(apply_floor(floor, source, mask > 0))
        images = torch.from_numpy(target).split(1)
        made["autoencoder"].append(np.concatenate([module(image)[0].numpy() for image in images]))
    print_psnrs({name: psnrs(maps, cubes) for name, maps in made.items()}, recipe)
    book = read_json(model / "codebook.json")
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


def main() -> None:
    """Train what is not there and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the recipe, with dataset/, floor/ and regression/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--way", choices=["residual", "published", "autoencoder"], default="residual")
    parser.add_argument("--factor", type=int, choices=[2, 4], default=2, help="of the VQGANs")
    parser.add_argument("--codebook-start", type=int, help="of the VQGANs; 0: the codebook from the first step on")
    parser.add_argument("--steps", type=int, help="of the denoiser, or of the VQGAN alone, instead of the recipe's")
    parser.add_argument("--rate", type=float, help="learning rate of the same, instead of the recipe's")
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
        autoencoders["target"] = train_role(vqgan, recipe, cubes, out, "target")
        print_ceiling(autoencoders["target"], cubes["test"], read_json(folder / "floor" / "coefficients.json"), recipe)
        if given.way == "autoencoder":
            return
        autoencoders["source"] = train_role(vqgan, recipe, cubes, out, "source")
    denoiser = recipe.denoiser.model_dump()
    denoiser["training"] |= own
    recipe = RecipeOptions.model_validate({**recipe.model_dump(exclude_unset=True), "denoiser": denoiser})

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


if __name__ == "__main__":
    main()
