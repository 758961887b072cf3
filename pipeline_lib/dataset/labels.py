"""Maps of structures, drawn on the scans as they came, put beside the images of a packed chunk."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk
from numpy.typing import NDArray

from pipeline_lib.dataset.grids import Grid
from pipeline_lib.dataset.index import read_index
from pipeline_lib.dataset.resample import resample_mask
from pipeline_lib.dataset.volumes import ChannelVolume
from pipeline_lib.errors import UserError
from pipeline_lib.files import read_table
from pipeline_lib.imaging import nifti
from pipeline_lib.imaging.registration import resample

log = logging.getLogger("pipeline")
LABEL = "label.npy"


def write_labels(
    packed: Path, preprocessed: Path, path_of: Callable[[Mapping[str, str]], Path], structures: Sequence[Sequence[int]]
) -> None:
    """Write ``label.npy`` uint8 (N, structures, *size), 0 or 1, into a packed chunk of slices in place.

    A map is brought to the images' grid by its scan's own transform, the nearest voxel standing for each, and is 0 outside
    the brain mask, where images show nothing. Images of scans without a map are taken out of the chunk, with a line in the log.

    Args:
        packed: chunk folder of `pack_chunk`.
        preprocessed: the chunk it was packed from, with the transforms.
        path_of: where the map of a scan is, from its row of ``status.tsv``.
        structures: label values that make up each structure; none: every value above 0.

    Raises:
        UserError: no scan has a map, or one has another grid than its scan.
    """
    index = read_index(packed)
    rows = {row["scan"]: row for row in read_table(preprocessed / "status.tsv")}
    paths = {scan: path_of(rows[scan]) for scan in index["scan"].unique()}
    lacking = sorted(scan for scan, path in paths.items() if not path.is_file())
    if lacking:
        log.warning("%s: %d scans without a map of labels are left out: %s", packed.name, len(lacking), lacking)
    if len(lacking) == len(paths) and paths:
        raise UserError(f"{packed.name}: no scan has a map of labels; the first was looked for in {paths[lacking[0]]}")
    keep = ~index["scan"].isin(lacking).to_numpy()
    masks = np.load(packed / "mask.npy")[keep]
    labels = np.zeros((len(masks), len(structures), *masks.shape[2:]), np.uint8)
    kept = index[keep].reset_index(drop=True)
    for scan, own in kept.groupby("scan"):
        outputs = json.loads(rows[str(scan)]["outputs"])
        volume = in_space(paths[str(scan)], structures, preprocessed, outputs)
        grids = [Grid(np.array(json.loads(affine)), (masks.shape[2], masks.shape[3], 1)) for affine in own["affine"]]
        labels[own.index] = np.stack(resample_mask(volume, grids))[..., 0]
    np.save(packed / LABEL, labels * masks)
    if not keep.all():
        _keep_rows(packed, keep)


def in_space(
    path: Path, structures: Sequence[Sequence[int]], preprocessed: Path, outputs: Mapping[str, str]
) -> ChannelVolume:
    """Structures ``(S, x, y, z)``, 0 or 1, on the grid of a preprocessed scan, from their map on the scan as it came."""
    labels = nifti.read_volume(path)
    grid = nifti.read_volume(preprocessed / outputs["image"])
    transform = None
    if "to_MNI152" in outputs:
        transform = sitk.ReadTransform(str(preprocessed / outputs["to_MNI152"]))
    moved = resample(labels, grid, transform, order=0).data.round().astype(int)
    found = [np.isin(moved, list(values)) if values else moved > 0 for values in structures]
    return ChannelVolume(np.stack(found).astype(np.float32), grid.affine)


def _keep_rows(packed: Path, keep: NDArray[np.bool_]) -> None:
    for name in ("data", "mask"):
        np.save(packed / f"{name}.npy", np.load(packed / f"{name}.npy")[keep])
    table = pd.read_csv(packed / "index.tsv", sep="\t", dtype=str, keep_default_na=False)
    table[keep].to_csv(packed / "index.tsv", sep="\t", index=False)
