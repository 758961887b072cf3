"""Chunks made on the fly, for the tests of every stage after preprocessing."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from pipeline_lib.config.schema import DataOptions
from pipeline_lib.dataset.pack import pack_chunk
from pipeline_lib.imaging.status import write_status

AFFINE = np.diag([6.0, 6.0, 6.0, 1.0])
AFFINE[:3, 3] = (-93, -123, -69)
SHAPE = (32, 36, 26)
FLAT = DataOptions.model_validate(
    {"size": [16, 16], "voxel_size": 12.0, "slices": {"from_mm": 0, "to_mm": 20, "every_mm": 10}}
)
PAIRED = DataOptions.model_validate(
    {"modality": "dwi", "target": "noddi", "dimensions": 3, "size": [8, 8, 8], "voxel_size": 20.0, "channels": 3}
)


def preprocessed(folder: Path, people: list[tuple[str, str]], *, lesion: bool = False, modality: str = "T1w") -> Path:
    """A preprocessed chunk: a smooth ball in MNI152 space for each (participant, group)."""
    (folder / "scans").mkdir(parents=True)
    rows = []
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"))
    centre = (np.array(SHAPE) / 2).reshape(3, 1, 1, 1)
    radius = np.sqrt((((grid - centre) / centre) ** 2).sum(0))
    mask = radius < 0.8
    for number, (person, group) in enumerate(people):
        for kind, channels in (("dwi", 3), ("noddi", 3)) if modality == "dwi" else ((modality, 0),):
            random = np.random.default_rng(number)
            data = np.clip(1 - radius + 0.1 * random.standard_normal(SHAPE), 0, 1) * mask
            data = np.stack([data ** (c + 1) for c in range(channels)], -1) if channels else data
            scan = f"sub-{person}_{kind}"
            outputs = {"image": f"scans/{scan}.nii.gz", "mask": f"scans/{scan}_mask.nii.gz"}
            write(folder / outputs["image"], data.astype(np.float32))
            write(folder / outputs["mask"], mask.astype(np.uint8))
            if lesion:
                outputs["lesion"] = f"scans/{scan}_lesion.nii.gz"
                write(folder / outputs["lesion"], (radius < 0.2).astype(np.uint8))
            common = {"session": "", "modality": kind, "age": "50", "sex": "F", "site": "", "pair": ""}
            about = {"scan": scan, "participant": person, "group": group, "sha256": f"hash of {scan}"}
            rows.append(common | about | {"ok": "true", "stage": "", "reason": "", "outputs": json.dumps(outputs)})
    write_status(folder / "status.tsv", rows)
    return folder


def write(path: Path, data: np.ndarray) -> None:
    image = nib.Nifti1Image(data, AFFINE)
    image.set_sform(AFFINE, code=4)
    nib.save(image, path)


def packed(folder: Path, name: str, people: list[tuple[str, str]], data: DataOptions = FLAT, **more: bool) -> Path:
    """A packed chunk of such people."""
    modality = data.modality
    pack_chunk(preprocessed(folder / f"preprocessed-{name}", people, modality=modality, **more), data, folder / name)
    return folder / name
