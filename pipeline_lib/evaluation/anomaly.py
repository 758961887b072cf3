"""Do anomaly maps find lesions, and better than what needs no training?

Pixels inside the brain, pooled over people; the floors are computed here, from images smoothed as the maps are. A
threshold is chosen on validation people, for every method its own; the best Dice any threshold reaches on test
people is reported apart and named so. Who has a lesion is what somebody has looked at: a mask, or the word
that there is none. A scan nobody has looked at is not healthy, unless its group is one the model was trained on as such.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.metric import Direction, Metric, Role, joined, write_metrics
from pipeline_lib.files import atomic_directory, read_json
from pipeline_lib.inference.baselines import Standard, excess_map, intensity_map
from pipeline_lib.inference.chunks import matching, open_array, read_index
from pipeline_lib.inference.geometry import affine_of, voxel_size
from pipeline_lib.inference.pictures import plane
from pipeline_lib.inference.refusal import caution
from pipeline_lib.metrics.bootstrap import Interval, Weights, bootstrap
from pipeline_lib.metrics.detection import Counts, auroc, average_precision
from pipeline_lib.metrics.lesions import Components, components
from pipeline_lib.metrics.smoothing import smooth

DIFFUSION = "diffusion"
INTENSITY = "intensity"
ASYMMETRY = "intensity + left-right asymmetry"
CHANCE = "chance: share of lesion pixels"
NO_LESION = "no lesion mask among these people: detection cannot be scored"
NO_THRESHOLD = "no lesion among validation people: a threshold could only be chosen by looking at the test set"
DETECTION = ("pixel AP", "pixel AUROC", "best achievable Dice", "Dice")
BY_HALF = (*DETECTION, "pixel AP per person", "Dice per person")
FEWEST_FOR_HALVES = 8
STANDARD_IMAGES = 500
CURVE_POINTS = 400
EXAMPLES = 6
NAMED = 5

Maps = NDArray[np.float32]
Masks = NDArray[np.bool_]
Scorer = Callable[[Path, Path, pd.DataFrame], Maps]
"""From an inferred chunk, its dataset and the rows wanted to smoothed scores ``(N, 1, *spatial)``."""


@dataclass(frozen=True)
class Person:
    """One person's images under one method: scores and truth of all brain voxels, flat, and image by image."""

    id: str
    group: str
    split: str
    images: int
    scores: NDArray[np.float32]
    truth: NDArray[np.bool_]
    maps: Maps
    mask: Masks
    lesion: Masks
    voxel: float
    unit: str

    @property
    def volume(self) -> float:
        """Size of all lesions in ``unit``: mm³ of volumes, mm² of slices, pixels of pictures."""
        return float(self.truth.sum()) * self.voxel


@dataclass(frozen=True)
class Statistic:
    """A number of weighted people, and what to say of it; two of one name and part can be subtracted."""

    about: Metric
    of: Callable[[Weights], NDArray[np.float64]]
    exact: float | None = None


def evaluate_anomaly(
    recipe: RecipeOptions,
    diffusion: Path,
    inference: list[Path],
    datasets: list[Path],
    train: list[Path],
    out: Path,
) -> None:
    """Score the anomaly maps of validation and test chunks.

    Args:
        recipe: ``evaluation`` says smoothing and resamples; ``data.train_groups`` are the healthy groups.
        diffusion: folder of the trained denoiser, for who was in its training.
        inference: chunk folders of `infer_anomaly`, validation and test.
        datasets: packed chunk folders of the same names.
        train: packed chunk folders of the training split, on which the floors' parts are standardised.
        out: folder for ``metrics.json``, ``metrics.tsv``, ``per_subject.tsv``, ``examples.npz`` and,
            where there are lesions, ``precision_recall.tsv``.

    Raises:
        UserError: there is no test image, a chunk is missing, or people were in training.
    """
    pairs = matching(inference, datasets)
    index = pd.concat([read_index(chunk) for chunk in inference], ignore_index=True)
    if not (index["split"] == "test").any():
        raise UserError("no test image was inferred: put people in the test split or train without them")
    note = joined(
        caution(index, read_json(diffusion / "model.json"), recipe.sampling.allow_trained_people),
        _unknown_people(index, recipe.data.train_groups),
    )

    metrics: list[Metric] = []
    tables: list[pd.DataFrame] = []
    curves: list[pd.DataFrame] = []
    result: list[Statistic] = []
    scorers = _scorers(recipe, train)
    for method, (role, scorer) in scorers.items():
        about = Metric("", None, role=role, method=method, note=note)
        people = _people(pairs, scorer, recipe)
        test = [person for person in people if person.split == "test"]
        threshold = _threshold([person for person in people if person.split == "validation"])
        whole = _statistics(test, threshold, about)
        result = whole if role == "result" else result
        metrics += _levels(whole, about, test, recipe)
        metrics += _differences(result, whole, len(test), recipe) if role != "result" else []
        for group in sorted({person.group for person in test} - {""}):
            members = [person for person in test if person.group == group]
            of_group = replace(about, group=group)
            metrics += _levels(_statistics(members, threshold, of_group), of_group, members, recipe)
        for part, members in _size_halves(test):
            of_half = replace(about, part=part)
            rows = _levels(_statistics(members, threshold, of_half), of_half, members, recipe)
            metrics += [row for row in rows if row.name in BY_HALF and row.part == part]
        if any(person.truth.any() for person in test):
            curves.append(_curve(test, method, role))
        tables.append(_per_subject(people, threshold, method))
    metrics += _chance(test, note)
    with atomic_directory(out) as folder:
        write_metrics(folder, metrics, pd.concat(tables, ignore_index=True))
        _write_examples(folder / "examples.npz", pairs, scorers)
        if curves:
            pd.concat(curves).to_csv(folder / "precision_recall.tsv", sep="\t", index=False)


def lesion_known(index: pd.DataFrame, healthy_groups: Iterable[str]) -> NDArray[np.bool_]:
    """Rows ``(N,)`` of scans somebody has looked at, or of people of a healthy group.

    The column ``lesion`` says ``mask``, ``none`` (looked at, no lesion) or nothing.
    """
    looked_at = index["lesion"].fillna("").astype(str) != ""
    known: NDArray[np.bool_] = (looked_at | index["group"].isin(list(healthy_groups))).to_numpy(dtype=bool)
    return known


def _unknown_people(index: pd.DataFrame, healthy_groups: Sequence[str]) -> str:
    unknown = index[~lesion_known(index, healthy_groups)]
    people = sorted(set(unknown.loc[unknown["split"] == "test", "participant"]))
    if not people:
        return ""
    named = ", ".join(people[:NAMED]) + (f" and {len(people) - NAMED} more" if len(people) > NAMED else "")
    return f"not scored, since nobody said whether they have lesions: {len(people)} test people ({named})"


def _scorers(recipe: RecipeOptions, train: Sequence[Path]) -> dict[str, tuple[Role, Scorer]]:
    """Every method with its role; the model first."""

    def smoothed(maps: Maps, mask: Masks, index: pd.DataFrame) -> Maps:
        return smooth(maps, mask, recipe.evaluation.smoothing_mm / voxel_size(index))

    def model(inferred: Path, packed: Path, index: pd.DataFrame) -> Maps:
        maps = np.asarray(open_array(inferred, "maps")[index.index], dtype=np.float32)
        return smoothed(maps, _brain(packed, index), index)

    def intensity(_: Path, packed: Path, index: pd.DataFrame) -> Maps:
        images = np.asarray(open_array(packed, "data")[index["row"].to_numpy(dtype=int)], dtype=np.float32)
        mask = _brain(packed, index)
        return smoothed(intensity_map(images, mask, modality=recipe.data.modality), mask, index)

    scorers: dict[str, tuple[Role, Scorer]] = {DIFFUSION: ("result", model), INTENSITY: ("floor", intensity)}
    healthy = _healthy(train, recipe.data.train_groups)
    left_right = read_json(train[0] / "layout.json")["left_right"] if train else None
    if not healthy or left_right is None:
        return scorers

    masks = np.concatenate([_brain(chunk, index) for chunk, index in healthy])
    levels = np.concatenate([intensity(chunk, chunk, index) for chunk, index in healthy])
    level = Standard.of(levels, masks)
    excess = Standard.of(excess_map(levels, masks, left_right), masks)

    def asymmetry(inferred: Path, packed: Path, index: pd.DataFrame) -> Maps:
        scores, mask = intensity(inferred, packed, index), _brain(packed, index)
        return np.where(mask, level(scores) + excess(excess_map(scores, mask, left_right)), 0).astype(np.float32)

    return {**scorers, ASYMMETRY: ("floor", asymmetry)}


def _healthy(train: Sequence[Path], groups: Sequence[str]) -> list[tuple[Path, pd.DataFrame]]:
    """Up to `STANDARD_IMAGES` lesion-free training images, evenly spread, chunk by chunk."""
    indices = {chunk: read_index(chunk) for chunk in train}
    free = {
        chunk: index[
            (index["has_lesion"].astype(str).str.lower() != "true")
            & (index["group"].isin(list(groups)) if groups else np.ones(len(index), bool))
        ]
        for chunk, index in indices.items()
    }
    every = max(1, -(-sum(map(len, free.values())) // STANDARD_IMAGES))
    return [(chunk, index.iloc[::every]) for chunk, index in free.items() if len(index)]


def _brain(packed: Path, index: pd.DataFrame) -> Masks:
    return np.asarray(open_array(packed, "mask")[index["row"].to_numpy(dtype=int)]) > 0


def _lesion(packed: Path, index: pd.DataFrame) -> Masks:
    """Lesion masks of the rows; a chunk without the file has none."""
    mask = _brain(packed, index)
    if not (packed / "lesion.npy").is_file():
        return np.zeros_like(mask)
    return mask & (np.asarray(open_array(packed, "lesion")[index["row"].to_numpy(dtype=int)]) > 0)


def _people(pairs: Sequence[tuple[Path, Path]], scorer: Scorer, recipe: RecipeOptions) -> list[Person]:
    """Scores of one method, person by person, of those whose lesions are known."""
    parts: dict[tuple[str, str], list[tuple[str, float, Maps, Masks, Masks, str]]] = {}
    for inferred, packed in pairs:
        index = read_index(inferred)
        index = index[lesion_known(index, recipe.data.train_groups)] if len(index) else index
        if index.empty:
            continue
        mask, lesion, scores = _brain(packed, index), _lesion(packed, index), scorer(inferred, packed, index)
        voxel, unit = voxel_size(index) ** (mask.ndim - 2), _unit_of(index, mask.ndim - 2)
        who = zip(index["participant"], index["split"], index["group"], strict=True)
        for place, (person, split, group) in enumerate(who):
            image = (group, voxel, scores[place], mask[place], lesion[place], unit)
            parts.setdefault((split, person), []).append(image)
    people = []
    for (split, person), images in sorted(parts.items()):
        maps, mask, lesion = (np.stack([image[part] for image in images]) for part in (2, 3, 4))
        people.append(
            Person(
                id=person,
                group=images[0][0],
                split=split,
                images=len(images),
                scores=maps[mask],
                truth=lesion[mask],
                maps=maps,
                mask=mask,
                lesion=lesion,
                voxel=images[0][1],
                unit=images[0][5],
            )
        )
    return people


def _threshold(validation: Sequence[Person]) -> float | None:
    """The threshold of the highest pooled Dice on validation people; None without a lesion among them."""
    if not any(person.truth.any() for person in validation):
        return None
    return Counts.of([p.scores for p in validation], [p.truth for p in validation]).best_threshold()[0]


def _statistics(people: Sequence[Person], threshold: float | None, about: Metric) -> list[Statistic]:
    """Everything that can be said of these people; nothing of detection where nobody has a lesion."""
    found: list[Statistic] = []

    def add_statistic(
        name: str,
        of: Callable[[Weights], NDArray[np.float64]],
        chosen: Sequence[Person] = people,
        remark: str = "",
        *,
        exact: float | None = None,
        direction: Direction = "higher",
        part: str = "",
        unit: str = "",
    ) -> None:
        known = replace(
            about,
            name=name,
            direction=direction,
            unit=unit,
            part=joined(about.part, part),
            people=len(chosen),
            images=sum(person.images for person in chosen),
            note=joined(remark, about.note),
        )
        found.append(Statistic(known, of, exact))

    def mean(values: Sequence[float], chosen: Sequence[Person]) -> Callable[[Weights], NDArray[np.float64]]:
        by_id = dict(zip([person.id for person in chosen], values, strict=True))
        taken = np.array([person.id in by_id for person in people], dtype=np.float64)
        value = np.array([by_id.get(person.id, 0.0) for person in people])
        return lambda weights: _ratio(weights @ (taken * value), weights @ taken)

    partly_healthy = [person for person in people if not person.truth.all()]
    if partly_healthy:
        scores = [float(person.scores[~person.truth].mean()) for person in partly_healthy]
        add_statistic(
            "mean score of healthy brain",
            mean(scores, partly_healthy),
            partly_healthy,
            "in the map's own units",
            direction="neither",
        )
    lesioned = [person for person in people if person.truth.any()]
    if not lesioned:
        return found
    counts = Counts.of([p.scores for p in people], [p.truth for p in people])
    flat, truth = np.concatenate([p.scores for p in people]), np.concatenate([p.truth for p in people])
    add_statistic("pixel AP", counts.average_precision, exact=average_precision(flat, truth))
    add_statistic("pixel AUROC", counts.auroc, exact=auroc(flat, truth))
    add_statistic(
        "best achievable Dice",
        lambda weights: counts.dice(weights).max(axis=1),
        remark="threshold chosen on the test people themselves: an upper bound, not a result",
    )
    each = [average_precision(person.scores, person.truth) for person in lesioned]
    add_statistic("pixel AP per person", mean(each, lesioned), lesioned, "mean over people with a lesion")
    if threshold is None:
        return found

    chosen = f"threshold {threshold:.4g} chosen on validation people"
    overlap = np.array([_overlap(person, threshold) for person in people], dtype=np.float64)
    add_statistic(
        "Dice",
        lambda weights: _ratio(2 * weights @ overlap[:, 0], weights @ overlap[:, 1]),
        remark=f"{chosen}; pixels pooled",
    )
    dice = [2 * both / size for both, size in (_overlap(person, threshold) for person in lesioned)]
    add_statistic("Dice per person", mean(dice, lesioned), lesioned, f"{chosen}; people with a lesion")
    objects = [_objects(person, threshold) for person in people]
    unit = people[0].unit
    limit = float(np.median(np.concatenate([of.lesions for of in objects])))
    for part, low, high in (
        ("", 0.0, np.inf),
        (f"up to {limit:.3g} {unit}", 0.0, limit),
        (f"over {limit:.3g} {unit}", limit, np.inf),
    ):
        hits = np.array([_counted(of.lesions[of.found], low, high) for of in objects], dtype=np.float64)
        all_of = np.array([_counted(of.lesions, low, high) for of in objects], dtype=np.float64)
        false = [float(_counted(of.false, low, high)) for of in objects]
        add_statistic(
            "lesion sensitivity",
            lambda weights, hits=hits, all_of=all_of: _ratio(weights @ hits, weights @ all_of),  # type: ignore[misc]
            remark=f"{chosen}; share of {int(all_of.sum())} lesions touched",
            part=part,
        )
        add_statistic("false detections per person", mean(false, people), remark=chosen, direction="lower", part=part)
    healthy = [person for person in people if not person.truth.any()]
    if healthy:
        size = [float((p.maps[p.mask] >= threshold).sum()) * p.voxel / p.images for p in healthy]
        remark = f"{chosen}; of an image of people without a lesion"
        add_statistic(
            "false-positive size on healthy people", mean(size, healthy), healthy, remark, unit=unit, direction="lower"
        )
    return found


def _levels(
    statistics: Sequence[Statistic], about: Metric, people: Sequence[Person], recipe: RecipeOptions
) -> list[Metric]:
    """Each statistic with its interval, and a row with the reason for each that could not be computed."""
    rows = []
    for statistic in statistics:
        interval = _bootstrap(statistic.of, len(people), recipe)
        value = interval.value if statistic.exact is None else statistic.exact
        rows.append(statistic.about.measured(Interval(value, interval.low, interval.high)))
    names = {row.name for row in rows}
    reason = NO_THRESHOLD if "pixel AP" in names else NO_LESION
    images = sum(person.images for person in people)
    nothing = replace(about, direction="higher", people=len(people), images=images)
    missing = [name for name in DETECTION if name not in names]
    return rows + [replace(nothing, name=name).measured(Interval(float("nan"), None, None), reason) for name in missing]


def _differences(
    result: Sequence[Statistic], others: Sequence[Statistic], people: int, recipe: RecipeOptions
) -> list[Metric]:
    """The result minus another method, for each statistic that has a better side, on the same resampled people."""
    by_name = {(other.about.name, other.about.part): other for other in others}
    rows = []
    for own in result:
        other = by_name.get((own.about.name, own.about.part))
        if other is None or own.about.direction == "neither":
            continue

        def difference(weights: Weights, one: Statistic = own, two: Statistic = other) -> NDArray[np.float64]:
            return one.of(weights) - two.of(weights)

        about = replace(own.about, against=other.about.method)
        rows.append(about.measured(_bootstrap(difference, people, recipe), "paired over people"))
    return rows


def _bootstrap(of: Callable[[Weights], NDArray[np.float64]], people: int, recipe: RecipeOptions) -> Interval:
    return bootstrap(of, people, resamples=recipe.evaluation.bootstrap, seed=recipe.evaluation.seed)


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(below > 0, above / np.where(below > 0, below, 1), np.nan)


def _size_halves(people: Sequence[Person]) -> list[tuple[str, list[Person]]]:
    """People with the smaller and with the larger lesions, apart; nothing where they are few."""
    lesioned = [person for person in people if person.truth.any()]
    if len(lesioned) < FEWEST_FOR_HALVES:
        return []
    limit = float(np.median([person.volume for person in lesioned]))
    unit = lesioned[0].unit
    return [
        (f"people with up to {limit:.3g} {unit} of lesion", [p for p in lesioned if p.volume <= limit]),
        (f"people with over {limit:.3g} {unit} of lesion", [p for p in lesioned if p.volume > limit]),
    ]


def _unit_of(index: pd.DataFrame, dimensions: int) -> str:
    if affine_of(str(index["affine"].iloc[0])) is None:
        return "pixels"
    return "mm³" if dimensions == 3 else "mm²"


def _counted(sizes: NDArray[np.float64], low: float, high: float) -> int:
    return int(((sizes > low) & (sizes <= high)).sum())


def _objects(person: Person, threshold: float) -> Components:
    found = (person.maps >= threshold) & person.mask
    return reduce(
        add, (components(one[0], two[0], person.voxel) for one, two in zip(found, person.lesion, strict=True))
    )


def _overlap(person: Person, threshold: float) -> tuple[int, int]:
    """Voxels found that are lesion, and voxels found plus voxels of lesion."""
    found = person.scores >= threshold
    return int((found & person.truth).sum()), int(found.sum()) + int(person.truth.sum())


def _chance(test: Sequence[Person], note: str) -> list[Metric]:
    if not any(person.truth.any() for person in test):
        return []
    share = float(np.concatenate([person.truth for person in test]).mean())
    counts = {"people": len(test), "images": sum(person.images for person in test)}
    about = Metric("pixel AP", None, role="floor", method=CHANCE, direction="higher", note=note, **counts)  # type: ignore[arg-type]
    return [about.measured(Interval(share, None, None))]


def _per_subject(people: Sequence[Person], threshold: float | None, method: str) -> pd.DataFrame:
    rows = []
    for person in people:
        both, size = _overlap(person, threshold) if threshold is not None else (0, 0)
        scored = bool(person.truth.any()) and threshold is not None
        rows.append(
            {
                "participant": person.id,
                "group": person.group,
                "split": person.split,
                "method": method,
                "images": person.images,
                "lesion_voxels": int(person.truth.sum()),
                "mean_score": float(person.scores.mean()),
                "healthy_mean": float(person.scores[~person.truth].mean()) if not person.truth.all() else float("nan"),
                "pixel_ap": average_precision(person.scores, person.truth),
                "pixel_auroc": auroc(person.scores, person.truth),
                "dice": 2 * both / size if scored else float("nan"),
            }
        )
    return pd.DataFrame(rows)


def _curve(test: Sequence[Person], method: str, role: Role) -> pd.DataFrame:
    """Precision against recall at a few hundred thresholds, and the share of lesion pixels."""
    counts = Counts.of([p.scores for p in test], [p.truth for p in test])
    true, false = (found[0] for found in counts.found())
    places = np.unique(np.linspace(0, len(true) - 1, CURVE_POINTS).round().astype(int))
    recall, precision = true / true[-1], true / np.maximum(true + false, 1)
    chance = true[-1] / (true[-1] + false[-1])
    return pd.DataFrame(
        {"method": method, "role": role, "recall": recall[places], "precision": precision[places], "chance": chance}
    )


def _write_examples(path: Path, pairs: Sequence[tuple[Path, Path]], scorers: dict[str, tuple[Role, Scorer]]) -> None:
    """Test images with the largest lesions, one a person, then those of most brain: what went in and every score."""
    candidates = []
    for chunk, (inferred, packed) in enumerate(pairs):
        index = read_index(inferred)
        if index.empty or index["split"].iloc[0] != "test":
            continue
        mask, lesion = _brain(packed, index), _lesion(packed, index)
        for place, person in enumerate(index["participant"]):
            candidates.append(((int(lesion[place].sum()), int(mask[place].sum())), chunk, place, person))
    chosen: dict[str, tuple[int, int]] = {}
    for _, chunk, place, person in sorted(candidates, key=lambda entry: entry[0], reverse=True):
        if len(chosen) < EXAMPLES:
            chosen.setdefault(person, (chunk, place))
    shown = [_example(pairs[chunk], place, scorers) for chunk, place in chosen.values()]
    arrays = {name: np.stack([example[name] for example in shown]) for name in shown[0]}
    np.savez(path, people=np.array(list(chosen)), methods=np.array(list(scorers)), **arrays)  # type: ignore[arg-type]


def _example(
    pair: tuple[Path, Path], place: int, scorers: dict[str, tuple[Role, Scorer]]
) -> dict[str, NDArray[np.floating]]:
    """2D views of one image; scores ``(methods, H, W)`` are NaN outside the brain."""
    inferred, packed = pair
    index = read_index(inferred).iloc[[place]]
    mask, lesion = _brain(packed, index)[0], _lesion(packed, index)[0]
    at = int((lesion if lesion.any() else mask)[0].sum(axis=(0, 1)).argmax()) if lesion.ndim == 4 else None
    scores = [np.where(mask, scorer(inferred, packed, index)[0], np.nan) for _, scorer in scorers.values()]
    image = np.asarray(open_array(packed, "data")[int(index["row"].iloc[0])], dtype=np.float32)
    reconstruction = np.asarray(open_array(inferred, "reconstruction")[place], dtype=np.float32)
    return {
        "image": plane(image, at),
        "reconstruction": plane(reconstruction, at),
        "scores": np.stack([plane(score, at) for score in scores]),
        "truth": plane(lesion.astype(np.float32), at),
    }
