"""Generated images against training images, with held-out real images as the yardstick.

Shared by the recipes that make new images. Three things are always said together: how far the
samples are from the training set, how far other real people are (the floor), and whether samples
are copies of training images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline_lib.config.schema import EvaluationOptions
from pipeline_lib.errors import UserError
from pipeline_lib.inference.chunks import images_of, read_indices
from pipeline_lib.inference.pictures import Row, Tile, mosaic, plane
from pipeline_lib.metrics.bootstrap import Interval, half_sampling
from pipeline_lib.metrics.distribution import (
    Features,
    RandomConvFeatures,
    extract,
    frechet_distance,
    kernel_distance,
    standardised,
)
from pipeline_lib.metrics.memorisation import Nearest, closeness_ratio, nearest, reduced, suspicious
from pipeline_lib.metrics.table import Metric, metric

DISTANCES = {"FID": frechet_distance, "KID": kernel_distance}
FLOOR = "floor: held-out real images"
HALVES = 100
FEWEST = 4


@dataclass(frozen=True)
class Real:
    """Real images ``(N, C, *spatial)`` with their index, features ``(N, D)`` and reduced images."""

    index: pd.DataFrame
    images: NDArray[np.float32]
    features: Features
    small: NDArray[np.float32]

    def where(self, rows: NDArray[np.bool_]) -> Real:
        """Those rows only."""
        return Real(self.index[rows].reset_index(drop=True), self.images[rows], self.features[rows], self.small[rows])

    @property
    def people(self) -> int:
        return int(self.index["participant"].nunique())


def read_real(chunks: Sequence[Path], network: RandomConvFeatures, only_groups: Sequence[str]) -> Real:
    """All images of the chunks that belong to ``only_groups`` (empty: all groups).

    Raises:
        UserError: there is none.
    """
    index = read_indices(chunks) if chunks else pd.DataFrame()
    if index.empty:
        names = ", ".join(chunk.name for chunk in chunks) or "no chunk given"
        raise UserError(f"no real image to compare samples with ({names}): put people in every split")
    images = images_of(chunks)
    if only_groups:
        rows = index["group"].isin(list(only_groups)).to_numpy()
        index, images = index[rows].reset_index(drop=True), images[rows]
    if index.empty:
        raise UserError(f"no held-out image of the groups {', '.join(only_groups)}: put such people in every split")
    return Real(index, images, extract(network, images), reduced(images))


def distances(
    samples: Features,
    train: Real,
    held_out: Real,
    network: str,
    options: EvaluationOptions,
    *,
    method: str,
    group: str = "all",
    note: str = "",
) -> list[Metric]:
    """FID and KID of samples to the training set, and of held-out real images to the same set.

    Samples and held-out images are compared in equal number, since FID grows as N falls. Features are
    in units of the training set's standard deviation. Intervals: by half-sampling images of the
    samples, and people of the held-out set.
    """
    number = min(len(samples), len(held_out.features))
    about = f"{network}, standardised; N = {number} against {len(train.features)} training images"
    about = f"{about} of {train.people} people"
    if number < FEWEST or len(train.features) < FEWEST:
        reason = _joined(f"{about}: {FEWEST} images or more are needed on each side", note)
        nothing = Interval(float("nan"), None, None)
        return [metric(name, nothing, n_images=number, group=group, method=method, note=reason) for name in DISTANCES]
    rng = np.random.default_rng(options.seed)
    taken = rng.permutation(len(samples))[:number]
    real_taken = np.sort(rng.permutation(len(held_out.features))[:number])
    reference = standardised(train.features, train.features)
    generated = standardised(samples[taken], train.features)
    real = standardised(held_out.features[real_taken], train.features)
    people = held_out.index["participant"].to_numpy(dtype=str)[real_taken]
    rows = []
    for name, distance in DISTANCES.items():
        rows.append(
            metric(
                name,
                _halved(distance, generated, np.arange(number).astype(str), reference, options.seed),
                n_images=number,
                group=group,
                method=method,
                note=_joined(f"{about}; interval over samples", note),
            )
        )
        rows.append(
            metric(
                name,
                _halved(distance, real, people, reference, options.seed),
                n_subjects=len(set(people)),
                n_images=number,
                group=group,
                split="held-out",
                method=FLOOR,
                note=_joined(f"{about}; interval over people", note),
            )
        )
    return rows


def _halved(
    distance: Callable[[Features, Features], float],
    features: Features,
    units: NDArray[np.str_],
    reference: Features,
    seed: int,
) -> Interval:
    """The distance to the reference with its interval over halves of the units (people or samples)."""
    names = np.unique(units)

    def of(chosen: NDArray[np.intp]) -> float:
        return distance(features[np.isin(units, names[chosen])], reference)

    return half_sampling(of, len(names), resamples=HALVES, seed=seed)


@dataclass(frozen=True)
class Memory:
    """Nearest training images of samples and of held-out real images, and what to report of them."""

    samples: Nearest
    held_out: Nearest
    metrics: list[Metric]


def memorisation(samples: NDArray[np.floating], train: Real, held_out: Real, method: str, note: str) -> Memory:
    """Compare how near samples and held-out real images come to the training set."""
    near, real = nearest(reduced(samples), train.small), nearest(held_out.small, train.small)
    copies = suspicious(near, real)
    about: dict[str, str | int] = {"n_images": len(samples), "n_subjects": train.people, "method": method}
    ratio = Interval(closeness_ratio(near, real), None, None)
    share = Interval(float(copies.mean()), None, None)
    return Memory(
        near,
        real,
        [
            metric(
                "nearest-training-image ratio",
                ratio,
                note=_joined("median distance of samples to training over that of held-out images; 1: no copies", note),
                **about,
            ),
            metric(
                "share of suspected copies",
                share,
                note=_joined("nearer to a training image than half the 1st percentile of held-out images", note),
                **about,
            ),
        ],
    )


def closest_pairs(samples: NDArray[np.floating], train: Real, memory: Memory, most: int = 8) -> Figure:
    """The samples most like a training image, above that image and their difference."""
    chosen = np.argsort(memory.samples.distance, kind="stable")[:most]
    rows: list[list[Tile]] = [[], [], []]
    for place in chosen:
        sample, real = plane(samples[place]), plane(train.images[memory.samples.row[place]])
        rows[0].append(Tile(sample, title=f"RMS {memory.samples.distance[place]:.3f}"))
        rows[1].append(Tile(real))
        rows[2].append(Tile(np.atleast_2d(_grey(sample) - _grey(real)), colours="RdBu_r"))
    typical = float(np.median(memory.held_out.distance))
    return mosaic(
        [Row(tiles, label) for tiles, label in zip(rows, ("sample", "nearest training", "difference"), strict=True)],
        f"Most similar pairs (held-out real images: median RMS {typical:.3f})",
    )


def pairs_table(sample_ids: Sequence[str], train: Real, memory: Memory) -> pd.DataFrame:
    """A row a sample, most similar pairs first: the sample, its nearest training scan, RMS distance."""
    order = np.argsort(memory.samples.distance, kind="stable")
    nearest_rows = train.index.iloc[memory.samples.row[order]]
    return pd.DataFrame(
        {
            "sample": [sample_ids[place] for place in order],
            "nearest_scan": nearest_rows["scan"].to_numpy(),
            "slice": nearest_rows["slice"].to_numpy(),
            "rms_distance": memory.samples.distance[order],
            "suspected_copy": suspicious(memory.samples, memory.held_out)[order],
        }
    )


def held_out_table(held_out: Real, memory: Memory) -> pd.DataFrame:
    """A row a held-out person: how near their images naturally come to the training set."""
    table = held_out.index[["participant", "group", "split"]].copy()
    table["rms_to_training"] = memory.held_out.distance
    people = table.groupby(["participant", "group", "split"], as_index=False)
    return people.agg(images=("rms_to_training", "size"), rms_to_training=("rms_to_training", "mean"))


def _grey(picture: NDArray[np.floating]) -> NDArray[np.floating]:
    return picture.mean(axis=-1) if picture.ndim == 3 else picture


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
