"""Arms that have seen lesions drawn in validation people, beside those that have not, on the same test people.

    python benchmarks/anomaly_arms.py config/soop.yaml results/soop WORK selfsupervised unsupervised

Validation-tuned: the parts of a finished recipe's score, weighted by a logistic regression on brain pixels of validation people.
Supervised reference: the network of the first recipe named, from new weights, trained on what was drawn in validation people.
Both learn from all of these; the threshold and the number of training steps are chosen on maps of people of a fold that was left
out. All arms have the first recipe's smoothing and its floors. WORK keeps maps and evaluation of each arm, and trainings go on there.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression

from pipeline_lib.bundle_plan import read_plan
from pipeline_lib.config.load import read_config
from pipeline_lib.config.schema import RecipeOptions, TrainingOptions
from pipeline_lib.dataset.augment import augmentation
from pipeline_lib.dataset.packed import PackedDataset
from pipeline_lib.evaluation.anomaly import ASYMMETRY, INTENSITY, evaluate_anomaly
from pipeline_lib.evaluation.detection import Statistic, differences_of, statistics_of
from pipeline_lib.evaluation.lesioned import lesion_of, people_of
from pipeline_lib.evaluation.metric import Metric
from pipeline_lib.files import atomic_directory, read_json
from pipeline_lib.inference.baselines import in_units
from pipeline_lib.inference.chunks import matching, open_array, read_index
from pipeline_lib.inference.denoise import load_denoiser
from pipeline_lib.inference.geometry import voxel_size
from pipeline_lib.inference.healthy import healthy_images
from pipeline_lib.inference.mapping import BY_PLACE, mapped
from pipeline_lib.inference.score import contrasts_of, smoothed
from pipeline_lib.inference.standards import IMAGES, measure_places, standards_of
from pipeline_lib.metrics.detection import average_precision
from pipeline_lib.models.segmentation import logits
from pipeline_lib.models.unet import UNet
from pipeline_lib.training.data import shown_rows
from pipeline_lib.training.owner import owner
from pipeline_lib.training.segmenter import SegmenterStep
from pipeline_lib.training.trainer import launch, train

Maps = NDArray[np.float32]
Masks = NDArray[np.bool_]
FOLDS = 3
EVERY = 50
"""Steps between the averages among which the number of steps is chosen."""
PARTS = ("residual", "residual_asymmetry", BY_PLACE, "intensity", "intensity_asymmetry")
STRUCTURES = ("lesion",)
COLUMNS = (
    "pixel AP",
    "pixel AUROC",
    "Dice",
    "pixel AP per person",
    "lesion sensitivity",
    "false detections per person",
)


@dataclass(frozen=True)
class Finished:
    """A recipe and the folder of its results."""

    recipe: RecipeOptions
    folder: Path

    def chunks(self, split: str) -> list[Path]:
        """Its packed chunks of a split that have images."""
        return sorted(chunk for chunk in (self.folder / "dataset").glob(f"{split}-*") if len(read_index(chunk)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("results", type=Path, help="cohort.results of that configuration")
    parser.add_argument("work", type=Path)
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--steps", type=int, default=300, help="at most, of the supervised training")
    parser.add_argument("--batch-size", type=int, default=8, help="slices a step of the supervised training")
    arguments = parser.parse_args()
    recipes = read_config(arguments.config).recipes
    if unknown := [name for name in arguments.recipes if name not in recipes]:
        parser.error(f"{arguments.config} has no recipe {', '.join(unknown)}; it has {', '.join(recipes)}")
    finished = {name: Finished(recipes[name], arguments.results / name) for name in arguments.recipes}
    arms: dict[str, Path] = {}
    for name, own in finished.items():
        arms[name] = own.folder
        arms[f"{name}, validation-tuned"] = arm(own, arguments.work / f"{name}-tuned", tuned)
    first = finished[arguments.recipes[0]]

    def make(own: Finished, out: Path) -> None:
        supervised(own, out, arguments.steps, arguments.batch_size)

    arms["supervised reference"] = arm(first, arguments.work / "supervised", make)
    print(table(arms))
    print(differences(first.recipe, arms, first.chunks("test")))


def arm(own: Finished, out: Path, make: Callable[[Finished, Path], None]) -> Path:
    """The folder of an arm with ``inference/`` and ``evaluation/``; nothing is done where these are there."""
    if not (out / "evaluation").is_dir():
        shutil.rmtree(out / "inference", ignore_errors=True)
        make(own, out)
        chunks = [*own.chunks("validation"), *own.chunks("test")]
        inferred = [out / "inference" / chunk.name for chunk in chunks]
        evaluate_anomaly(
            own.recipe, own.folder / "diffusion", inferred, chunks, own.folder / "standards", out / "evaluation"
        )
    return out


def folds_of(chunks: Sequence[Path]) -> dict[str, int]:
    """The fold of each person."""
    people = sorted({person for chunk in chunks for person in read_index(chunk)["participant"]})
    return {person: number % FOLDS for number, person in enumerate(people)}


def write(out: Path, chunk: Path, maps: Maps, reconstruction: Maps) -> None:
    """What evaluation reads of a chunk."""
    with atomic_directory(out / "inference" / chunk.name) as folder:
        np.save(folder / "maps.npy", maps.astype(np.float32))
        np.save(folder / "reconstruction.npy", reconstruction.astype(np.float32))
        read_index(chunk).to_csv(folder / "index.tsv", sep="\t", index=False)


# Validation-tuned


@dataclass(frozen=True)
class Seen:
    """Parts of the score of a chunk's images, ``(N, 1, *spatial, parts)``, in units of healthy images, with brain and lesion."""

    parts: Maps
    brain: Masks
    lesion: Masks
    reconstruction: Maps
    folds: NDArray[np.int64]


def tuned(own: Finished, out: Path) -> None:
    """Write the maps of fitted weights, and print the weights."""
    names = (*PARTS, "segmentation") if own.recipe.denoiser.synthetic_lesions else PARTS
    recipe = with_parts(own.recipe, names)
    denoiser = load_denoiser(recipe, own.folder / "diffusion")
    places = measure_places(recipe, denoiser, own.chunks("train"))
    standards = standards_of(recipe, denoiser, healthy_images(own.chunks("train"), recipe, IMAGES), places)
    folds = folds_of(own.chunks("validation"))

    def seen(chunk: Path) -> Seen:
        index = read_index(chunk)
        found = mapped(recipe, denoiser, chunk, index, places)
        parts = [in_units(standards, name, found.parts[name], contrasts_of(recipe, index)) for name in names]
        own_folds = np.array([folds.get(person, -1) for person in index["participant"]])
        return Seen(np.stack(parts, axis=-1), found.mask, lesion_of(chunk, index), found.reconstruction, own_folds)

    validation = {chunk: seen(chunk) for chunk in own.chunks("validation")}
    left_out = [fitted(list(validation.values()), without=fold) for fold in range(FOLDS)]
    final = fitted(list(validation.values()))
    print(
        f"weights of {own.folder.name}: "
        + ", ".join(f"{n} {w:.2f}" for n, w in zip(names, final.coef_[0], strict=True))
    )
    for chunk, images in validation.items():
        maps = np.stack([weighed(left_out[fold], images, row) for row, fold in enumerate(images.folds)])
        write(out, chunk, maps, images.reconstruction)
    for chunk in own.chunks("test"):
        images = seen(chunk)
        maps = np.stack([weighed(final, images, row) for row in range(len(images.parts))])
        write(out, chunk, maps, images.reconstruction)


def with_parts(recipe: RecipeOptions, names: Sequence[str]) -> RecipeOptions:
    """The recipe, whose score has these parts."""
    values = recipe.model_dump(exclude_unset=True)
    evaluation = values.get("evaluation", {})
    score = {**evaluation.get("score", {}), "weights": dict.fromkeys(names, 1.0)}
    values["evaluation"] = {**evaluation, "score": score}
    return RecipeOptions.model_validate(values)


def fitted(validation: Sequence[Seen], without: int | None = None) -> LogisticRegression:
    """Weights of the parts by which brain pixels with and without a lesion differ most, of people of the other folds."""
    parts, lesion = [], []
    for images in validation:
        inside = images.brain & (images.folds != without)[:, None, None, None]
        parts.append(images.parts[inside])
        lesion.append(images.lesion[inside])
    return LogisticRegression(max_iter=1000).fit(np.concatenate(parts), np.concatenate(lesion))


def weighed(model: LogisticRegression, images: Seen, row: int) -> Maps:
    """The map ``(1, *spatial)`` of one image: log odds of a lesion."""
    odds = images.parts[row] @ model.coef_[0] + model.intercept_[0]
    return np.where(images.brain[row], odds, 0).astype(np.float32)


# Supervised reference


def supervised(own: Finished, out: Path, steps: int, batch_size: int) -> None:
    """Train on validation people, fold by fold and on all, and write the maps; print AP of people left out by step."""
    chunks = own.chunks("validation")
    folds = folds_of(chunks)
    people = [packed_fold(chunks, folds, fold, out / "people" / str(fold)) for fold in range(FOLDS)]
    kept = list(range(EVERY, steps + 1, EVERY))
    changed: dict[str, Any] = {
        "steps": steps, "epochs": None, "batch_size": batch_size, "validate_every": steps, "checkpoint_every": EVERY,
    }  # fmt: skip
    training = own.recipe.denoiser.training.model_copy(update=changed)
    architecture = {**read_plan(own.folder / "diffusion")["architecture"], "out_channels": len(STRUCTURES)}

    def trained(taken: Sequence[Path], state: Path) -> Callable[[int], UNet]:
        averages = train_on(taken, architecture, training, state, kept)
        return lambda step: network(architecture, averages / f"step-{step:08d}.safetensors")

    left_out = [
        trained([one for one in people if one != people[fold]], out / "state" / str(fold)) for fold in range(FOLDS)
    ]
    final = trained(people, out / "state" / "all")

    def of_left_out(step: int) -> list[Maps]:
        networks = [make(step) for make in left_out]
        return [
            marked([networks[folds[person]] for person in read_index(chunk)["participant"]], own.recipe, chunk)
            for chunk in chunks
        ]

    brains = [np.asarray(open_array(chunk, "mask")) > 0 for chunk in chunks]
    truth = np.concatenate(
        [lesion_of(chunk, read_index(chunk))[brain] for chunk, brain in zip(chunks, brains, strict=True)]
    )
    precision = {}
    for step in kept:
        scores = [maps[brain] for maps, brain in zip(of_left_out(step), brains, strict=True)]
        precision[step] = average_precision(np.concatenate(scores), truth)
    print("supervised, AP of people left out by step: " + ", ".join(f"{s} {ap:.3f}" for s, ap in precision.items()))
    best = max(precision, key=lambda step: precision[step])
    for chunk, maps in zip(chunks, of_left_out(best), strict=True):
        write(out, chunk, maps, images_of(chunk))
    for chunk in own.chunks("test"):
        write(out, chunk, marked([final(best)] * len(read_index(chunk)), own.recipe, chunk), images_of(chunk))


def packed_fold(chunks: Sequence[Path], folds: Mapping[str, int], fold: int, out: Path) -> Path:
    """A packed chunk of the people of a fold, with their lesions as labels."""
    rows = [np.flatnonzero([folds[person] == fold for person in read_index(chunk)["participant"]]) for chunk in chunks]
    if not out.is_dir():
        with atomic_directory(out) as folder:
            for name, stored in (("data", "data"), ("mask", "mask"), ("label", "lesion")):
                arrays = [open_array(chunk, stored)[own] for chunk, own in zip(chunks, rows, strict=True)]
                np.save(folder / f"{name}.npy", np.concatenate(arrays))
            for name in ("layout.json", "prepared.json"):
                shutil.copyfile(chunks[0] / name, folder / name)
            index = [read_index(chunk).iloc[own] for chunk, own in zip(chunks, rows, strict=True)]
            pd.concat(index).to_csv(folder / "index.tsv", sep="\t", index=False)
    return out


def train_on(
    people: Sequence[Path], architecture: Mapping[str, Any], training: TrainingOptions, state: Path, kept: Sequence[int]
) -> Path:
    """Folder of the averages of a training at the steps to be kept."""
    with owner(state):
        fabric = launch(training, 2)
        images = PackedDataset(people, augment=augmentation(training.augment, training.seed))
        step = SegmenterStep(UNet(**architecture), images.batch(shown_rows(images)), STRUCTURES)
        scans = images.index["scan"].tolist()
        train(
            fabric, f"supervised {state.name}", step, images, scans, PackedDataset([]), training, state, keep_averages_at=kept
        )  # fmt: skip
    return state / "averages"


def network(architecture: Mapping[str, Any], weights: Path) -> UNet:
    """With these weights, for inference."""
    module = UNet(**architecture)
    module.load_state_dict(load_file(weights))
    return module.eval()


@torch.inference_mode()
def marked(networks: Sequence[UNet], recipe: RecipeOptions, chunk: Path) -> Maps:
    """Smoothed logits of a lesion ``(N, 1, *spatial)``, each image by its own network."""
    images, brain = torch.from_numpy(images_of(chunk)), np.asarray(open_array(chunk, "mask")) > 0
    found = torch.cat([logits(module, image[None]) for module, image in zip(networks, images, strict=True)]).numpy()
    maps = smoothed(found, brain, recipe.evaluation, voxel_size(read_index(chunk)))
    return np.where(brain, maps, 0)


def images_of(chunk: Path) -> Maps:
    """All of a chunk."""
    return np.array(open_array(chunk, "data"), dtype=np.float32)


# Tables


def table(arms: Mapping[str, Path]) -> str:
    """Floors and arms, with what each has more than the floor of the highest AP."""
    found = {name: rows_of(folder / "evaluation") for name, folder in arms.items()}
    first = next(iter(found.values()))
    floors = [method for method in (INTENSITY, ASYMMETRY) if ("pixel AP", method, "") in first]
    best = max(floors, key=lambda method: first["pixel AP", method, ""]["value"])
    lines = [f"| | {' | '.join(COLUMNS)} |", "|---|" + "---:|" * len(COLUMNS)]
    for method in floors:
        lines.append(
            f"| floor: {method} | " + " | ".join(cell(first.get((name, method, ""))) for name in COLUMNS) + " |"
        )
    for name, rows in found.items():
        for against in ("", best):
            cells = [cell(rows.get((column, "diffusion", against)), signed=bool(against)) for column in COLUMNS]
            lines.append(f"| {f'- minus {against}' if against else name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def rows_of(evaluation: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Metrics of all people by name, method and what was subtracted."""
    rows = read_json(evaluation / "metrics.json")
    return {
        (row["name"], row["method"], row["against"]): row for row in rows if row["group"] == "all" and not row["part"]
    }


def cell(row: Mapping[str, Any] | None, *, signed: bool = False) -> str:
    """Value and interval."""
    if row is None or row["value"] is None:
        return "-"
    sign = "+" if signed else ""
    interval = "" if row["low"] is None else f" [{row['low']:.3f}, {row['high']:.3f}]"
    return f"{row['value']:{sign}.3f}{interval}"


def differences(recipe: RecipeOptions, arms: Mapping[str, Path], test: Sequence[Path]) -> str:
    """Pixel AP of each arm minus that of each named before it, paired over people."""

    def maps(inferred: Path, _: Path, index: pd.DataFrame) -> Maps:
        return np.asarray(open_array(inferred, "maps")[index.index], dtype=np.float32)

    found: dict[str, list[Statistic]] = {}
    count = 0
    for name, folder in arms.items():
        pairs = matching([folder / "inference" / chunk.name for chunk in test], test)
        people = people_of(pairs, maps, recipe)
        count = len(people)
        all_of = statistics_of(people, None, Metric("", None, method=name))
        found[name] = [one for one in all_of if one.about.name == "pixel AP"]
    names = list(arms)
    lines = [f"| pixel AP minus that of | {' | '.join(names[:-1])} |", "|---|" + "---:|" * (len(names) - 1)]
    for at, name in enumerate(names[1:], 1):
        cells = [
            cell(vars(row), signed=True)
            for other in names[:at]
            for row in differences_of(found[name], found[other], count, recipe)
        ]
        lines.append(f"| {name} | " + " | ".join(cells + [""] * (len(names) - 1 - at)) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
