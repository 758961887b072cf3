"""Generated images against real ones: how far they are from people the model has not seen, and whether they are copies.

Shared by the tasks that make new images. Distances are to held-out people. Beside them stand the *floor*, one random
half of the held-out people against the other, and, as a *reference*, the training images themselves: a model
that only gives back its training set reaches that. The distance to the training set is reported apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline_lib.config.schema import EvaluationOptions, RecipeOptions
from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.features import SegmenterFeatures, feature_network
from pipeline_lib.evaluation.metric import Direction, Metric, joined
from pipeline_lib.files import read_json
from pipeline_lib.imaging.planes import abreast, ortho
from pipeline_lib.inference.chunks import open_array, read_indices
from pipeline_lib.inference.refusal import caution
from pipeline_lib.inference.segmenter import load_segmenter
from pipeline_lib.metrics.bootstrap import Interval, bootstrap_mean, half_sampling, halves
from pipeline_lib.metrics.distribution import (
    FeatureNetwork,
    Features,
    extract,
    frechet_distance,
    kernel_distance,
    manifolds,
    standardised,
)
from pipeline_lib.metrics.memorisation import Gallery, Nearest, by_person, drawn, suspicious_similarity

FLOOR = "held-out people, half against half"
TRAINING = "training images"
HELD_OUT = "held-out people"
SPLITS = 50
FEWEST = 4
MOST = 2000
"""Training images that set distances are taken to."""
MOST_LOOKED_UP = 400
"""Images of a set that are looked up among the training images."""
NEIGHBOURS = 5
SHOWN = 8

Measure = Callable[[Features, Features], Mapping[str, float]]


class Stored:
    """Images ``(N, C, *spatial)`` of several chunks, read when asked for by a slice or an array of places."""

    def __init__(self, chunks: Sequence[Path], rows: NDArray[np.bool_]) -> None:
        arrays = [open_array(chunk, "data") for chunk in chunks]
        self._arrays = arrays
        places = [(number, row) for number, array in enumerate(arrays) for row in range(len(array))]
        self._places = np.array(places, dtype=np.int64).reshape(-1, 2)[rows]
        self.shape = (len(self._places), *arrays[0].shape[1:])

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, rows: slice | NDArray[np.integer]) -> NDArray[np.float32]:
        chosen = [self._arrays[number][row] for number, row in self._places[rows]]
        return np.stack(chosen).astype(np.float32) if chosen else np.empty((0, *self.shape[1:]), np.float32)


@dataclass(frozen=True)
class Real:
    """Real images with their index, and their features ``(N, D)``."""

    index: pd.DataFrame
    images: Stored
    features: Features

    @property
    def people(self) -> NDArray[np.str_]:
        """Whose image each is, ``(N,)``."""
        return self.index["participant"].to_numpy(dtype=str)


def read_real(chunks: Sequence[Path], network: FeatureNetwork, only_groups: Sequence[str]) -> Real:
    """All images of the chunks that belong to ``only_groups`` (empty: all groups).

    Raises:
        UserError: there is none.
    """
    index = read_indices(chunks) if chunks else pd.DataFrame()
    if index.empty:
        names = ", ".join(chunk.name for chunk in chunks) or "no chunk given"
        raise UserError(f"no real image to compare samples with ({names}): put people in every split")
    rows = np.ones(len(index), dtype=bool)
    if only_groups:
        rows = index["group"].isin(list(only_groups)).to_numpy()
    if not rows.any():
        raise UserError(f"no held-out image of the groups {', '.join(only_groups)}: put such people in every split")
    images = Stored(chunks, rows)
    return Real(index[rows].reset_index(drop=True), images, extract(network, images))  # type: ignore[arg-type]


def read_samples(folder: Path) -> pd.DataFrame:
    """What each sample was told, as text, a row a sample; see `sampling.write_samples`.

    Raises:
        UserError: there are not as many rows as samples.
    """
    table = pd.read_csv(folder / "samples.tsv", sep="\t", dtype=str, keep_default_na=False)
    number = len(np.load(folder / "samples.npy", mmap_mode="r"))
    if len(table) != number:
        raise UserError(f"{folder}: {number} samples but {len(table)} rows in samples.tsv; sample again")
    return table


def real_sets(
    recipe: RecipeOptions, diffusion: Path, train: Sequence[Path], held_out: Sequence[Path]
) -> tuple[FeatureNetwork, Real | None, Real, str]:
    """The feature network, training images and held-out images of a recipe, and a note where these were trained on.

    A frozen recipe has no training images here.

    Raises:
        UserError: there is no image, or held-out people were in training, or in that of the segmenter that gives features.
    """
    data = recipe.data
    network = feature_network(recipe.evaluation.features, dimensions=data.dimensions, channels=data.channels)
    if isinstance(network, SegmenterFeatures):
        seen_too = recipe.sampling.allow_trained_people
        load_segmenter(recipe.evaluation.features, held_out, allow_trained=seen_too, option="features")
    known = read_real(train, network, data.train_groups) if train else None
    other = read_real(held_out, network, data.train_groups)
    note = caution(other.index, read_json(diffusion / "model.json"), recipe.sampling.allow_trained_people)
    return network, known, other, note


class Yardstick:
    """Real people of one group, against which sets of samples are measured, always in equal number.

    Values are means over random halves of the held-out people, intervals mean +- 1.96 standard deviations over them
    (half-sampling). A half's people are the same for every set, so differences between sets are paired.
    """

    def __init__(
        self,
        train: Real | None,
        held_out: Real,
        samples: int,
        network: FeatureNetwork,
        seed: int,
        *,
        group: str,
        note: str,
    ) -> None:
        """Measure the real sets.

        Args:
            train: None where the training images are not here; features are then in units of the held-out ones.
            samples: how many samples each set to be measured has.
            group: of which people; ``all``: everybody.
        """
        self.seed, self.number = seed, 0
        others = _of_group(held_out, group)
        learned = held_out.features[:0] if train is None else train.features[_of_group(train, group)]
        self._scale = (held_out.features[others] if train is None else learned) if network.standardise else None
        known, unseen = self._scaled(learned), self._scaled(held_out.features[others])
        people = held_out.people[others]
        names = np.unique(people)
        kind = network.name + (", standardised" if network.standardise else "")
        self._about = Metric("", None, direction="lower", group=group, split="held-out", note=note)
        if len(names) >= FEWEST:
            self._halves = [
                (np.flatnonzero(np.isin(people, names[one])), np.flatnonzero(np.isin(people, names[other])))
                for one, other in halves(len(names), SPLITS, seed)
            ]
            smallest = min(len(part) for pair in self._halves for part in pair)
            self.number = min(smallest, samples, smallest if train is None else len(known))
        if self.number < FEWEST:
            self._note = (
                f"{kind}: {len(unseen)} held-out images of {len(names)} people, {len(known)} training images: {FEWEST} "
                f"people, and {FEWEST} images or more of each half of them, are needed"
            )
            return
        rng = np.random.default_rng(seed)
        self._unseen, self._people, self._images = unseen, len(names), len(unseen)
        self._known = known[np.sort(rng.permutation(len(known))[:MOST])]
        self._note = f"{kind}; N = {self.number} against halves of {len(names)} held-out people ({len(unseen)} images)"
        self._to_training = f"{kind}; N = {self.number} against {len(self._known)} training images"
        self._floor = self._values(lambda half, rng: self._some(unseen[half], rng), to_held_out)
        self._reference, self._near_training = {}, {}
        if train is not None:
            self._reference = self._values(lambda half, rng: self._some(known, rng), to_held_out)
            self._near_training = self._values(lambda half, rng: self._some(unseen[half], rng), to_training)

    def real(self) -> list[Metric]:
        """The floor and the reference of every measure."""
        if self.number < FEWEST:
            return []
        counts = {"people": self._people, "images": self.number}
        floor = replace(self._about, role="floor", method=FLOOR, **counts)  # type: ignore[arg-type]
        training = replace(self._about, role="reference", method=TRAINING, images=self.number)
        near = replace(self._about, role="reference", method=HELD_OUT, direction="neither", **counts)  # type: ignore[arg-type]
        return [
            *self._rows(self._floor, floor, self._note),
            *self._rows(self._reference, training, f"{self._note}; what copies of the training set would reach"),
            *self._rows(self._near_training, near, self._to_training),
        ]

    def measure(self, samples: Features, template: Metric) -> list[Metric]:
        """Every measure of samples ``(N, D)``, and for a result its differences to the floor and the references.

        Args:
            template: says method, role and step.
        """
        about = replace(self._about, method=template.method, role=template.role, step=template.step)
        if self.number < FEWEST:
            nothing = Interval(float("nan"), None, None)
            return [replace(about, name=name).measured(nothing, self._note) for name in ("FID", "KID")]
        scaled = self._scaled(samples)
        own = replace(about, images=self.number)
        to_held = self._values(lambda half, rng: self._some(scaled, rng), to_held_out)
        to_train = self._values(lambda half, rng: self._some(scaled, rng), to_training) if len(self._known) else {}
        rows = self._rows(to_held, own, self._note)
        apart = replace(own, direction="neither")
        rows += self._rows(to_train, apart, f"{self._to_training}; small for copies, so not a goal")
        if template.role == "result":
            for values, against in ((self._floor, FLOOR), (self._reference, TRAINING)):
                paired = replace(own, against=against, people=self._people)
                difference = {name: to_held[name] - value for name, value in values.items()}
                rows += self._rows(difference, paired, f"{self._note}; paired over halves")
        return rows

    def _some(self, features: Features, rng: np.random.Generator) -> Features:
        return features[rng.permutation(len(features))[: self.number]]

    def _scaled(self, features: Features) -> Features:
        return features if self._scale is None else standardised(features, self._scale)

    def _values(
        self, draw: Callable[[NDArray[np.intp], np.random.Generator], Features], measure: Measure
    ) -> dict[str, NDArray[np.float64]]:
        """Every number of a measure over the halves, ``(SPLITS,)`` each; a set is drawn given its half of the people."""
        found = []
        for number, (one, other) in enumerate(self._halves):
            rng = np.random.default_rng((self.seed, number))
            reference = self._known if measure is to_training else self._unseen[other]
            found.append(measure(draw(one, rng), reference))
        return {name: np.array([values[name] for values in found]) for name in found[0]}

    def _rows(self, values: Mapping[str, NDArray[np.float64]], about: Metric, note: str) -> list[Metric]:
        rows = []
        for name, of_halves in values.items():
            row = replace(about, name=name, direction=DIRECTIONS.get(name, about.direction))
            rows.append(row.measured(half_sampling(of_halves, self._people), note))
        return rows


def _of_group(real: Real, group: str) -> NDArray[np.bool_]:
    """Rows of one group; ``all``: every row."""
    rows: NDArray[np.bool_] = (real.index["group"] == group).to_numpy()
    return np.ones(len(real.index), bool) if group == "all" else rows


DIRECTIONS: dict[str, Direction] = {
    "precision": "higher",
    "recall": "higher",
    "density": "higher",
    "coverage": "higher",
}


def to_held_out(features: Features, real: Features) -> dict[str, float]:
    """FID, KID and, where there are enough images, precision, recall, density and coverage."""
    found = {"FID": frechet_distance(features, real), "KID": kernel_distance(features, real)}
    if min(len(features), len(real)) > NEIGHBOURS:
        found |= vars(manifolds(real, features, NEIGHBOURS))
    return found


def to_training(features: Features, real: Features) -> dict[str, float]:
    """FID and KID under names of their own."""
    return {
        "FID to training images": frechet_distance(features, real),
        "KID to training images": kernel_distance(features, real),
    }


class Memory:
    """The training set in which samples are looked up, and how often held-out people would be taken for copies."""

    def __init__(self, train: Real, held_out: Real, options: EvaluationOptions, note: str) -> None:
        self.train, self.options, self.note = train, options, note
        people = list(train.people)
        self.gallery = Gallery(train.images, people)  # type: ignore[arg-type]
        self.threshold = suspicious_similarity(self.gallery, train.images, MOST_LOOKED_UP, options.seed)  # type: ignore[arg-type]
        self.rows = drawn(held_out.people, MOST_LOOKED_UP, options.seed)
        self.index = held_out.index.iloc[self.rows].reset_index(drop=True)
        self.held_out = self.gallery.nearest(held_out.images[self.rows])
        self._flagged = by_person(self.held_out.similarity, held_out.people[self.rows]) > self.threshold

    def look_up(self, samples: NDArray[np.floating]) -> Nearest:
        """The training image most like each of the first samples."""
        return self.gallery.nearest(samples[:MOST_LOOKED_UP])

    def real(self) -> list[Metric]:
        """The share among held-out people, any of whose images counts."""
        about = self._about(Metric("", None, role="reference", method=HELD_OUT, split="held-out"))
        about = replace(about, people=len(self._flagged), images=len(self.rows))
        note = "people any of whose images is suspected: what is to be expected of images that are no copies"
        return [about.measured(self._share(self._flagged), note)]

    def measure(self, near: Nearest, template: Metric) -> list[Metric]:
        """The share of suspected copies, and for a result its ratio to held-out images and whom it copies."""
        flagged = near.similarity > self.threshold
        about = replace(self._about(template), images=len(flagged))
        share = about.measured(self._share(flagged), "interval over samples")
        if template.role != "result":
            return [share]
        expected = float((self.held_out.similarity > self.threshold).mean())
        ratio = float(flagged.mean()) / expected if expected > 0 else float("nan")
        images = f"{expected:.1%} of {len(self.rows)} held-out images" if expected > 0 else "no held-out image"
        copied = set(self.train.people[near.row[flagged]])
        known = len(set(self.train.people))
        told = f"{len(copied)} of {known} training people have a suspected copy"
        return [
            share,
            replace(about, name="suspected copies, samples over held-out images", unit="").measured(
                Interval(ratio, None, None), f"image by image: {images} suspected"
            ),
            replace(about, name="training people with a suspected copy", people=known).measured(
                Interval(len(copied) / known, None, None), told
            ),
        ]

    def _about(self, template: Metric) -> Metric:
        note = joined(
            f"more like a training image (aligned, similarity over {self.threshold:.3f}) than training people are like each other",
            self.note,
        )
        return replace(template, name="share of suspected copies", direction="lower", note=note)

    def _share(self, flagged: NDArray[np.bool_]) -> Interval:
        return bootstrap_mean(flagged.astype(float), resamples=self.options.bootstrap, seed=self.options.seed)


def along_training(samples: Path) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Step and images of every kept checkpoint, from ``step-XXXXXXXX/samples.npy``."""
    for path in sorted(samples.glob("step-*/samples.npy")):
        yield int(path.parent.name.removeprefix("step-")), np.load(path, mmap_mode="r")


def write_copies(
    folder: Path, ids: Sequence[str], samples: NDArray[np.floating], near: Nearest, memory: Memory
) -> None:
    """Write ``nearest.tsv``, most similar first, and the first pairs as pictures in ``nearest.npz``."""
    order = np.argsort(-near.similarity, kind="stable")
    rows = memory.train.index.iloc[near.row[order]]
    pd.DataFrame(
        {
            "sample": [ids[place] for place in order],
            "nearest_scan": rows["scan"].to_numpy(),
            "slice": rows["slice"].to_numpy(),
            "similarity": near.similarity[order],
            "suspected_copy": near.similarity[order] > memory.threshold,
        }
    ).to_csv(folder / "nearest.tsv", sep="\t", index=False)
    first = order[: abreast(samples, SHOWN)]
    np.savez(
        folder / "nearest.npz",
        sample=np.stack([ortho(samples[place]) for place in first]),
        training=np.stack([ortho(image) for image in memory.train.images[near.row[first]]]),
        similarity=near.similarity[first],
        typical=np.median(memory.held_out.similarity),
    )


def no_memory(result: Metric) -> list[Metric]:
    """What is said of copies where the training images are not here."""
    note = "the training images did not travel with the model: what its card says of copies was looked for where it was trained"
    about = replace(result, name="share of suspected copies", direction="lower")
    return [about.measured(Interval(float("nan"), None, None), note)]


def held_out_table(memory: Memory | None, held_out: Real) -> pd.DataFrame:
    """A row a held-out person: how like the training set their images naturally are, where that is here."""
    index = held_out.index if memory is None else memory.index
    table = index[["participant", "group", "split"]].copy()
    table["similarity"] = np.nan if memory is None else memory.held_out.similarity
    people = table.groupby(["participant", "group", "split"], as_index=False)
    return people.agg(images=("similarity", "size"), similarity=("similarity", "max"))
