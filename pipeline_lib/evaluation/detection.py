"""What can be said of a score that is to find lesions: levels, differences to floors, curves, each over people.

Pixels inside the brain are pooled over people, and people are resampled. A threshold is chosen on validation people; the
best Dice any threshold reaches on test people is reported apart and named so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.evaluation.lesioned import Person, objects_of, overlap
from pipeline_lib.evaluation.metric import Direction, Metric, Role, joined
from pipeline_lib.metrics.bootstrap import Interval, Weights, bootstrap
from pipeline_lib.metrics.detection import Counts, auroc, average_precision

CHANCE = "chance: share of lesion pixels"
NO_LESION = "no lesion mask among these people: detection cannot be scored"
NO_THRESHOLD = "no lesion among validation people: a threshold could only be chosen by looking at the test set"
DETECTION = ("pixel AP", "pixel AUROC", "best achievable Dice", "Dice")
BY_HALF = (*DETECTION, "pixel AP per person", "Dice per person")
FEWEST_FOR_HALVES = 8
CURVE_POINTS = 400


@dataclass(frozen=True)
class Statistic:
    """A number of weighted people, and what to say of it; two of one name and part can be subtracted."""

    about: Metric
    of: Callable[[Weights], NDArray[np.float64]]
    exact: float | None = None


def threshold_of(validation: Sequence[Person]) -> float | None:
    """The threshold of the highest pooled Dice on validation people; None without a lesion among them."""
    if not any(person.truth.any() for person in validation):
        return None
    return Counts.of([p.scores for p in validation], [p.truth for p in validation]).best_threshold()[0]


def statistics_of(people: Sequence[Person], threshold: float | None, about: Metric) -> list[Statistic]:
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
    overlaps = np.array([overlap(person, threshold) for person in people], dtype=np.float64)
    add_statistic(
        "Dice",
        lambda weights: _ratio(2 * weights @ overlaps[:, 0], weights @ overlaps[:, 1]),
        remark=f"{chosen}; pixels pooled",
    )
    dice = [2 * both / size for both, size in (overlap(person, threshold) for person in lesioned)]
    add_statistic("Dice per person", mean(dice, lesioned), lesioned, f"{chosen}; people with a lesion")
    objects = [objects_of(person, threshold) for person in people]
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


def levels_of(
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


def differences_of(
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


def size_halves(people: Sequence[Person]) -> list[tuple[str, list[Person]]]:
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


def _counted(sizes: NDArray[np.float64], low: float, high: float) -> int:
    return int(((sizes > low) & (sizes <= high)).sum())


def chance_of(test: Sequence[Person], note: str) -> list[Metric]:
    if not any(person.truth.any() for person in test):
        return []
    share = float(np.concatenate([person.truth for person in test]).mean())
    counts = {"people": len(test), "images": sum(person.images for person in test)}
    about = Metric("pixel AP", None, role="floor", method=CHANCE, direction="higher", note=note, **counts)  # type: ignore[arg-type]
    return [about.measured(Interval(share, None, None))]


def curve_of(test: Sequence[Person], method: str, role: Role) -> pd.DataFrame:
    """Precision against recall at a few hundred thresholds, and the share of lesion pixels."""
    counts = Counts.of([p.scores for p in test], [p.truth for p in test])
    true, false = (found[0] for found in counts.found())
    places = np.unique(np.linspace(0, len(true) - 1, CURVE_POINTS).round().astype(int))
    recall, precision = true / true[-1], true / np.maximum(true + false, 1)
    chance = true[-1] / (true[-1] + false[-1])
    return pd.DataFrame(
        {"method": method, "role": role, "recall": recall[places], "precision": precision[places], "chance": chance}
    )
