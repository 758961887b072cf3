"""How noise level, residual, smoothing, rim and parts of an anomaly score trade off, on validation people only.

python benchmarks/anomaly_choice.py config/soop.yaml results/soop selfsupervised      # the table of docs/anomaly_choice.md

With --floor only what needs no model, by smoothing; with --residuals not levels and boxes. Every score is standardised on healthy training images. Test people are not read.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline_lib.config.load import read_config
from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.inference.baselines import Standard, excess_map, intensity_map
from pipeline_lib.inference.chunks import open_array, read_index
from pipeline_lib.inference.denoise import load_denoiser
from pipeline_lib.inference.healthy import healthy_images
from pipeline_lib.inference.mapping import BY_PLACE, mapped
from pipeline_lib.inference.score import combined, contrasts_of, lesions_are_dark, smoothed
from pipeline_lib.inference.standards import IMAGES, measure_places, standards_of
from pipeline_lib.metrics.detection import average_precision

LEVELS: tuple[tuple[float, ...], ...] = (
    (1,), (0.98,), (0.95,), (0.9,), (0.85,), (0.7,), (0.5,), (1, 0.98, 0.95, 0.9, 0.85), (0.98, 0.95, 0.9, 0.85, 0.7),
)  # fmt: skip
BOXES = (1, 3, 5, 7, 9)
EROSIONS = (1, 2, 3)
FLOOR = ("intensity", "intensity_asymmetry")
RESIDUAL = ("residual", "residual_asymmetry")


@dataclass(frozen=True)
class Images:
    """Healthy training images and validation images with their truth."""

    train: list[Path]
    healthy: list[tuple[Path, Any]]
    validation: list[Path]

    def truth(self) -> np.ndarray:
        """Lesion of every brain pixel."""
        brain, lesion = (
            np.concatenate([open_array(c, name) > 0 for c in self.validation]) for name in ("mask", "lesion")
        )
        found: np.ndarray = lesion[brain]
        return found


def changed(recipe: RecipeOptions, box: float, erosion: float = 0, **score: Any) -> RecipeOptions:
    """The recipe with another score."""
    values = recipe.model_dump(exclude_unset=True)
    evaluation = {**values.get("evaluation", {}), "smoothing": "box", "smoothing_mm": box, "erosion_mm": erosion}
    values["evaluation"] = evaluation | ({"score": score} if score else {})
    return RecipeOptions.model_validate(values)


def precisions(
    recipe: RecipeOptions, model: Path, images: Images, mixes: dict[str, dict[str, float]]
) -> Iterator[tuple[str, float]]:
    """Average precision of each mix of parts; ``recipe`` names every part."""
    denoiser = load_denoiser(recipe, model)
    places = measure_places(recipe, denoiser, images.train)
    standards = standards_of(recipe, denoiser, images.healthy, places)
    indices = [read_index(chunk) for chunk in images.validation]
    found = [
        mapped(recipe, denoiser, chunk, index, places) for chunk, index in zip(images.validation, indices, strict=True)
    ]
    truth = images.truth()
    for title, weights in mixes.items():
        scores = [
            combined(
                {name: each.parts[name] for name in weights}, each.mask, weights, standards, contrasts_of(recipe, index)
            )[each.mask]
            for each, index in zip(found, indices, strict=True)
        ]
        yield title, average_precision(np.concatenate(scores), truth)


def floors(recipe: RecipeOptions, images: Images) -> None:
    """A table of the floor's two parts and their sum by the side of the box."""
    print("| box | intensity | its asymmetry | both |\n|---|---:|---:|---:|")
    truth = images.truth()
    for box in BOXES:
        evaluation = changed(recipe, box).evaluation

        def parts(chunk: Path, rows: Any, evaluation: Any = evaluation) -> tuple[dict[str, np.ndarray], np.ndarray]:
            brain = np.asarray(open_array(chunk, "mask")[rows]) > 0
            dark = lesions_are_dark(recipe, read_index(chunk).iloc[rows])
            grey = intensity_map(open_array(chunk, "data")[rows], brain, dark=dark)
            level = smoothed(grey, brain, evaluation, 1)
            return {"intensity": level, "intensity_asymmetry": excess_map(level, brain, 1)}, brain

        free = [parts(chunk, index["row"].to_numpy()) for chunk, index in images.healthy]
        standards = {
            name: Standard.of(
                np.concatenate([each[name] for each, _ in free]), np.concatenate([brain for _, brain in free])
            )
            for name in FLOOR
        }
        found = [parts(chunk, slice(None)) for chunk in images.validation]
        each = [np.concatenate([standards[name](part[name])[brain] for part, brain in found]) for name in FLOOR]
        values = [average_precision(score, truth) for score in (*each, each[0] + each[1])]
        print(f"| {box} | " + " | ".join(f"{value:.3f}" for value in values) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("configfile", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("recipe")
    parser.add_argument("--box", type=float, default=7, help="of the table of levels")
    parser.add_argument("--floor", action="store_true", help="only what needs no model")
    parser.add_argument("--residuals", action="store_true", help="only residuals and rims, at the recipe's levels")
    arguments = parser.parse_args()
    recipe = read_config(arguments.configfile).recipes[arguments.recipe]
    folder = arguments.results / arguments.recipe
    chunks = {
        split: sorted(path for path in (folder / "dataset").glob(f"{split}-*") if len(read_index(path)))
        for split in ("train", "validation")
    }
    healthy = healthy_images(chunks["train"], recipe, IMAGES)
    images = Images(chunks["train"], healthy, chunks["validation"])
    if arguments.floor:
        floors(recipe, images)
        return
    marks = {"segmentation": 1.0} if recipe.denoiser.synthetic_lesions else {}
    mixes: dict[str, dict[str, float]] = {
        "residual": {"residual": 1},
        "by place": {BY_PLACE: 1},
        "+ asymmetry": dict.fromkeys(RESIDUAL, 1.0),
        "+ by place": dict.fromkeys((*RESIDUAL, BY_PLACE), 1.0),
        "+ intensity": dict.fromkeys((*RESIDUAL, *FLOOR), 1.0),
        "+ intensity, by place": dict.fromkeys((*RESIDUAL, BY_PLACE, *FLOOR), 1.0),
    }
    if marks:
        mixes |= {
            "segmentation": marks,
            "segmentation + by place": {BY_PLACE: 1, **marks},
            "segmentation + intensity": {**dict.fromkeys(FLOOR, 1.0), "segmentation": 1},
            **{
                f"all, segmentation {w}": {**dict.fromkeys((*RESIDUAL, *FLOOR), 1.0), "segmentation": w}
                for w in (1, 2, 4)
            },
        }
    named = {"floor": dict.fromkeys(FLOOR, 1.0), **mixes}
    every = {**dict.fromkeys((*RESIDUAL, BY_PLACE, *FLOOR), 1.0), **marks}

    def row(title: str, **options: Any) -> None:
        box, erosion = options.pop("box", arguments.box), options.pop("erosion", 0)
        levels = options.pop("levels", recipe.evaluation.score.levels or [0.9])
        score = {"levels": list(levels), "residual": "signed", "weights": every} | options
        found = dict(precisions(changed(recipe, box, erosion, **score), folder / "diffusion", images, named))
        print(f"| {title} | " + " | ".join(f"{found[name]:.3f}" for name in named) + " |", flush=True)

    print(f"| | {' | '.join(named)} |\n|---|{'---:|' * len(named)}")
    for levels in () if arguments.residuals else LEVELS:
        row(f"abar {', '.join(f'{level:g}' for level in levels)}; box {arguments.box:g}", levels=levels)
    for kind in (*(("signed",) if arguments.residuals else ()), "squared", "l1", "ssim"):
        row(f"{kind}; box {arguments.box:g}", residual=kind)
    for box in () if arguments.residuals else BOXES:
        row(f"box {box}", box=box)
    for erosion in EROSIONS:
        row(f"box {arguments.box:g}; rim of {erosion} left out", erosion=erosion)


if __name__ == "__main__":
    main()
