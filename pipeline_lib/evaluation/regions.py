"""Correlation of predicted and measured maps region by region: of an atlas, or of each person's own labels."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.region_files import labels_and_names
from pipeline_lib.files import read_table
from pipeline_lib.metrics.bootstrap import bootstrap_mean
from pipeline_lib.metrics.image import correlation

log = logging.getLogger("pipeline")
FEWEST = 30
"""Voxels of a region within the brain, from which on it is judged in a person."""
Labels = NDArray[np.int_]


class Regions:
    """The labels of images.

    Attributes:
        names: of labels, where a table of that name lies beside the file or the folder of files: ``atlas.tsv`` beside
            ``atlas.nii.gz``, ``dlmuse.tsv`` beside ``dlmuse/``, columns ``index`` and ``name``.
    """

    def __init__(self, path: str) -> None:
        """``path``: of an atlas in MNI152 space, or with ``{participant}`` (and ``{session}``) in its name, of people's own
        labels, on any grid in the millimetres of their scans.

        Raises:
            UserError: there is no such file.
        """
        self.path = path
        self.own, table = labels_and_names(path)
        self.names = {int(row["index"]): row["name"] for row in read_table(table)} if table.is_file() else {}
        self._read: tuple[Path, Labels, NDArray[np.float64]] | None = None

    def of(self, entry: Mapping[str, Any], size: Sequence[int]) -> Labels | None:
        """Labels (*size) of an image, by its row of the index; None where the person has none.

        Raises:
            UserError: image and labels are not in one space.
        """
        native = str(entry.get("space", "")) != "MNI152"
        if native != bool(self.own):
            raise UserError(
                f"evaluation.regions: {entry['scan']} is in {'its own' if native else 'MNI152'} space; "
                + (
                    "give labels of each person, a path with {participant}"
                    if native
                    else "give an atlas in MNI152 space"
                )
            )
        path = self._file(entry)
        if path is None:
            return None
        labels, affine = self._opened(path)
        to_voxel = np.linalg.inv(affine) @ np.array(json.loads(str(entry["affine"])))
        grid = (*size, 1)[:3]
        moved: Labels = ndimage.affine_transform(
            labels, to_voxel[:3, :3], to_voxel[:3, 3], grid, order=0, mode="constant", cval=0
        )
        return moved.reshape(tuple(size))

    def _file(self, entry: Mapping[str, Any]) -> Path | None:
        if not self.own:
            return Path(self.path)
        person = str(entry["participant"])
        return self.own.get((person, str(entry["session"])), self.own.get((person, "")))

    def _opened(self, path: Path) -> tuple[Labels, NDArray[np.float64]]:
        """Slices of one scan come one after the other: the last file is kept."""
        if self._read is None or self._read[0] != path:
            image: Any = nib.load(path)
            self._read = path, np.asarray(image.dataobj).round().astype(np.int_), np.asarray(image.affine, np.float64)
        return self._read[1], self._read[2]


def correlations(
    labels: Labels, mask: NDArray[np.bool_], predicted: Mapping[str, NDArray], target: NDArray
) -> list[dict[str, Any]]:
    """A row a region of an image: its voxels, and the correlation of each method's map (*spatial) with the target."""
    rows = []
    for label in np.unique(labels[mask & (labels > 0)]).tolist():
        inside = mask & (labels == label)
        if inside.sum() < FEWEST:
            continue
        found = {name: correlation(values, target, inside) for name, values in predicted.items()}
        rows.append({"label": label, "voxels": int(inside.sum()), **found})
    return rows


def summary(
    images: pd.DataFrame, names: Mapping[int, str], result: str, others: Sequence[str], *, resamples: int, seed: int
) -> pd.DataFrame:
    """A row a map and region, means over people: of each method, and of the result less each of the others with its interval.

    Args:
        images: ``participant``, ``channel``, ``label``, ``voxels`` and a column a method.
        result, others: columns of ``images``.
    """
    methods = [result, *others]
    people = images.groupby(["channel", "label", "participant"], sort=False)[["voxels", *methods]].mean()
    rows: list[dict[str, Any]] = []
    for (channel, label), known in people.groupby(level=[0, 1], sort=False):
        own = known.dropna()
        row: dict[str, Any] = {
            "map": channel,
            "label": label,
            "region": names.get(int(str(label)), f"label {label}"),
            "people": len(own),
            "voxels": round(float(own["voxels"].mean()), 1) if len(own) else 0,
        }
        for method in methods:
            row[method] = own[method].mean()
        for other in others:
            paired = (own[result] - own[other]).to_numpy(dtype=float)
            interval = bootstrap_mean(paired, resamples=resamples, seed=seed) if len(own) else None
            name = f"{result} minus {other}"
            row |= {name: interval and interval.value, f"{name}, low": interval and interval.low}
            row |= {f"{name}, high": interval and interval.high}
        rows.append(row)
    maps = list(dict.fromkeys(images["channel"]))
    rows.sort(key=lambda row: (maps.index(row["map"]), row["label"]))
    return pd.DataFrame(rows)
