"""Anomaly maps on the grids of the scans as they came."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import SimpleITK as sitk

from pipeline_lib.errors import UserError
from pipeline_lib.files import atomic_directory, read_json, read_table, write_json
from pipeline_lib.imaging.nifti import RAS, read_volume, write_volume
from pipeline_lib.imaging.registration import native_map
from pipeline_lib.inference.maps import NAME

log = logging.getLogger("pipeline")


def write_native_maps(inferred: Path, preprocessed: Path, ingested: Path, out: Path) -> None:
    """Write ``{scan}_space-individual_desc-anomaly_map.nii.gz``: each map of a chunk on the grid of its scan's file.

    Args:
        inferred: chunk folder of `infer_anomaly`, with ``nifti/``.
        preprocessed: the same chunk preprocessed, with the transforms from MNI152 back to the scan.
        ingested: the same chunk ingested: the scans in RAS+ voxel order, and that of their files.
        out: folder to write, complete or not at all.

    Raises:
        UserError: a scan of a map is in neither chunk.
    """
    known, scans = _outputs(preprocessed), _outputs(ingested)
    orientations = {row["scan"]: row.get("orientation") for row in read_table(ingested / "status.tsv")}
    with atomic_directory(out) as folder:
        for path in sorted((inferred / "nifti").glob(f"*{NAME}")):
            scan = path.name.removesuffix(NAME)
            if scan not in known or scan not in scans:
                raise UserError(f"{path}: {scan} is not in {preprocessed} and {ingested}; run inference again")
            transform = _to_scan(known[scan])
            moved = native_map(read_volume(path), read_volume(scans[scan]["image"]), transform)
            target = folder / f"{scan}_space-individual{NAME}"
            write_volume(target, moved, orientation=orientations.get(scan) or RAS)
            about = read_json(path.with_name(path.name.replace(".nii.gz", ".json")))
            about = {key: value for key, value in about.items() if "Planes" not in key}
            sidecar = about | {"Space": "individual", "Sources": [path.name, *about["Sources"]]}
            write_json(target.with_name(target.name.replace(".nii.gz", ".json")), sidecar)
        log.info("%s: %d maps on the grids of their scans", out.name, len(list(folder.glob(f"*{NAME}"))))


def _outputs(chunk: Path) -> dict[str, dict[str, Path]]:
    return {
        row["scan"]: {name: chunk / path for name, path in json.loads(row["outputs"]).items()}
        for row in read_table(chunk / "status.tsv")
        if row["ok"] == "true"
    }


def _to_scan(outputs: dict[str, Path]) -> sitk.Transform:
    """From MNI152 to the scan; the identity where it was not registered."""
    if "to_scan" not in outputs:
        return sitk.Transform(3, sitk.sitkIdentity)
    return sitk.ReadTransform(str(outputs["to_scan"]))
