"""What can be looked at of one scan: its volume with what recipes made of it, pairs of pictures, and findings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image

from pipeline_lib.dataset.volumes import space_of
from pipeline_lib.files import read_table
from pipeline_lib.imaging.ingest import NODDI_MAPS
from pipeline_lib.imaging.nifti import Volume, read_volume
from pipeline_lib.imaging.planes import plane
from pipeline_lib.imaging.quality import SOME, TILE, mosaic
from pipeline_lib.imaging.registration import resample, template
from pipeline_lib.inference.chunks import open_array, read_index
from pipeline_lib.inference.geometry import affine_of
from pipeline_lib.inference.maps import NAME
from pipeline_lib.report.atlas import Atlas, Regions
from pipeline_lib.report.findings import Finding, findings
from pipeline_lib.report.page import Picture, picture_of
from pipeline_lib.report.records import read_record
from pipeline_lib.report.volumes import Frame, Layer, map_layer, mask_layer, scan_layer

OUTLINE = "#35c2ff"
SLICES = 6
"""Of a scan that a pair of pictures shows."""
PAIR_LIMIT = 16_000
"""Bytes of a picture of a pair, of which a page has several."""
THRESHOLDS = "thresholds.tsv"
UNCERTAINTY = "Uncertainty of"


@dataclass(frozen=True)
class Pair:
    """Two pictures of the same size, rows of as many tiles; a slider shows each tile's left of one, right of the other."""

    title: str
    left: Picture
    right: Picture
    names: tuple[str, str]
    caption: str
    tiles: int


@dataclass(frozen=True)
class Found:
    """What the map of a recipe marks in a scan; ``threshold`` is None where none could be chosen."""

    recipe: str
    threshold: float | None
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class View:
    """All of it; without layers there is no viewer."""

    layers: tuple[Layer, ...] = ()
    pairs: tuple[Pair, ...] = ()
    found: tuple[Found, ...] = ()


@dataclass(frozen=True)
class Inferred:
    """What a recipe made of a chunk: folders of its inference and dataset, the threshold of its maps."""

    recipe: str
    inference: Path
    dataset: Path
    threshold: float | None
    index: pd.DataFrame

    @classmethod
    def of(cls, inference: Path, dataset: Path, evaluation: Path) -> Inferred:
        """From ``results/<recipe>/inference/<chunk>`` and its companions."""
        return cls(inference.parent.parent.name, inference, dataset, _threshold(evaluation), read_index(inference))

    def rows(self, scan: str) -> pd.DataFrame:
        """The scan's images; the labels are their places in the arrays of inference."""
        return self.index[self.index["scan"] == scan]


def view_of(
    scan: str,
    native: Mapping[str, Path],
    prepared: Mapping[str, Path],
    inferred: Iterable[Inferred],
    atlas: Atlas | None = None,
) -> View:
    """What there is of a scan.

    Args:
        native: files of the ingested scan by name.
        prepared: files of the preprocessed scan by name; without image and mask there is nothing to view.
        inferred: recipes that were applied to its chunk.
        atlas: of the template's space, by which findings of scans registered to it are named.
    """
    if not {"image", "mask"} <= prepared.keys():
        return View()
    mask = read_volume(prepared["mask"])
    if not (mask.data >= 0.5).any():
        return View()
    frame, image = Frame.around(mask), _first(read_volume(prepared["image"]))
    lesion = read_volume(prepared["lesion"]) if "lesion" in prepared else None
    layers = [scan_layer(frame, image, mask)]
    pairs = _registration(native, prepared, image, mask)
    found = []
    for each in inferred:
        rows = each.rows(scan)
        if rows.empty:
            continue
        path = each.inference / "nifti" / f"{scan}{NAME}"
        if path.is_file():
            scores = read_volume(path)
            layers.append(map_layer(frame, f"Anomaly map, {each.recipe}", scores, each.threshold))
            regions = atlas.on(scores) if atlas is not None and space_of(path) == "MNI152" else None
            found.append(_found(each, scores, lesion, regions))
        layers += _predicted(frame, each, rows)
        pairs += _made(each, rows)
    if lesion is not None:
        layers.append(mask_layer(frame, "Known lesion", lesion))
    layers.append(mask_layer(frame, "Brain mask", mask))
    return View(tuple(layers), tuple(pairs), tuple(found))


def _first(volume: Volume) -> Volume:
    """The first channel of a scan that has several."""
    return Volume(volume.data[..., 0], volume.affine) if volume.data.ndim == 4 else volume


def _threshold(evaluation: Path) -> float | None:
    """The threshold chosen on validation people for the model's maps; None where there is none."""
    if not (evaluation / THRESHOLDS).is_file():
        return None
    chosen = [row["threshold"] for row in read_table(evaluation / THRESHOLDS) if row["role"] == "result"]
    return float(chosen[0]) if chosen and chosen[0] else None


def _found(inferred: Inferred, scores: Volume, lesion: Volume | None, regions: Regions | None) -> Found:
    if inferred.threshold is None:
        return Found(inferred.recipe, None, ())
    known = resample(lesion, scores, None).data >= 0.5 if lesion is not None else None
    return Found(inferred.recipe, inferred.threshold, tuple(findings(scores, inferred.threshold, known, regions)))


def _predicted(frame: Frame, inferred: Inferred, rows: pd.DataFrame) -> list[Layer]:
    """Predicted volumes, each followed by how much its draws differ where there were several; on the scale from 0 to 1."""
    affine = affine_of(str(rows["affine"].iloc[0]))
    if affine is None or not (inferred.inference / "prediction.npy").is_file():
        return []
    prediction = np.asarray(open_array(inferred.inference, "prediction")[rows.index[0]], dtype=np.float32)
    if prediction.ndim != 4:
        return []
    spread = np.zeros_like(prediction)
    if (inferred.inference / "spread.npy").is_file():
        spread = np.asarray(open_array(inferred.inference, "spread")[rows.index[0]], dtype=np.float32)
    layers = []
    for name, mean, deviation in zip(_channels(inferred.dataset, len(prediction)), prediction, spread, strict=True):
        values = Volume((mean + 1) / 2, affine)
        layers.append(map_layer(frame, f"{name} as predicted, {inferred.recipe}", values, 0.02))
        if deviation.any():
            deviations = Volume(deviation / 2, affine)
            layers.append(map_layer(frame, f"{UNCERTAINTY} {name}, {inferred.recipe}", deviations, None))
    return layers


def _channels(dataset: Path, number: int) -> tuple[str, ...]:
    """What the target's volumes are called."""
    prepared = dataset / "prepared.json"
    target = read_record(prepared)["data"]["target"] if prepared.is_file() else None
    return (
        NODDI_MAPS if target == "noddi" and number == len(NODDI_MAPS) else tuple(f"map {n + 1}" for n in range(number))
    )


def _registration(native: Mapping[str, Path], prepared: Mapping[str, Path], image: Volume, mask: Volume) -> list[Pair]:
    """The brain before and after registration, and beside the template; none where it was not registered."""
    if "to_MNI152" not in prepared or "image" not in native:
        return []
    reference, outline = template()
    inside = resample(mask, reference, None).data >= 0.5
    after = _drawn(resample(_grey(image, mask), reference, None), outline)
    brain, came = read_volume(prepared["native_mask"]), read_volume(native["image"])
    stripped = _grey(came, brain)
    aim, start = _centre(outline, reference.affine), _centre(brain.data >= 0.5, brain.affine)
    shift = sitk.TranslationTransform(3, [here - there for here, there in zip(start, aim, strict=True)])
    before = _drawn(resample(stripped, reference, shift), outline)
    target = _drawn(Volume(reference.data * outline, reference.affine), inside)
    scan = _drawn(resample(_grey(image, mask), reference, None), inside)
    return [
        _pair(
            "Registration",
            (before, after),
            ("Before", "After"),
            "Before: centres of mass aligned, no more. The line is the template's brain; after registration the scan should "
            "fill it.",
        ),
        _pair(
            "Template",
            (target, scan),
            ("MNI152", "Scan"),
            "The template and the registered scan. Ventricles, the brain's edge and its midline should stay where they are; "
            "the line is the scan's brain mask.",
        ),
    ]


def _centre(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> tuple[float, float, float]:
    """Centre of mass in mm, as ITK has it (LPS)."""
    x, y, z = (affine @ [*np.argwhere(mask).mean(axis=0), 1])[:3]
    return -float(x), -float(y), float(z)


def _grey(image: Volume, mask: Volume) -> Volume:
    """A brain from 0 to 1, nothing around it."""
    inside = mask.data >= 0.5
    low, high = np.percentile(image.data[inside], [0.5, 99.5])
    grey = np.clip((image.data - low) / max(high - low, 1e-6), 0, 1)
    return Volume(np.where(inside, grey, 0).astype(np.float32), image.affine)


def _drawn(volume: Volume, outline: NDArray[np.bool_]) -> Image.Image:
    return mosaic(volume.data, outline, volume.zooms, OUTLINE, SOME)


def _made(inferred: Inferred, rows: pd.DataFrame) -> list[Pair]:
    """What went in, or was measured, and what the network made of it: slices spread evenly over the scan.

    There is none of a target that was not measured.
    """
    for array, original, names, caption in (
        (
            "reconstruction",
            "data",
            ("Scan", "Reconstruction"),
            "The slices that the network was given, and the healthy brain it made of them. What differs is what it scores.",
        ),
        ("prediction", "target", ("Measured", "Predicted"), "The measured target, and what was predicted of it."),
    ):
        made = inferred.inference / f"{array}.npy"
        if made.is_file() and (inferred.dataset / f"{original}.npy").is_file():
            originals = open_array(inferred.dataset, original)
            known = rows[[bool(np.isfinite(originals[int(row)]).all()) for row in rows["row"]]]
            if known.empty:
                return []
            places = np.unique(np.linspace(0, len(known) - 1, min(SLICES, len(known))).round().astype(int))
            was = [originals[int(row)] for row in known["row"].iloc[places]]
            became = [open_array(inferred.inference, array)[int(label)] for label in known.index[places]]
            title = f"{names[1]}, {inferred.recipe}"
            return [_pair(title, (_strip(was), _strip(became)), names, caption)]
    return []


def _strip(images: Sequence[NDArray[np.generic]]) -> Image.Image:
    """Images in [-1, 1] side by side; of one volume, slices."""
    arrays = [np.asarray(image, dtype=np.float32) for image in images]
    if len(arrays) == 1 and arrays[0].ndim == 4:
        depth = arrays[0].shape[-1]
        levels = (np.linspace(0.2, 0.8, SLICES) * (depth - 1)).round().astype(int)
        planes = [plane(arrays[0], int(level)) for level in levels]
    else:
        planes = [plane(array) for array in arrays]
    strip = Image.new("L", (TILE * len(planes), TILE))
    for number, values in enumerate(planes):
        grey = (np.clip((values[..., 0] if values.ndim == 3 else values) + 1, 0, 2) * 127.5).astype(np.uint8)
        scale = TILE / max(grey.shape)
        size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
        tile = Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR)
        strip.paste(tile, (number * TILE + (TILE - tile.width) // 2, (TILE - tile.height) // 2))
    return strip


def _pair(title: str, images: tuple[Image.Image, Image.Image], names: tuple[str, str], caption: str) -> Pair:
    left, right = (
        picture_of(image, name, alt=f"{title}: {name.lower()}. {caption}", limit=PAIR_LIMIT)
        for image, name in zip(images, names, strict=True)
    )
    return Pair(title, left, right, names, caption, images[0].width // TILE)
