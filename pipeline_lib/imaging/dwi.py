"""Diffusion MRI: gradient tables, shells, and the channels a network sees."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline_lib.errors import UserError

B0 = 50.0
"""Largest b-value, s/mm2, that counts as no diffusion weighting."""
SHELL_WIDTH = 100.0
LARGEST_RATIO = 1.5


@dataclass(frozen=True)
class Gradients:
    """b-values (V,) in s/mm2 and unit directions (V, 3) along the voxel axes, FSL's convention."""

    bvals: NDArray[np.float64]
    bvecs: NDArray[np.float64]


def read_gradients(bval: Path, bvec: Path, volumes: int, where: str) -> Gradients:
    """Read FSL's text files.

    Raises:
        UserError: a file is missing or not numbers, or counts differ from the scan's volumes.
    """
    tables = []
    for path in (bval, bvec):
        if not path.is_file():
            raise UserError(f"{where}: no such file {path.name}; correct the {path.suffix[1:]} column")
        try:
            tables.append(np.loadtxt(path, ndmin=2))
        except ValueError:
            raise UserError(f"{where}: {path.name} is not a table of numbers; write FSL's format") from None
    bvals = tables[0].ravel()
    bvecs = tables[1].T if tables[1].shape[0] == 3 and tables[1].shape[1] != 3 else tables[1]
    if bvecs.shape == (3, 3) and volumes == 3:
        bvecs = tables[1].T
    if len(bvals) != volumes or bvecs.shape != (volumes, 3):
        raise UserError(
            f"{where}: {volumes} volumes, but {len(bvals)} b-values in {bval.name} and {len(bvecs)} directions "
            f"in {bvec.name}; give the files that belong to this scan"
        )
    return Gradients(bvals, bvecs)


def shells(bvals: NDArray[np.float64]) -> dict[int, NDArray[np.intp]]:
    """b-value rounded to 100 s/mm2 -> volumes of the shell; 0 holds the unweighted ones.

    b-values closer than 100 s/mm2 to the one before belong to one shell.
    """
    order = np.argsort(bvals, kind="stable")
    weighted = order[bvals[order] > B0]
    found = {0: np.sort(order[bvals[order] <= B0])}
    breaks = np.flatnonzero(np.diff(bvals[weighted]) > SHELL_WIDTH) + 1
    for members in np.split(weighted, breaks):
        if len(members):
            found[int(round(float(bvals[members].mean()) / 100) * 100)] = np.sort(members)
    return found


def shell_channels(
    data: NDArray[np.float32], bvals: NDArray[np.float64], mask: NDArray[np.bool_], where: str
) -> tuple[NDArray[np.float32], list[str]]:
    """What a network sees: b0 scaled by its 99th percentile in the brain, then each shell's mean over b0.

    Args:
        data: (X, Y, Z, V).
        mask: brain (X, Y, Z).

    Returns:
        (X, Y, Z, 1 + shells) in [0, 1], zero outside the brain, and the channels' names.

    Raises:
        UserError: no unweighted volume, or no shell.
    """
    found = shells(bvals)
    if not len(found[0]):
        raise UserError(f"{where}: no volume with b below {B0:g} s/mm2; a b0 is needed to normalise the signal")
    if len(found) < 2:
        raise UserError(f"{where}: no diffusion-weighted volume; give the whole series")
    b0 = data[..., found[0]].mean(-1)
    top = max(float(np.percentile(b0[mask], 99)), 1e-6)
    channels, names = [np.clip(b0 / top, 0, 1)], ["b0"]
    floor = 0.02 * top
    for b, members in found.items():
        if b:
            ratio = data[..., members].mean(-1) / np.maximum(b0, floor)
            channels.append(np.clip(ratio, 0, LARGEST_RATIO) / LARGEST_RATIO)
            names.append(f"b{b}")
    return (np.stack(channels, -1) * mask[..., None]).astype(np.float32), names
