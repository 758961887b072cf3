"""Do anomaly maps find lesions, and better than what needs no training?

The floors are computed here, from images smoothed as the maps are. A threshold is chosen on validation people, for every
method its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline_lib.bundle_plan import MARK_SCALE, is_mark
from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.detection import (
    BY_HALF,
    Statistic,
    chance_of,
    curve_of,
    differences_of,
    levels_of,
    size_halves,
    statistics_of,
    threshold_of,
)
from pipeline_lib.evaluation.lesioned import (
    Maps,
    Person,
    Scorer,
    brain_of,
    lesion_of,
    people_of,
    per_subject,
    unknown_people,
)
from pipeline_lib.evaluation.metric import Metric, Role, joined, write_metrics
from pipeline_lib.files import atomic_directory, read_json
from pipeline_lib.imaging.planes import plane
from pipeline_lib.inference.baselines import excess_map
from pipeline_lib.inference.chunks import matching, open_array, read_index
from pipeline_lib.inference.refusal import caution
from pipeline_lib.inference.score import combined, contrasts_of
from pipeline_lib.inference.standards import (
    DIFFUSION,
    FLOORS,
    THRESHOLDS,
    intensity_scores,
    read_standards,
    read_thresholds,
)

INTENSITY = "intensity"
ASYMMETRY = "intensity + left-right asymmetry"
EXAMPLES = 6


def evaluate_anomaly(
    recipe: RecipeOptions,
    diffusion: Path,
    inference: list[Path],
    datasets: list[Path],
    standards: Path,
    out: Path,
) -> None:
    """Score the anomaly maps of validation and test chunks.

    Args:
        recipe: ``evaluation`` says smoothing, score and resamples; ``data.train_groups`` are the healthy groups.
        diffusion: folder of the trained denoiser, for who was in its training.
        inference: chunk folders of `infer_anomaly`, validation and test.
        datasets: packed chunk folders of the same names.
        standards: folder of `measure_standards`, with the units of the floors' parts; of a frozen recipe also with the
            thresholds, which nobody here chooses then.
        out: folder for ``metrics.json``, ``metrics.tsv``, ``per_subject.tsv``, ``examples.npz``, ``thresholds.tsv``
            (a row a method; empty where none has a lesion) and, where there are lesions, ``precision_recall.tsv``.

    Raises:
        UserError: there is no test image, a chunk is missing, or people were in training.
    """
    pairs = matching(inference, datasets)
    index = pd.concat([read_index(chunk) for chunk in inference], ignore_index=True)
    if not (index["split"] == "test").any():
        raise UserError("no test image was inferred: put people in the test split or train without them")
    note = joined(
        caution(index, read_json(diffusion / "model.json"), recipe.sampling.allow_trained_people),
        unknown_people(index, recipe.data.train_groups),
    )

    metrics: list[Metric] = []
    tables: list[pd.DataFrame] = []
    curves: list[pd.DataFrame] = []
    result: list[Statistic] = []
    scorers = _scorers(recipe, standards, datasets)
    given = read_thresholds(standards)
    thresholds: list[dict[str, object]] = []
    for method, (role, scorer) in scorers.items():
        about = Metric("", None, role=role, method=method, note=note)
        people = people_of(pairs, scorer, recipe)
        test = [person for person in people if person.split == "test"]
        threshold = threshold_of([p for p in people if p.split == "validation"]) if given is None else given.get(method)
        scale = MARK_SCALE if role == "result" and is_mark(recipe.evaluation.score.weights) else ""
        thresholds.append({"method": method, "role": role, "threshold": threshold, "scale": scale})
        whole = statistics_of(test, threshold, about)
        result = whole if role == "result" else result
        metrics += levels_of(whole, about, test, recipe)
        metrics += differences_of(result, whole, len(test), recipe) if role != "result" else []
        parts = [part for person in test for part in person.by_group().items()]
        for group in sorted({group for group, _ in parts} - {""}):
            members = [person for name, person in parts if name == group]
            of_group = replace(about, group=group)
            metrics += levels_of(statistics_of(members, threshold, of_group), of_group, members, recipe)
        for part, members in [*_by_contrast(pairs, scorer, recipe), *size_halves(test)]:
            of_half = replace(about, part=part)
            rows = levels_of(statistics_of(members, threshold, of_half), of_half, members, recipe)
            metrics += [row for row in rows if row.name in BY_HALF and row.part == part]
        if any(person.truth.any() for person in test):
            curves.append(curve_of(test, method, role))
        tables.append(per_subject(people, threshold, method))
    metrics += chance_of(test, note)
    with atomic_directory(out) as folder:
        write_metrics(folder, metrics, pd.concat(tables, ignore_index=True))
        pd.DataFrame(thresholds).to_csv(folder / THRESHOLDS, sep="\t", index=False)
        _write_examples(folder / "examples.npz", pairs, scorers)
        if curves:
            pd.concat(curves).to_csv(folder / "precision_recall.tsv", sep="\t", index=False)


def _by_contrast(
    pairs: Sequence[tuple[Path, Path]], scorer: Scorer, recipe: RecipeOptions
) -> list[tuple[str, list[Person]]]:
    """Test people with their scans of each of several contrasts, apart."""
    several = recipe.data.modalities if len(recipe.data.modalities) > 1 else ()
    found = {contrast: people_of(pairs, scorer, recipe, contrast) for contrast in several}
    return [(contrast, [person for person in people if person.split == "test"]) for contrast, people in found.items()]


def _scorers(recipe: RecipeOptions, standards: Path, datasets: Sequence[Path]) -> dict[str, tuple[Role, Scorer]]:
    """Every method with its role; the model first, whose maps are smoothed already."""

    def model(inferred: Path, _: Path, index: pd.DataFrame) -> Maps:
        return np.asarray(open_array(inferred, "maps")[index.index], dtype=np.float32)

    def intensity(_: Path, packed: Path, index: pd.DataFrame) -> Maps:
        return intensity_scores(recipe, packed, index)

    scorers: dict[str, tuple[Role, Scorer]] = {DIFFUSION: ("result", model), INTENSITY: ("floor", intensity)}
    units = read_standards(standards, FLOORS)
    if not units:
        return scorers
    left_right = read_json(datasets[0] / "layout.json")["left_right"]

    def asymmetry(inferred: Path, packed: Path, index: pd.DataFrame) -> Maps:
        scores, mask = intensity(inferred, packed, index), brain_of(packed, index)
        parts = {"level": scores, "excess": excess_map(scores, mask, left_right)}
        return combined(parts, mask, dict.fromkeys(parts, 1.0), units, contrasts_of(recipe, index))

    return {**scorers, ASYMMETRY: ("floor", asymmetry)}


def _write_examples(path: Path, pairs: Sequence[tuple[Path, Path]], scorers: dict[str, tuple[Role, Scorer]]) -> None:
    """Test images with the largest lesions, one a person, then those of most brain: what went in and every score."""
    candidates = []
    for chunk, (inferred, packed) in enumerate(pairs):
        index = read_index(inferred)
        if index.empty or index["split"].iloc[0] != "test":
            continue
        mask, lesion = brain_of(packed, index), lesion_of(packed, index)
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
    mask, lesion = brain_of(packed, index)[0], lesion_of(packed, index)[0]
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
