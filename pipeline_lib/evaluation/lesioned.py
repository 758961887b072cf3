"""People with their scores and with what is known of their lesions.

Who has a lesion is what somebody has looked at: a mask, or the word that there is none. A scan nobody has looked at is
not healthy, unless its group is one the model was trained on as such.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from operator import add
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.inference.chunks import open_array, read_index
from pipeline_lib.inference.geometry import affine_of, voxel_size
from pipeline_lib.inference.score import contrasts_of
from pipeline_lib.metrics.detection import auroc, average_precision
from pipeline_lib.metrics.lesions import Components, components

NAMED = 5
Maps = NDArray[np.float32]
Masks = NDArray[np.bool_]
Scorer = Callable[[Path, Path, pd.DataFrame], Maps]
"""From an inferred chunk, its dataset and the rows wanted to smoothed scores ``(N, 1, *spatial)``."""


@dataclass(frozen=True)
class Person:
    """One person's images under one method, ``(N, 1, *spatial)``, with the group of each: sessions may be of two."""

    id: str
    split: str
    groups: tuple[str, ...]
    maps: Maps
    mask: Masks
    lesion: Masks
    voxel: float
    unit: str

    @property
    def images(self) -> int:
        """How many there are."""
        return len(self.maps)

    @cached_property
    def scores(self) -> NDArray[np.float32]:
        """Of all brain voxels, flat."""
        return self.maps[self.mask]

    @cached_property
    def truth(self) -> NDArray[np.bool_]:
        """Where these are lesion."""
        return self.lesion[self.mask]

    def by_group(self) -> dict[str, Person]:
        """The images of each group apart."""
        names = dict.fromkeys(self.groups)
        if len(names) == 1:
            return dict.fromkeys(names, self)
        return {name: self._of(np.array(self.groups) == name) for name in names}

    def _of(self, rows: NDArray[np.bool_]) -> Person:
        groups = tuple(group for group, kept in zip(self.groups, rows, strict=True) if kept)
        return replace(self, groups=groups, maps=self.maps[rows], mask=self.mask[rows], lesion=self.lesion[rows])

    @property
    def volume(self) -> float:
        """Size of all lesions in ``unit``: mm³ of volumes, mm² of slices, pixels of pictures."""
        return float(self.truth.sum()) * self.voxel


def lesion_known(index: pd.DataFrame, healthy_groups: Iterable[str]) -> NDArray[np.bool_]:
    """Rows ``(N,)`` of scans somebody has looked at, or of people of a healthy group.

    The column ``lesion`` says ``mask``, ``none`` (looked at, no lesion) or nothing.
    """
    looked_at = index["lesion"].fillna("").astype(str) != ""
    known: NDArray[np.bool_] = (looked_at | index["group"].isin(list(healthy_groups))).to_numpy(dtype=bool)
    return known


def unknown_people(index: pd.DataFrame, healthy_groups: Sequence[str]) -> str:
    unknown = index[~lesion_known(index, healthy_groups)]
    people = sorted(set(unknown.loc[unknown["split"] == "test", "participant"]))
    if not people:
        return ""
    named = ", ".join(people[:NAMED]) + (f" and {len(people) - NAMED} more" if len(people) > NAMED else "")
    return f"not scored, since nobody said whether they have lesions: {len(people)} test people ({named})"


def brain_of(packed: Path, index: pd.DataFrame) -> Masks:
    return np.asarray(open_array(packed, "mask")[index["row"].to_numpy(dtype=int)]) > 0


def lesion_of(packed: Path, index: pd.DataFrame) -> Masks:
    """Lesion masks of the rows; a chunk without the file has none."""
    mask = brain_of(packed, index)
    if not (packed / "lesion.npy").is_file():
        return np.zeros_like(mask)
    return mask & (np.asarray(open_array(packed, "lesion")[index["row"].to_numpy(dtype=int)]) > 0)


def people_of(
    pairs: Sequence[tuple[Path, Path]], scorer: Scorer, recipe: RecipeOptions, contrast: str = ""
) -> list[Person]:
    """Scores of one method, person by person, of those whose lesions are known; of several contrasts, all or one."""
    parts: dict[tuple[str, str], list[tuple[str, float, Maps, Masks, Masks, str]]] = {}
    for inferred, packed in pairs:
        index = read_index(inferred)
        index = index[lesion_known(index, recipe.data.train_groups)] if len(index) else index
        index = index[contrasts_of(recipe, index) == contrast] if contrast else index
        if index.empty:
            continue
        mask, lesion, scores = brain_of(packed, index), lesion_of(packed, index), scorer(inferred, packed, index)
        voxel, unit = voxel_size(index) ** (mask.ndim - 2), _unit_of(index, mask.ndim - 2)
        who = zip(index["participant"], index["split"], index["group"], strict=True)
        for place, (person, split, group) in enumerate(who):
            image = (group, voxel, scores[place], mask[place], lesion[place], unit)
            parts.setdefault((split, person), []).append(image)
    people = []
    for (split, person), images in sorted(parts.items()):
        groups = tuple(image[0] for image in images)
        maps, mask, lesion = (np.stack([image[part] for image in images]) for part in (2, 3, 4))
        people.append(Person(person, split, groups, maps, mask, lesion, voxel=images[0][1], unit=images[0][5]))
    return people


def _unit_of(index: pd.DataFrame, dimensions: int) -> str:
    if affine_of(str(index["affine"].iloc[0])) is None:
        return "pixels"
    return "mm³" if dimensions == 3 else "mm²"


def overlap(person: Person, threshold: float) -> tuple[int, int]:
    """Voxels found that are lesion, and voxels found plus voxels of lesion."""
    found = person.scores >= threshold
    return int((found & person.truth).sum()), int(found.sum()) + int(person.truth.sum())


def objects_of(person: Person, threshold: float) -> Components:
    found = (person.maps >= threshold) & person.mask
    return reduce(
        add, (components(one[0], two[0], person.voxel) for one, two in zip(found, person.lesion, strict=True))
    )


def per_subject(people: Sequence[Person], threshold: float | None, method: str) -> pd.DataFrame:
    """A row a person and group of theirs."""
    rows = []
    for group, person in (part for each in people for part in each.by_group().items()):
        both, size = overlap(person, threshold) if threshold is not None else (0, 0)
        scored = bool(person.truth.any()) and threshold is not None
        rows.append(
            {
                "participant": person.id,
                "group": group,
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
