"""Do anomaly maps find lesions, and better than what needs no training?

Pixels inside the brain, pooled over people; every method gets the same smoothing. The threshold of
the Dice that counts is chosen on validation people; the best Dice any threshold reaches on test
people is reported apart and named so. Images without a lesion mask count as healthy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.errors import UserError
from pipeline_lib.files import atomic_directory, read_json
from pipeline_lib.inference.chunks import matching, open_array, read_index
from pipeline_lib.inference.geometry import voxel_size
from pipeline_lib.inference.pictures import Row, Tile, mosaic, plane, save
from pipeline_lib.inference.refusal import caution
from pipeline_lib.metrics.bootstrap import Interval, Weights, bootstrap, bootstrap_mean
from pipeline_lib.metrics.detection import Counts, auroc, average_precision
from pipeline_lib.metrics.smoothing import smooth
from pipeline_lib.metrics.table import Metric, metric, write_metrics

DIFFUSION = "diffusion"
ASYMMETRY = "baseline: smoothed intensity + left-right asymmetry"
METHODS = {
    DIFFUSION: "maps",
    "baseline: smoothed intensity": "baseline_intensity",
    ASYMMETRY: "baseline_asymmetry",
}
NO_LESION = "no lesion mask among the {split} images: detection cannot be scored"
NO_THRESHOLD = "no lesion among validation people: a threshold could only be chosen by looking at the test set"
EXAMPLES = 6


@dataclass(frozen=True)
class Person:
    """All brain voxels of one person's images: flat scores and truth."""

    id: str
    group: str
    split: str
    images: int
    scores: NDArray[np.float32]
    truth: NDArray[np.bool_]


def evaluate_anomaly(
    recipe: RecipeOptions,
    diffusion: Path,
    inference: list[Path],
    datasets: list[Path],
    out: Path,
) -> None:
    """Score the anomaly maps of validation and test chunks.

    Args:
        recipe: ``evaluation`` says smoothing and resamples.
        diffusion: folder of the trained denoiser, for who was in its training.
        inference: chunk folders of `infer_anomaly`, validation and test.
        datasets: packed chunk folders of the same names.
        out: folder for ``metrics.json``, ``metrics.tsv``, ``per_subject.tsv``, ``examples.png`` and,
            where there are lesions, ``precision_recall.png``.

    Raises:
        UserError: there is no test image, a chunk is missing, or people were in training.
    """
    pairs = matching(inference, datasets)
    index = pd.concat([read_index(chunk) for chunk in inference], ignore_index=True)
    if not (index["split"] == "test").any():
        raise UserError("no test image was inferred: put people in the test split or train without them")
    note = caution(index, read_json(diffusion / "model.json"), recipe.sampling.allow_trained_people)

    metrics: list[Metric] = []
    tables: list[pd.DataFrame] = []
    counted: dict[str, Counts] = {}
    for method, name in METHODS.items():
        people = _people(pairs, name, recipe)
        test = [person for person in people if person.split == "test"]
        validation = [person for person in people if person.split == "validation"]
        counts = Counts.of([p.scores for p in test], [p.truth for p in test])
        if counts.positives.any():
            counted[method] = counts
        threshold = _threshold(validation)
        for group in ["all", *sorted({person.group for person in test} - {""})]:
            members = [person for person in test if group in ("all", person.group)]
            metrics += _scored(members, threshold, recipe, method=method, group=group, note=note)
        tables.append(_per_subject(people, threshold, method))
    with atomic_directory(out) as folder:
        write_metrics(folder, metrics, pd.concat(tables, ignore_index=True))
        save(_examples(pairs, recipe), folder / "examples.png")
        if counted:
            save(_curves(counted), folder / "precision_recall.png")


def _people(pairs: Sequence[tuple[Path, Path]], name: str, recipe: RecipeOptions) -> list[Person]:
    """Smoothed scores of one method, person by person."""
    parts: dict[tuple[str, str], list[tuple[str, NDArray[np.float32], NDArray[np.bool_]]]] = {}
    for inferred, packed in pairs:
        index = read_index(inferred)
        if index.empty:
            continue
        mask, lesion = _truth(packed, index)
        scores = _smoothed(inferred, name, index, mask, recipe)
        for place, (person, split, group) in enumerate(
            zip(index["participant"], index["split"], index["group"], strict=True)
        ):
            inside = mask[place]
            parts.setdefault((split, person), []).append((group, scores[place][inside], lesion[place][inside]))
    return [
        Person(
            id=person,
            group=images[0][0],
            split=split,
            images=len(images),
            scores=np.concatenate([scores for _, scores, _ in images]),
            truth=np.concatenate([truth for _, _, truth in images]),
        )
        for (split, person), images in sorted(parts.items())
    ]


def _truth(packed: Path, index: pd.DataFrame) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Brain and lesion masks ``(N, 1, *spatial)`` of the rows inferred; no lesion file means no lesion."""
    rows = index["row"].to_numpy()
    mask = np.asarray(open_array(packed, "mask")[rows]) > 0
    known = (packed / "lesion.npy").is_file()
    lesion = np.asarray(open_array(packed, "lesion")[rows]) > 0 if known else np.zeros_like(mask)
    return mask, lesion


def _smoothed(
    inferred: Path, name: str, index: pd.DataFrame, mask: NDArray[np.bool_], recipe: RecipeOptions
) -> NDArray[np.float32]:
    maps = np.asarray(open_array(inferred, name), dtype=np.float32)
    sigma = recipe.evaluation.smoothing_mm / voxel_size(index)
    return smooth(maps, mask, sigma)


def _threshold(validation: Sequence[Person]) -> float | None:
    """The threshold of the highest pooled Dice on validation people; None without a lesion among them."""
    if not any(person.truth.any() for person in validation):
        return None
    return Counts.of([p.scores for p in validation], [p.truth for p in validation]).best_threshold()[0]


def _scored(
    people: Sequence[Person], threshold: float | None, recipe: RecipeOptions, *, method: str, group: str, note: str
) -> list[Metric]:
    options = recipe.evaluation
    settings = {"resamples": options.bootstrap, "seed": options.seed}
    images = sum(person.images for person in people)

    def row(name: str, interval: Interval, remark: str = "", n_subjects: int = len(people)) -> Metric:
        remarks = "; ".join(part for part in (remark, note) if part)
        return metric(name, interval, n_subjects=n_subjects, n_images=images, group=group, method=method, note=remarks)

    missing = Interval(float("nan"), None, None)
    healthy = np.array([p.scores[~p.truth].mean() for p in people if not p.truth.all()])
    rows = [row("mean score of healthy brain", bootstrap_mean(healthy, **settings), "in the map's own units")]
    if not any(person.truth.any() for person in people):
        reason = NO_LESION.format(split="test")
        return [*rows, *(row(name, missing, reason) for name in ("pixel AP", "pixel AUROC", "Dice"))]

    counts = Counts.of([p.scores for p in people], [p.truth for p in people])
    scores = np.concatenate([p.scores for p in people])
    truth = np.concatenate([p.truth for p in people])
    for name, exact, resampled in (
        ("pixel AP", average_precision(scores, truth), counts.average_precision),
        ("pixel AUROC", auroc(scores, truth), counts.auroc),
    ):
        spread = bootstrap(resampled, len(people), **settings)
        rows.append(row(name, Interval(exact, spread.low, spread.high)))
    rows.append(row("chance level of pixel AP", Interval(float(truth.mean()), None, None), "share of lesion pixels"))

    def best(weights: Weights) -> NDArray[np.float64]:
        return counts.dice(weights).max(axis=1)

    rows.append(
        row(
            "best achievable Dice",
            bootstrap(best, len(people), **settings),
            "threshold chosen on the test people themselves: an upper bound, not a result",
        )
    )
    if threshold is None:
        return [*rows, row("Dice", missing, NO_THRESHOLD)]
    overlap = np.array([_overlap(person, threshold) for person in people], dtype=np.int64)

    def pooled(weights: Weights) -> NDArray[np.float64]:
        both, size = (weights @ overlap).T
        return np.where(size > 0, 2 * both / np.maximum(size, 1), np.nan)

    chosen = f"threshold {threshold:.4g} chosen on validation people"
    rows.append(row("Dice", bootstrap(pooled, len(people), **settings), f"{chosen}; pixels pooled"))
    with_lesion = [2 * both / size for p, (both, size) in zip(people, overlap, strict=True) if p.truth.any()]
    rows.append(
        row(
            "Dice per person with a lesion",
            bootstrap_mean(np.array(with_lesion), **settings),
            chosen,
            n_subjects=len(with_lesion),
        )
    )
    return rows


def _overlap(person: Person, threshold: float) -> tuple[int, int]:
    """Voxels found that are lesion, and voxels found plus voxels of lesion."""
    found = person.scores >= threshold
    return int((found & person.truth).sum()), int(found.sum()) + int(person.truth.sum())


def _per_subject(people: Sequence[Person], threshold: float | None, method: str) -> pd.DataFrame:
    rows = []
    for person in people:
        lesion = bool(person.truth.any())
        both, size = _overlap(person, threshold) if threshold is not None else (0, 0)
        rows.append(
            {
                "participant": person.id,
                "group": person.group,
                "split": person.split,
                "method": method,
                "images": person.images,
                "lesion_voxels": int(person.truth.sum()),
                "mean_score": float(person.scores.mean()),
                "healthy_mean": float(person.scores[~person.truth].mean()),
                "pixel_ap": average_precision(person.scores, person.truth),
                "pixel_auroc": auroc(person.scores, person.truth),
                "dice": 2 * both / size if lesion and threshold is not None else float("nan"),
            }
        )
    return pd.DataFrame(rows)


def _curves(counted: dict[str, Counts]) -> Figure:
    figure = Figure(figsize=(5.5, 4.2), layout="constrained")
    axis = figure.subplots()
    for method, counts in counted.items():
        true, false = (found[0] for found in counts.found())
        axis.plot(true / true[-1], true / np.maximum(true + false, 1), label=method)
    counts = next(iter(counted.values()))
    prevalence = counts.positives.sum() / (counts.positives.sum() + counts.negatives.sum())
    axis.axhline(prevalence, linestyle=":", color="grey", label="chance: share of lesion pixels")
    axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axis.set_title("Lesion pixels of test people, all methods with the same smoothing", fontsize=9)
    axis.legend(fontsize=7)
    return figure


def _examples(pairs: Sequence[tuple[Path, Path]], recipe: RecipeOptions) -> Figure:
    """Test images with the largest lesions, one a person, then those of most brain."""
    candidates = []
    for chunk, (inferred, packed) in enumerate(pairs):
        index = read_index(inferred)
        if index.empty or index["split"].iloc[0] != "test":
            continue
        mask, lesion = _truth(packed, index)
        for place, person in enumerate(index["participant"]):
            size = int(lesion[place].sum()), int(mask[place].sum())
            candidates.append((size, chunk, place, person))
    chosen: dict[str, tuple[int, int]] = {}
    for _, chunk, place, person in sorted(candidates, key=lambda entry: entry[0], reverse=True):
        chosen.setdefault(person, (chunk, place))
        if len(chosen) == EXAMPLES:
            break
    shown = [(person, *where) for person, where in chosen.items()]
    rows = [_example(pairs[chunk], place, person, recipe) for person, chunk, place in shown]
    lesions = any(size > 0 for (size, _), *_ in candidates)
    return mosaic(rows, "Test people" + (": the red line is the true lesion" if lesions else ""))


def _example(pair: tuple[Path, Path], place: int, person: str, recipe: RecipeOptions) -> Row:
    inferred, packed = pair
    index = read_index(inferred).iloc[[place]]
    mask, lesion = _truth(packed, index)
    at = None
    if lesion.ndim == 5:
        at = int((lesion if lesion.any() else mask)[0, 0].sum(axis=(0, 1)).argmax())
    truth = plane(lesion[0].astype(float), at)

    def tile(image: NDArray[np.floating], title: str, *, contour: bool = False) -> Tile:
        return Tile(plane(image, at), title=title, contour=truth if contour else None)

    def heat(name: str, title: str) -> Tile:
        maps = np.asarray(open_array(inferred, name)[[place]], dtype=np.float32)
        sigma = recipe.evaluation.smoothing_mm / voxel_size(index)
        smoothed = smooth(maps, mask, sigma)[0]
        low, high = np.percentile(smoothed[mask[0]], [1, 99.5])
        shown = np.where(mask[0], smoothed, low)
        return Tile(plane(shown, at), float(low), float(max(high, low + 1e-6)), "inferno", truth, title)

    image = np.asarray(open_array(packed, "data")[int(index["row"].iloc[0])], dtype=np.float32)
    reconstruction = np.asarray(open_array(inferred, "reconstruction")[place], dtype=np.float32)
    return Row(
        [
            tile(image, "scan"),
            tile(reconstruction, "reconstruction"),
            heat("maps", "squared error"),
            heat("baseline_intensity", "baseline: intensity"),
            heat("baseline_asymmetry", "baseline: asymmetry"),
            tile(image, "truth", contour=True),
        ],
        label=person,
    )
