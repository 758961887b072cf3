"""From preprocessed scans to one memory-mapped array of training images a chunk.

A training image is a slice (2D) or a volume (3D) on a grid of `DataOptions.size` voxels. Grids follow
the scan's own voxel axes, so that without `voxel_size` no value is interpolated. 2D images are stored
as they are looked at: rows run downwards (anterior or superior first), columns from left to right
(sagittal: from posterior to anterior). 3D images keep RAS order.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import nibabel
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage
from skimage.transform import resize

from pipeline_lib.config.schema import DataOptions
from pipeline_lib.dataset.prepared import write_prepared
from pipeline_lib.files import atomic_directory, read_table, write_json
from pipeline_lib.imaging.status import pair_key

log = logging.getLogger("pipeline")

FROM_STATUS = ("scan", "participant", "session", "group", "age", "sex", "site", "sha256")
COLUMNS = (*FROM_STATUS, "slice", "has_lesion", "lesion_known", "affine")
MNI_BRAIN_CENTRE = (0.0, -18.0, 6.0)
"""Middle of the box around the MNI152 brain, mm: every scan in that space is cropped about it."""
LEAST_BRAIN = 0.01
"""Slices with a smaller share of brain are dropped."""
LARGEST_Z = 4.0
"""Standard deviations that map to 1."""
PLANES = {"sagittal": (2, 1, 0), "coronal": (2, 0, 1), "axial": (1, 0, 2)}
"""Plane -> RAS axes of the rows, the columns and across."""
FOREGROUND = 0.05
"""Grey level in [0, 1] above which a pixel of an image without a mask counts as foreground."""
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601)."""
Array = NDArray[np.float32]


class LeftOut(Exception):
    """Why a scan gives no training image; becomes a row of ``left_out.tsv``."""


@dataclass(frozen=True)
class Volume:
    """Values ``(C, x, y, z)`` and the affine from voxels to RAS mm."""

    values: Array
    affine: NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a training image lie: ``affine`` from (i, j, k) to RAS mm, and the grid's size.

    A slice has three axes too, the last of length 1; ``position`` is its place along the plane's axis, mm.
    """

    affine: NDArray[np.float64]
    shape: tuple[int, int, int]
    position: float | None = None


@dataclass(frozen=True)
class Packed:
    """One training image, arrays ``(C, *spatial)``, and what the index says of it."""

    data: Array
    target: Array | None
    mask: NDArray[np.uint8]
    lesion: NDArray[np.uint8] | None
    slice: float | int | None
    affine: NDArray[np.float64] | None


def pack_chunk(preprocessed: Path, data: DataOptions, out: Path) -> None:
    """Pack the scans of one preprocessed chunk that a recipe sees.

    Writes ``data.npy`` float32 (N, C, *size) in [-1, 1], ``mask.npy`` uint8 (N, 1, *size), ``index.tsv``,
    ``left_out.tsv`` (scan, reason), ``layout.json`` and ``prepared.json``; ``target.npy`` where ``data.target`` is set and
    ``lesion.npy`` where a scan has one. A chunk may hold no image at all: N is then 0.

    Args:
        preprocessed: chunk folder with ``status.tsv``.
        data: what the recipe sees of each scan.
        out: folder to write, complete or not at all.
    """
    status = [row for row in read_table(Path(preprocessed) / "status.tsv") if row["ok"] == "true"]
    pairs, left_out = _pairs(status, data)
    lesions = any("lesion" in _outputs(row) for pair in pairs for row in pair if row is not None)
    size = tuple(data.size)
    rows: list[dict[str, Any]] = []
    with atomic_directory(out) as folder:
        with ExitStack() as stack:

            def array(name: str, channels: int, dtype: str) -> _Rows:
                return stack.enter_context(_Rows(folder / name, (channels, *size), dtype))

            images, masks = array("data.npy", data.channels, "<f4"), array("mask.npy", 1, "|u1")
            targets = array("target.npy", data.target_channels, "<f4") if data.target else None
            marks = array("lesion.npy", 1, "|u1") if lesions else None
            for row, partner in pairs:
                try:
                    packed = list(_packed(Path(preprocessed), row, partner, data))
                except LeftOut as reason:
                    left_out.append({"scan": row["scan"], "reason": str(reason)})
                    continue
                for image in packed:
                    images.append(image.data)
                    masks.append(image.mask)
                    if targets is not None and image.target is not None:
                        targets.append(image.target)
                    lesion = image.lesion if image.lesion is not None else np.zeros_like(image.mask)
                    if marks is not None:
                        marks.append(lesion)
                    rows.append(_index_row(row, image, bool(lesion.any())))
        pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(folder / "index.tsv", sep="\t", index=False)
        reasons = pd.DataFrame(left_out, columns=["scan", "reason"])
        reasons.to_csv(folder / "left_out.tsv", sep="\t", index=False)
        write_json(folder / "layout.json", _layout(data))
        write_prepared(folder, Path(preprocessed), data)
    for row in left_out:
        log.warning("%s left out of the dataset: %s", row["scan"], row["reason"])
    log.info("%s: %d images of %d scans", Path(out).name, len(rows), len({row["scan"] for row in rows}))


def _pairs(
    status: Sequence[Mapping[str, str]], data: DataOptions
) -> tuple[list[tuple[Mapping[str, str], Mapping[str, str] | None]], list[dict[str, str]]]:
    """Scans of the recipe's modality with their targets, and rows for those without a partner.

    A target is a scan of its own; without one, the maps that were fitted to the scan.
    """
    sources = [row for row in status if row["modality"] == data.modality]
    if data.target is None:
        return [(row, None) for row in sources], []
    targets: dict[str, Mapping[str, str]] = {}
    left_out = []
    for row in status:
        if row["modality"] == data.target:
            if pair_key(row) in targets:
                left_out.append({"scan": row["scan"], "reason": "a second target of this person and session"})
            targets.setdefault(pair_key(row), row)
    pairs: list[tuple[Mapping[str, str], Mapping[str, str] | None]] = []
    for row in sources:
        if pair_key(row) in targets:
            pairs.append((row, targets[pair_key(row)]))
        elif data.target in _outputs(row):
            pairs.append((row, _fitted(row, data.target)))
        else:
            reason = f"no {data.target} scan of this person and session came through preprocessing"
            if (data.modality, data.target) == ("dwi", "noddi"):
                reason += "; preprocess.noddi: amico fits the maps to multi-shell dwi"
            left_out.append({"scan": row["scan"], "reason": reason})
    matched = {pair_key(row) for row in sources}
    for key, row in targets.items():
        if key not in matched:
            reason = f"no {data.modality} scan of this person and session came through preprocessing"
            left_out.append({"scan": row["scan"], "reason": reason})
    return pairs, left_out


def _fitted(row: Mapping[str, str], target: str) -> dict[str, str]:
    """The row of maps that preprocessing fitted to the scan of ``row``, on its grid and within its mask."""
    outputs = _outputs(row)
    return {**row, "modality": target, "outputs": json.dumps({"image": outputs[target], "mask": outputs["mask"]})}


def _outputs(row: Mapping[str, str]) -> dict[str, str]:
    outputs: dict[str, str] = json.loads(row["outputs"])
    return outputs


def _index_row(row: Mapping[str, str], image: Packed, has_lesion: bool) -> dict[str, Any]:
    affine = "" if image.affine is None else json.dumps(np.round(image.affine, 6).tolist())
    position = "" if image.slice is None else image.slice
    known = {column: row[column] for column in FROM_STATUS}
    looked_at = "lesion" in _outputs(row) or row.get("lesion") == "none"
    lesion = {"has_lesion": str(has_lesion).lower(), "lesion_known": str(looked_at).lower()}
    return {**known, "slice": position, **lesion, "affine": affine}


def _layout(data: DataOptions) -> dict[str, Any]:
    """How the arrays lie: ``left_right`` is the spatial axis between left and right, if there is one."""
    flat = data.dimensions == 2
    sagittal = flat and data.modality != "image" and data.slices.plane == "sagittal"
    return {
        "dimensions": data.dimensions,
        "size": list(data.size),
        "plane": data.slices.plane if flat and data.modality != "image" else None,
        "left_right": None if sagittal else (1 if flat else 0),
    }


def _packed(
    root: Path, row: Mapping[str, str], partner: Mapping[str, str] | None, data: DataOptions
) -> Iterator[Packed]:
    """The training images of one scan (and of its target)."""
    outputs = {name: root / path for name, path in _outputs(row).items()}
    if data.modality == "image":
        yield from _pictures(outputs, data)
        return
    source = _read(outputs["image"])
    if len(source.values) != data.channels:
        found = f"{row['shells']} in " if row.get("shells") else ""
        raise LeftOut(
            f"{found}{len(source.values)} channels where data.channels is {data.channels}; all scans of a recipe have "
            f"one number: set data.channels to {len(source.values)}, or leave this scan out"
        )
    shown, target = outputs, None
    if partner is not None:
        shown = {**outputs, **{name: root / path for name, path in _outputs(partner).items()}}
        target = _read(shown["image"])
        if len(target.values) != data.target_channels:
            raise LeftOut(f"{len(target.values)} volumes in its target where target_channels is {data.target_channels}")
    reference = source if target is None else target
    brain = _brain(shown, reference)
    lesion = _read(shown["lesion"]) if "lesion" in shown else None
    grids = _grids(reference, brain, data, in_mni=_in_mni(shown["image"]))

    channels = [_sampled(source, grids)]
    if target is not None:
        channels.append(_sampled(target, grids))
    masks = [_at_least_half(values) for values in _sampled(brain, grids)]
    lesions = None if lesion is None else [_at_least_half(values) for values in _sampled(lesion, grids)]
    scales = [_scale(volume, brain) for volume in (source, target) if volume is not None]
    for n, grid in enumerate(grids):
        if data.dimensions == 2 and masks[n].mean() < LEAST_BRAIN:
            continue
        scaled = [
            _shape(_to_range(values[n], masks[n], z_scores), data)
            for values, z_scores in zip(channels, scales, strict=True)
        ]
        yield Packed(
            data=scaled[0],
            target=scaled[1] if target is not None else None,
            mask=_shape(masks[n], data),
            lesion=None if lesions is None else _shape(lesions[n], data),
            slice=None if grid.position is None else round(grid.position, 3),
            affine=grid.affine,
        )


def _shape(values: NDArray[Any], data: DataOptions) -> NDArray[Any]:
    return values[..., 0] if data.dimensions == 2 else values


def _at_least_half(values: Array) -> NDArray[np.uint8]:
    return (values >= 0.5).astype(np.uint8)


def _read(path: Path) -> Volume:
    """A NIfTI file in the voxel order closest to RAS, channels first."""
    image = nibabel.as_closest_canonical(nibabel.load(path))
    values = np.asarray(image.dataobj, dtype=np.float32)
    values = values[None] if values.ndim == 3 else np.moveaxis(values, -1, 0)
    return Volume(values, np.asarray(image.affine, dtype=np.float64))


def _in_mni(path: Path) -> bool:
    """Whether the header says that the file lies in MNI152 space (sform code 4)."""
    header: Any = nibabel.load(path).header
    return int(header["sform_code"]) == 4


def _brain(outputs: Mapping[str, Path], reference: Volume) -> Volume:
    """The brain mask; where there is none, what is not background."""
    if "mask" in outputs:
        return _read(outputs["mask"])
    foreground = np.abs(reference.values).max(0, keepdims=True) > 0
    return Volume(foreground.astype(np.float32), reference.affine)


def _grids(reference: Volume, brain: Volume, data: DataOptions, *, in_mni: bool) -> list[Grid]:
    """The grids of all training images of a scan, along the voxel axes of ``reference``.

    The centre is that of the template's brain in MNI152 space, and the brain's own centroid elsewhere.
    """
    affine = reference.affine
    to_voxel = np.linalg.inv(affine)
    zooms = np.linalg.norm(affine[:3, :3], axis=0)
    steps = np.ones(3) if data.voxel_size is None else data.voxel_size / zooms
    world = np.array(MNI_BRAIN_CENTRE) if in_mni else _centroid(brain)
    centre = nibabel.affines.apply_affine(to_voxel, world)

    def starts(shape: Sequence[int], axes: Sequence[int]) -> NDArray[np.float64]:
        first = centre[list(axes)] - (np.array(shape) - 1) / 2 * steps[list(axes)]
        rounded: NDArray[np.float64] = np.round(first) if data.voxel_size is None else first
        return rounded

    if data.dimensions == 3:
        inner = np.eye(4)
        inner[:3, :3] = np.diag(steps)
        inner[:3, 3] = starts(data.size, (0, 1, 2))
        return [Grid(affine @ inner, (data.size[0], data.size[1], data.size[2]))]

    down, right, across = PLANES[data.slices.plane]
    start = starts(data.size, (down, right))
    grids, seen = [], set()
    count = int(np.floor((data.slices.to_mm - data.slices.from_mm) / data.slices.every_mm + 1e-6)) + 1
    for position in data.slices.from_mm + data.slices.every_mm * np.arange(count):
        point = world.copy()
        point[across] = position
        depth = float(nibabel.affines.apply_affine(to_voxel, point)[across])
        depth = round(depth) if data.voxel_size is None else depth
        if not 0 <= depth <= reference.values.shape[1 + across] - 1 or depth in seen:
            continue
        seen.add(depth)
        inner = np.zeros((4, 4))
        inner[3, 3] = 1
        inner[down, 0] = -steps[down]
        inner[down, 3] = start[0] + (data.size[0] - 1) * steps[down]
        inner[right, 1] = steps[right]
        inner[right, 3] = start[1]
        inner[across, 2] = 1
        inner[across, 3] = depth
        grids.append(Grid(affine @ inner, (data.size[0], data.size[1], 1), float(position)))
    if not grids:
        ends = np.array([[0, 0, 0], np.array(reference.values.shape[1:]) - 1])
        low, high = sorted(nibabel.affines.apply_affine(affine, ends)[:, across])
        raise LeftOut(
            f"no {data.slices.plane} slice between {data.slices.from_mm:g} and {data.slices.to_mm:g} mm: "
            f"the scan reaches from {low:.0f} to {high:.0f} mm; change data.slices"
        )
    return grids


def _centroid(brain: Volume) -> NDArray[np.float64]:
    if not brain.values.any():
        raise LeftOut("its brain mask is empty")
    voxel = ndimage.center_of_mass(brain.values[0])
    point: NDArray[np.float64] = nibabel.affines.apply_affine(brain.affine, voxel)
    return point


def _sampled(volume: Volume, grids: Sequence[Grid]) -> list[Array]:
    """``volume`` on each grid, (C, *grid.shape), linearly interpolated, 0 outside.

    Where a grid is coarser than the volume, the volume is smoothed first by a Gaussian of
    sigma (step - 1) / 2 voxels along that axis, as skimage.transform.resize does.
    """
    values, inverse = volume.values, np.linalg.inv(volume.affine)
    turn = (inverse @ grids[0].affine)[:3, :3]
    used = [axis for axis, length in enumerate(grids[0].shape) if length > 1]
    steps = np.linalg.norm(turn[:, used], axis=1)
    sigma = [0.0, *np.maximum(0, (steps - 1) / 2)]
    if max(sigma) > 0.01:
        values = ndimage.gaussian_filter(values, sigma, mode="constant")
    sampled = []
    for grid in grids:
        to_voxel = np.round(inverse @ grid.affine, 6)
        sampled.append(
            np.stack(
                [
                    ndimage.affine_transform(
                        channel, to_voxel[:3, :3], to_voxel[:3, 3], grid.shape, order=1, mode="constant"
                    )
                    for channel in values
                ]
            )
        )
    return sampled


def _scale(volume: Volume, brain: Volume) -> bool:
    """Whether the values are z-scores (True) or lie in [0, 1] (False)."""
    values = volume.values
    if values.min() >= -0.01 and values.max() <= 1.01:
        return False
    inside = values[:, brain.values[0] > 0] if brain.values.shape[1:] == values.shape[1:] else values
    if inside.size and values.min() < -0.01 and np.percentile(np.abs(inside), 99) < 3 * LARGEST_Z:
        return True
    raise LeftOut(
        f"intensities from {values.min():.3g} to {values.max():.3g} are neither in [0, 1] nor z-scores: "
        "set preprocess.intensity to percentile or zscore"
    )


def _to_range(values: Array, mask: NDArray[np.uint8], z_scores: bool) -> Array:
    """To [-1, 1], background -1: [0, 1] linearly, z-scores clipped at ±4 and divided by 4."""
    if z_scores:
        return np.where(mask > 0, np.clip(values / LARGEST_Z, -1, 1), -1).astype(np.float32)
    return (np.clip(values, 0, 1) * 2 - 1).astype(np.float32)


def _pictures(outputs: Mapping[str, Path], data: DataOptions) -> Iterator[Packed]:
    """Photographs or exported slices: a uint8 stack (n, rows, columns[, colours])."""
    stack = _stack(outputs["image"])
    size = tuple(data.size)
    marks = {name: _stack(outputs[name])[..., 0] for name in ("mask", "lesion") if name in outputs}
    for n, picture in enumerate(stack):
        colours: NDArray[Any] = resize(picture / 255.0, size, order=1, anti_aliasing=True)
        if colours.shape[-1] != data.channels:
            if data.channels not in (1, 3):
                raise LeftOut(f"a picture has 1 or 3 channels; data.channels is {data.channels}")
            colours = colours.repeat(3, -1) if data.channels == 3 else colours @ np.array(LUMA)[:, None]
        values = np.moveaxis(np.clip(colours, 0, 1) * 2 - 1, -1, 0).astype(np.float32)
        drawn = {
            name: _at_least_half(resize((mark[n] > 0).astype(np.float32), size, order=1, anti_aliasing=True))[None]
            for name, mark in marks.items()
        }
        seen = ((values.max(0, keepdims=True) + 1) / 2 > FOREGROUND).astype(np.uint8)
        yield Packed(values, None, drawn.get("mask", seen), drawn.get("lesion"), n, None)


def _stack(path: Path) -> NDArray[np.uint8]:
    """(n, rows, columns, colours)."""
    stack: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    return stack if stack.ndim == 4 else stack[..., None]


class _Rows:
    """An .npy file that grows by a row at a time, so that a chunk never lies in memory."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: str) -> None:
        self.path, self.shape, self.dtype, self.count = path, shape, dtype, 0

    def __enter__(self) -> _Rows:
        self.file: BinaryIO = open(self.path, "wb")
        self._header()
        return self

    def append(self, row: NDArray[Any]) -> None:
        if row.shape != self.shape:
            raise ValueError(f"{self.path.name}: a row of shape {row.shape} where {self.shape} is meant")
        self.file.write(np.ascontiguousarray(row, dtype=self.dtype).tobytes())
        self.count += 1

    def __exit__(self, *_: object) -> None:
        self.file.seek(0)
        self._header()
        self.file.close()

    def _header(self) -> None:
        """NumPy pads its header so that the number of rows can grow in place."""
        shape = (self.count, *self.shape)
        np.lib.format.write_array_header_1_0(self.file, {"descr": self.dtype, "fortran_order": False, "shape": shape})
