"""Diffusion MRI simulated on the anatomy of real people, from maps of labels: pairs whose NODDI maps are known.

Labels are those of MUSE (Doshi et al. 2016, doi:10.1016/j.neuroimage.2015.11.073), as DLMUSE writes them. A person's noise
and smooth variation follow from the person's id and a seed.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline_lib.cohort.diffusion_mri import acquire, blocks, noddi_maps
from pipeline_lib.cohort.sheet import Scan
from pipeline_lib.cohort.written import path_in_sheet, save_volume
from pipeline_lib.errors import UserError
from pipeline_lib.files import write_text

log = logging.getLogger("pipeline")
FLUID = (4, 11, 46, 49, 50, 51, 52)
"""Ventricles and cerebrospinal fluid."""
WHITE = (35, 40, 41, 61, 62, 69, *range(81, 96))
"""White matter of the lobes and the cerebellum, tracts and brain stem; every other label is grey matter."""
VALUES = {"ICVF": (0.41, 0.57, 0.05, 0.35), "ODI": (0.95, 0.74, 0.80, 0.45), "ISOVF": (0.02, 0.02, 0.94, 0.40)}
"""Of grey matter, white matter, fluid and lesions: the first three near the medians of MDT's slice of measured maps, in
voxels of FA < .2, FA > .45 and MD > 1.8e-3 mm2/s (in fluid ICVF and ODI mean nothing)."""
S0 = (0.7, 0.6, 1.0)
"""Signal without weighting of grey matter, white matter and fluid."""


@dataclass(frozen=True)
class Simulation:
    """How scans are simulated.

    Attributes:
        factor: voxels of a map along each axis that make one of the diffusion MRI.
        snr: 1 over the standard deviation of the noise, where fluid without weighting is 1.
        partial_mm: sigma of the Gaussian that mixes tissues at their borders.
        varied: standard deviation of the smooth variation of each map.
        seed: of noise and variation.
    """

    factor: int = 2
    snr: float = 30.0
    partial_mm: float = 1.0
    varied: float = 0.04
    seed: int = 0


def simulate_on_labels(labels: Sequence[Scan], folder: Path, out: Path, root: Path, options: Simulation) -> list[Scan]:
    """Write diffusion MRI and NODDI maps of some people that are not there yet, and give the rows of the sheet.

    Args:
        labels: a map of labels a person, 3D; what is known of the person stays with the simulated scans.
        folder: from which the paths of the labels start.
        out: folder for the scans.
        root: folder from which the sheet's paths start.

    Raises:
        UserError: a map of labels cannot be read, is not 3D, or has no label.
    """
    rows = []
    for number, scan in enumerate(labels, start=1):
        rows += _person(scan, folder, out, root, options)
        log.info("simulated on labels %d/%d: %s", number, len(labels), scan.participant)
    return rows


def tissues_of(labels: NDArray[np.integer], sigma: float) -> NDArray[np.float32]:
    """Fractions (6, X, Y, Z) of `anatomy.TISSUES`, mixed at borders by a Gaussian of ``sigma`` voxels."""
    fluid, white = np.isin(labels, FLUID), np.isin(labels, WHITE)
    classes = [(labels > 0) & ~fluid & ~white, white, fluid]
    mixed = [ndimage.gaussian_filter(each.astype(np.float32), sigma) for each in classes]
    inside = labels > 0
    total = np.maximum(sum(mixed), 1e-6)
    none = np.zeros(labels.shape, np.float32)
    return np.stack([*(np.where(inside, each / total, 0) for each in mixed), none, none, none]).astype(np.float32)


def _person(scan: Scan, folder: Path, out: Path, root: Path, options: Simulation) -> list[Scan]:
    stem = f"sub-{scan.participant}_ses-{scan.session}" if scan.session else f"sub-{scan.participant}"
    names = {
        key: out / f"sub-{scan.participant}" / f"{stem}_{key}"
        for key in ("dwi.nii.gz", "dwi.bval", "dwi.bvec", "dwimask.nii.gz", "noddi.nii.gz", "noddimask.nii.gz")
    }
    if not names["dwi.nii.gz"].exists():
        labels, affine = _read(folder / scan.path)
        digest = hashlib.sha256(f"{options.seed} {stem}".encode()).digest()
        random = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        tissues = tissues_of(labels, options.partial_mm / float(np.abs(affine[0, 0])))
        maps, brain = noddi_maps(tissues, random, VALUES, options.varied), labels > 0
        s0 = np.tensordot(S0, tissues[:3], 1).astype(np.float64) * brain
        signal, bvals, bvecs = acquire(maps, s0, options.factor, 1 / options.snr, random)
        n = options.factor
        coarse = affine @ np.diag([n, n, n, 1.0])
        coarse[:3, 3] = affine[:3, 3] + affine[:3, :3] @ np.full(3, (n - 1) / 2)
        write_text(names["dwi.bval"], " ".join(f"{b:g}" for b in bvals) + "\n")
        write_text(names["dwi.bvec"], "".join(" ".join(f"{v:.6f}" for v in row) + "\n" for row in bvecs.T))
        save_volume(names["noddi.nii.gz"], np.moveaxis(maps, 0, -1).astype(np.float32), affine)
        save_volume(names["noddimask.nii.gz"], brain.astype(np.uint8), affine)
        save_volume(names["dwimask.nii.gz"], (blocks(brain.astype(float), n) > 0.5).astype(np.uint8), coarse)
        save_volume(names["dwi.nii.gz"], (1000 * signal).astype(np.int16), coarse)  # last: the person is complete
    paths = {key: path_in_sheet(name, root) for key, name in names.items()}
    dwi = replace(scan, modality="dwi", path=paths["dwi.nii.gz"], mask=paths["dwimask.nii.gz"])
    return [
        replace(dwi, bval=paths["dwi.bval"], bvec=paths["dwi.bvec"]),
        replace(scan, modality="noddi", path=paths["noddi.nii.gz"], mask=paths["noddimask.nii.gz"]),
    ]


def _read(path: Path) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Labels in the voxel order closest to LAS, in which FSL's gradients need no flip, and their affine."""
    try:
        image: Any = nib.load(path)
        turn = nib.orientations.ornt_transform(
            nib.orientations.io_orientation(image.affine), nib.orientations.axcodes2ornt(("L", "A", "S"))
        )
        image = image.as_reoriented(turn)
        labels = np.asarray(image.dataobj).round().astype(np.int32)
    except (OSError, nib.filebasedimages.ImageFileError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a map of labels ({error}); give NIfTI files") from None
    if labels.ndim != 3 or not labels.any():
        raise UserError(
            f"{path}: {labels.ndim}D, {int((labels > 0).sum())} voxels with a label; give 3D maps of labels"
        )
    return labels, np.asarray(image.affine, np.float64)
