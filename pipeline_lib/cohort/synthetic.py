"""The embedded cohort: synthetic people with known anatomy, groups, lesions and microstructure.

Everything about a person follows from the person's number, so that one can be added later and the
others stay as they are. The truth is kept beside the scans, in ``truth/``: tissues, brain, structures (1 brain, 2 lateral
ventricles), lesions.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline_lib.cohort.anatomy import Anatomy, make_anatomy
from pipeline_lib.cohort.diffusion_mri import acquire, blocks, noddi_maps
from pipeline_lib.cohort.scanner import CENTRE, CONTRASTS, Grid, draw_grid, draw_pose, scan_head
from pipeline_lib.cohort.sheet import NO_LESION, Scan
from pipeline_lib.cohort.written import path_in_sheet, save_volume
from pipeline_lib.files import write_json, write_text

log = logging.getLogger("pipeline")
PEOPLE = 28
GROUPS = ("CN", "AD", "CN", "lesion", "CN", "AD", "lesion")
"""Group of person 1, 2, ... in turn."""
ENLARGEMENT_MM = {"CN": 0.0, "lesion": 0.0, "AD": 7.0}
SECOND_SESSION = 7
"""Every so many people have a second session."""
DIFFUSION_PEOPLE = 14
"""The first so many people have diffusion MRI, unless they have lesions."""
MAP_MM, LOW_RESOLUTION = 2.5, 3
"""Voxels of the NODDI maps, and how many of them make one of the diffusion MRI along each axis."""
DIFFUSION_BOX = np.array([150.0, 187.5, 157.5])
NOTE = "Synthetic: computed from the MNI152 template by pipeline_lib.cohort.synthetic, not scanned."


@dataclass(frozen=True)
class Person:
    """Who a number stands for."""

    number: int
    group: str
    age: int
    sex: str
    split: str
    """Given for people with lesions, who test and validate but never train; empty for the others."""

    @property
    def id(self) -> str:
        """``syn001``."""
        return f"syn{self.number:03d}"


def draw_person(number: int) -> Person:
    """Group, age and sex of person ``number`` (from 1); the AD group is older."""
    group = GROUPS[(number - 1) % len(GROUPS)]
    random = np.random.default_rng([number, 0])
    age = int(random.integers(60, 86) if group == "AD" else random.integers(25, 86))
    sex = "FM"[int(random.integers(2))]
    split = "" if group != "lesion" else "validation" if number % SECOND_SESSION == 0 else "test"
    return Person(number, group, age, sex, split)


def make_cohort(
    out: Path,
    people: Sequence[int],
    *,
    root: Path = Path(),
    voxel_mm: float = 2.5,
    modalities: Sequence[str] = ("T1w",),
    workers: int = 2,
) -> list[Scan]:
    """Write the scans of some people that are not there yet, and give the rows of the sheet.

    Args:
        out: folder for the scans, a BIDS-like tree, with the truth in ``truth/``.
        people: numbers of the people.
        root: folder from which the sheet's paths start.
        voxel_mm: about the voxel size of the anatomical scans.
        modalities: anatomical scans of each session: T1w, T2w, FLAIR.
        workers: processes.
    """
    out.mkdir(parents=True, exist_ok=True)
    write_json(
        out / "dataset_description.json",
        {
            "Name": "Embedded synthetic cohort",
            "BIDSVersion": "1.9.0",
            "DatasetType": "raw",
            "License": "CC0",
            "Description": NOTE,
        },
    )
    make = functools.partial(_make_person, out=out, root=root, voxel_mm=voxel_mm, modalities=modalities)
    context = get_context("fork" if sys.platform == "linux" else "spawn")
    rows: list[Scan] = []
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        for number, (number_of, made) in enumerate(zip(people, pool.map(make, people), strict=True), start=1):
            log.info("synthetic person %d/%d: syn%03d", number, len(people), number_of)
            rows += made
    return rows


def brain_of(scan: Scan) -> Path:
    """The true brain mask of an anatomical scan, as the sheet would name it, below the cohort's folder."""
    stem = f"sub-{scan.participant}_ses-{scan.session}"
    stem = stem if scan.modality == "T1w" else f"{stem}_{scan.modality}"
    return Path("truth") / f"sub-{scan.participant}" / f"{stem}_brain.nii.gz"


def _make_person(number: int, *, out: Path, root: Path, voxel_mm: float, modalities: Sequence[str]) -> list[Scan]:
    person = draw_person(number)
    random = np.random.default_rng([number, 1])
    count = int(random.integers(1, 4)) if person.group == "lesion" else 0
    enlargement = ENLARGEMENT_MM[person.group] + float(random.normal(0, 0.8))
    anatomy = make_anatomy(random, enlargement=enlargement, lesions=count)
    rows = []
    for session in ("1", "2") if number % SECOND_SESSION == 0 else ("1",):
        rows += [_anatomical(person, session, modality, anatomy, out, root, voxel_mm) for modality in modalities]
    if number <= DIFFUSION_PEOPLE and person.group != "lesion":
        rows += _diffusion(person, anatomy, out, root)
    return rows


def _anatomical(
    person: Person, session: str, modality: str, anatomy: Anatomy, out: Path, root: Path, voxel_mm: float
) -> Scan:
    seed = [person.number, 2, int(session)]
    random = np.random.default_rng(seed if modality == "T1w" else [*seed, list(CONTRASTS).index(modality)])
    stem = f"sub-{person.id}_ses-{session}"
    path = out / f"sub-{person.id}" / f"ses-{session}" / "anat" / f"{stem}_{modality}.nii.gz"
    stem = stem if modality == "T1w" else f"{stem}_{modality}"
    truth = out / "truth" / f"sub-{person.id}"
    lesion = truth / f"{stem}_lesion.nii.gz"
    if not path.exists():
        grid = draw_grid(random, draw_pose(random), voxel_mm)
        data, tissues = scan_head(random, anatomy, grid, modality)
        brain = (tissues[[0, 1, 2, 5]].sum(0) > 0.5).astype(np.uint8)
        ventricles = anatomy.ventricles(grid.head_points())
        save_volume(truth / f"{stem}_brain.nii.gz", brain, grid.affine)
        save_volume(
            truth / f"{stem}_structures.nii.gz", np.maximum(brain, 2 * (ventricles > 0.5)).astype(np.uint8), grid.affine
        )
        save_volume(
            truth / f"{stem}_tissues.nii.gz",
            (tissues.argmax(0) + 1).astype(np.uint8) * (tissues.sum(0) > 0.5),
            grid.affine,
        )
        if anatomy.lesions:
            save_volume(lesion, (tissues[5] > 0.5).astype(np.uint8), grid.affine)
        facts = {"ventricles_ml": round(float(ventricles.sum()) * grid.voxel_ml, 2), "note": NOTE}
        write_json(truth / f"{stem}_truth.json", facts | {"group": person.group, "lesions": len(anatomy.lesions)})
        save_volume(path, data, grid.affine)
    return Scan(
        person.id,
        session,
        modality,
        path_in_sheet(path, root),
        group=person.group,
        age=float(person.age),
        sex=person.sex,
        site="synthetic",
        split=person.split,
        lesion=path_in_sheet(lesion, root) if anatomy.lesions else NO_LESION,
    )


def _diffusion(person: Person, anatomy: Anatomy, out: Path, root: Path) -> list[Scan]:
    random = np.random.default_rng([person.number, 3])
    stem = f"sub-{person.id}_ses-1"
    folder = out / f"sub-{person.id}" / "ses-1" / "dwi"
    names = {key: folder / f"{stem}_{key}" for key in ("dwi.nii.gz", "dwi.bval", "dwi.bvec", "dwimask.nii.gz")}
    maps_path = out / "truth" / f"sub-{person.id}" / f"{stem}_noddi.nii.gz"
    mask_path = maps_path.with_name(f"{stem}_noddimask.nii.gz")
    if not names["dwi.nii.gz"].exists():
        fine = _diffusion_grid(draw_pose(random))
        tissues = anatomy.tissues(fine.head_points())
        maps = noddi_maps(tissues, random)
        brain = tissues[[0, 1, 2, 5]].sum(0) > 0.5
        s0 = (0.7 * tissues[0] + 0.6 * tissues[1] + tissues[2] + 0.7 * tissues[5]) * brain
        signal, bvals, bvecs = acquire(maps, s0, LOW_RESOLUTION, 0.02, random)
        coarse = fine.affine @ np.diag([LOW_RESOLUTION] * 3 + [1.0])
        coarse[:3, 3] += fine.affine[:3, :3] @ np.full(3, (LOW_RESOLUTION - 1) / 2)
        save_volume(maps_path, np.moveaxis(maps, 0, -1).astype(np.float32), fine.affine)
        save_volume(mask_path, brain.astype(np.uint8), fine.affine)
        save_volume(
            names["dwimask.nii.gz"], (blocks(brain.astype(float), LOW_RESOLUTION) > 0.5).astype(np.uint8), coarse
        )
        write_text(names["dwi.bval"], " ".join(f"{b:g}" for b in bvals) + "\n")
        write_text(names["dwi.bvec"], "".join(" ".join(f"{v:.6f}" for v in row) + "\n" for row in bvecs.T))
        save_volume(names["dwi.nii.gz"], (1000 * signal).astype(np.int16), coarse)
    known = functools.partial(
        Scan, person.id, "1", group=person.group, age=float(person.age), sex=person.sex, site="synthetic"
    )
    paths = {key: path_in_sheet(path, root) for key, path in names.items()}
    dwi = known(
        "dwi", paths["dwi.nii.gz"], mask=paths["dwimask.nii.gz"], bval=paths["dwi.bval"], bvec=paths["dwi.bvec"]
    )
    return [dwi, known("noddi", path_in_sheet(maps_path, root), mask=path_in_sheet(mask_path, root))]


def _diffusion_grid(pose: NDArray[np.float64]) -> Grid:
    shape = np.round(DIFFUSION_BOX / MAP_MM).astype(int) // LOW_RESOLUTION * LOW_RESOLUTION
    # Left to right stored from right to left, as most scanners do: FSL's gradients then need no flip.
    affine = np.diag([-MAP_MM, MAP_MM, MAP_MM, 1.0])
    centre = pose[:3, :3] @ CENTRE + pose[:3, 3] + [0, 0, 5]
    affine[:3, 3] = centre - affine[:3, :3] @ ((shape - 1) / 2)
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine, pose)
