"""Names of the regions of a brain in the template's space.

An atlas is what BIDS calls a discrete segmentation: a NIfTI file of whole numbers and, beside it under the same name, a table
(.tsv) with the columns ``index`` and ``name``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline_lib.errors import UserError
from pipeline_lib.files import atomic_path, read_table, write_table
from pipeline_lib.imaging.nifti import Volume

BACKGROUND = 0


@dataclass(frozen=True)
class Regions:
    """Numbers of regions on some grid ``(X, Y, Z)``, 0 where there is none, and their names."""

    labels: NDArray[np.int64]
    names: Mapping[int, str]

    def most(self, where: tuple[slice, ...], part: NDArray[np.bool_]) -> tuple[str, float]:
        """The region that holds the most of a part, and the share of the part in it; no name and 0 where none does.

        Args:
            where: a box of the grid.
            part: in it.
        """
        counts = np.bincount(self.labels[where][part], minlength=1)
        counts[BACKGROUND] = 0
        largest = int(counts.argmax())
        return (self.names[largest], float(counts[largest] / part.sum())) if counts[largest] else ("", 0.0)


@dataclass(frozen=True)
class Atlas:
    """An image of regions in MNI152 space, as nilearn reads it, and their names."""

    image: Any
    names: Mapping[int, str]
    _moved: dict[tuple[bytes, tuple[int, ...]], Regions] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, image: Path, table: Path) -> Atlas:
        """Read both files.

        Raises:
            UserError: one is missing or not what it should be; a number in the image has no name.
        """
        from nibabel.filebasedimages import ImageFileError
        from nilearn.image import load_img  # takes a second to import

        try:
            loaded = load_img(str(image))
        except (OSError, ValueError, ImageFileError) as error:
            raise UserError(
                f"report.atlas: {image}: cannot be read as NIfTI ({' '.join(str(error).split())})"
            ) from None
        values = np.asarray(loaded.dataobj)
        if values.ndim != 3 or not np.equal(np.round(values), values).all() or values.min() < 0:
            raise UserError(f"report.atlas: {image}: no volume of whole numbers from 0 on; give one number a region")
        names = _names(table)
        if unnamed := sorted(set(np.unique(values).astype(int)) - {BACKGROUND, *names}):
            raise UserError(f"report.atlas: {table}: no name for region {unnamed[0]} of {image.name}; add a row for it")
        return cls(loaded, names)

    def on(self, volume: Volume) -> Regions:
        """The regions on the grid of a volume in MNI152 space; the maps of a recipe share theirs, which is made once."""
        from nilearn.image import resample_img

        grid = (volume.affine.tobytes(), volume.data.shape[:3])
        if grid not in self._moved:
            moved = resample_img(
                self.image,
                target_affine=volume.affine,
                target_shape=volume.data.shape[:3],
                interpolation="nearest",
                force_resample=True,
                copy_header=True,
            )
            self._moved[grid] = Regions(np.asarray(moved.dataobj).round().astype(np.int64), self.names)
        return self._moved[grid]


def fetch(name: str, folder: Path) -> list[str]:
    """Download an atlas by nilearn and write it as `Atlas.read` wants it.

    Args:
        name: that of nilearn's function, ``aal`` for ``nilearn.datasets.fetch_atlas_aal``; after a colon its first argument where
            it needs one, as in ``harvard_oxford:cort-maxprob-thr25-1mm``.
        folder: to write ``<name>_dseg.nii.gz`` and ``<name>_dseg.tsv`` into.

    Raises:
        UserError: nilearn has no such atlas, cannot get it, or it is one of maps that overlap.
    """
    from nilearn import datasets
    from nilearn.image import load_img

    kind, _, version = name.partition(":")
    fetcher = getattr(datasets, f"fetch_atlas_{kind}", None)
    if fetcher is None:
        known = sorted(each.removeprefix("fetch_atlas_") for each in dir(datasets) if each.startswith("fetch_atlas_"))
        raise UserError(f"{kind}: nilearn has no such atlas; it has {', '.join(known)}")
    try:
        found = fetcher(*([version] if version else []), verbose=0)
    except (OSError, TypeError, ValueError) as error:
        raise UserError(
            f"{name}: nilearn cannot get it ({' '.join(str(error).split())[:200]}); where there is no network, fetch it elsewhere "
            "and copy the folder"
        ) from None
    table = getattr(found, "lut", None)
    if table is None or getattr(found, "atlas_type", "deterministic") != "deterministic":
        raise UserError(
            f"{name}: its maps overlap or have no names; choose an atlas of one region a voxel, such as aal"
        )
    target = folder / f"{name.replace(':', '_')}_dseg.nii.gz"
    rows = [
        {"index": int(row["index"]), "name": row["name"]}
        for row in table.to_dict("records")
        if int(row["index"]) != BACKGROUND
    ]
    write_table(target.with_name(target.name.replace(".nii.gz", ".tsv")), ("index", "name"), rows)
    with atomic_path(target) as temporary:
        load_img(found.maps).to_filename(str(temporary))
    return [f"{target}: {len(rows)} regions; set report: {{atlas: {target}}}"]


def _names(table: Path) -> dict[int, str]:
    rows = read_table(table)
    if not rows or not {"index", "name"} <= rows[0].keys():
        raise UserError(f"report.atlas: {table}: no table with the columns index and name")
    try:
        return {int(float(row["index"])): row["name"] for row in rows}
    except ValueError:
        raise UserError(f"report.atlas: {table}: index holds something that is no number") from None
