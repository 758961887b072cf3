"""Every file opened, checked and made canonical: RAS+, float32, one affine, no header text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline_lib.cohort.files import COLUMNS, Read, read_files, write_record
from pipeline_lib.cohort.sheet import Scan
from pipeline_lib.errors import UserError
from pipeline_lib.files import sha256_text
from pipeline_lib.imaging.canonical import open_described, open_mask
from pipeline_lib.imaging.chunk import Done, Item, run_chunk
from pipeline_lib.imaging.dwi import read_gradients, turn, write_gradients
from pipeline_lib.imaging.labels import refuse_labels
from pipeline_lib.imaging.nifti import Volume, write_volume
from pipeline_lib.imaging.pictures import find_slices, read_marks, read_slices
from pipeline_lib.imaging.stacks import Pictures, run_pictures

NODDI_MAPS = ("ICVF", "ODI", "ISOVF")
BEYOND_UNIT = 0.05
MASKS = {"mask": "mask", "lesion": "lesion_mask"}
"""Output to the property of a `Scan` that names its file."""


@dataclass(frozen=True)
class _Given:
    scan: Scan
    root: Path

    @property
    def where(self) -> str:
        return f"{self.scan.path} (row {self.scan.row} of the sheet)"

    def path(self, column: str) -> Path:
        return self.root / getattr(self.scan, column)


def ingest_chunk(
    scans: Sequence[Scan], root: Path, out: Path, *, workers: int, cache: Path | None = None, key: str = ""
) -> None:
    """Check every scan of a chunk and write the good ones as canonical NIfTI, with all pictures in one array.

    Args:
        scans: rows of the sheet.
        root: folder from which the sheet's paths start.
        out: folder to write: ``status.tsv``, ``scans/`` and the record of what was read (`cohort.files`).
        workers: processes.
        cache: folder that keeps finished scans between runs; pictures are read again.
        key: under which the workflow knows the rows and the content of their files.
    """
    families = {scan.family for scan in scans}
    if "image" in families and len(families) > 1:
        raise ValueError("a chunk of pictures holds no other scans")
    read = read_files(scans, root)
    items = [_item(scan, root, read) for scan in scans]
    if scans and scans[0].family == "image":
        run_pictures("ingest", items, _pictures, out, workers=workers)
    else:
        run_chunk("ingest", items, _ingest, out, workers=workers, cache=cache)
    write_record(out, key, scans, read)


def _item(scan: Scan, root: Path, read: Mapping[str, Read]) -> Item:
    """The key is of what the outputs are made of: a corrected age or group leaves the finished scan as it is."""
    row = {name: getattr(scan, name) for name in ("participant", "session", "modality", "group", "sex", "site", "pair")}
    age = "" if scan.age is None else f"{scan.age:g}"
    row["covariates"] = json.dumps(dict(scan.covariates)) if scan.covariates else ""
    row |= {"scan": scan.id, "age": age, "lesion": scan.lesion_state}
    row |= {"source": scan.path, "sha256": read[scan.path].sha256}
    named = {column: read[path].sha256 for column in COLUMNS if (path := getattr(scan, column))}
    key = sha256_text(json.dumps([scan.id, scan.path.rpartition(".")[2], named], sort_keys=True))[:32]
    return Item(row, key, _Given(scan, root))


def _ingest(given: object, out: Path) -> Done:
    assert isinstance(given, _Given)
    return {"anat": _anatomy, "dmri": _diffusion}[given.scan.family](given, out)


def _anatomy(given: _Given, out: Path) -> Done:
    opened = open_described(given.path("path"), given.where)
    refuse_labels(opened.volume.data, given.where)
    outputs = {"image": f"{given.scan.id}.nii.gz"}
    write_volume(out / outputs["image"], opened.volume)
    return Done(outputs | _masks(given, opened.volume, out), opened.notes | _voxels(opened.volume.data))


def _voxels(data: NDArray[Any]) -> dict[str, str]:
    """The hash by which one scan is found in two containers: canonical shape and voxels, -0 being 0."""
    plain = np.ascontiguousarray(data + data.dtype.type(0))
    return {"voxels_sha256": sha256_text(f"{data.shape} {hashlib.sha256(plain.data).hexdigest()}")}


def _masks(given: _Given, volume: Volume, out: Path) -> dict[str, str]:
    outputs = {}
    for name in ("mask", "lesion"):
        if path := getattr(given.scan, MASKS[name]):
            where = f"{path} ({name} of row {given.scan.row} of the sheet)"
            mask = open_mask(given.path(MASKS[name]), where, volume)
            if name == "mask" and not mask.any():
                raise UserError(f"{where}: no voxel is above 0.5, the brain mask is empty; make it again")
            outputs[name] = f"{given.scan.id}_{name}.nii.gz"
            write_volume(out / outputs[name], Volume(mask.astype(np.float32), volume.affine), np.uint8)
    return outputs


def _diffusion(given: _Given, out: Path) -> Done:
    opened = open_described(given.path("path"), given.where, volumes=True)
    volume = opened.volume
    outputs = {"image": f"{given.scan.id}.nii.gz"}
    if given.scan.modality == "dwi":
        gradients = read_gradients(given.path("bval"), given.path("bvec"), volume.data.shape[3], given.where)
        _refuse_empty(volume, given.where)
        outputs |= write_gradients(out / given.scan.id, turn(gradients, opened.stored, volume.affine))
    else:
        volume = _checked_maps(volume, given.where)
    write_volume(out / outputs["image"], volume)
    return Done(outputs | _masks(given, volume, out), opened.notes | _voxels(volume.data))


def _refuse_empty(series: Volume, where: str) -> None:
    empty = np.flatnonzero(np.ptp(series.data, axis=(0, 1, 2)) == 0)
    if len(empty):
        raise UserError(
            f"{where}: volume {empty[0]} (the first is 0) is the same everywhere; export the series again, or leave the "
            "volume out of it, of bval and of bvec"
        )


def _checked_maps(volume: Volume, where: str) -> Volume:
    if volume.data.shape[3] != len(NODDI_MAPS):
        raise UserError(
            f"{where}: {volume.data.shape[3]} volumes; NODDI maps are one 4D file of {', '.join(NODDI_MAPS)}, "
            "e.g. with fslmerge -t"
        )
    low, high = float(volume.data.min()), float(volume.data.max())
    if low < -BEYOND_UNIT or high > 1 + BEYOND_UNIT:
        raise UserError(f"{where}: values from {low:.3g} to {high:.3g}; NODDI maps are fractions from 0 to 1")
    return Volume(np.clip(volume.data, 0, 1), volume.affine)


def _pictures(given: _Given) -> Pictures:
    paths = find_slices(given.root, given.scan.path, given.where)
    slices = read_slices(paths, given.where)
    return Pictures({"image": slices} | _marks(given, slices), {"slices": str(len(slices))} | _voxels(slices))


def _marks(given: _Given, slices: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
    """The masks of a person's slices: files or patterns, as the slices themselves."""
    marks = {}
    for name in ("mask", "lesion"):
        if path := getattr(given.scan, MASKS[name]):
            where = f"{path} ({name} of row {given.scan.row} of the sheet)"
            marks[name] = read_marks(find_slices(given.root, path, where), where, slices)
    return marks
