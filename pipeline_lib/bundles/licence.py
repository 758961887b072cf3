"""The terms of the scans in models that are finished: a licence may be settled, or corrected, after a training."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from pipeline_lib.bundle_plan import terms
from pipeline_lib.files import read_json, sha256_file, write_json

PLAN = "model.json"
SIDECAR = "provenance.json"


def state_licence(folders: Iterable[Path], licence: str) -> None:
    """Write ``licence``, with the terms of what it started from, into the ``model.json`` of each finished model that says another; nothing is trained again for it.

    The sidecar, which knows the file by its hash, is corrected with it and keeps its time, by which the workflow goes.

    Args:
        folders: of models; those that are not finished are passed over.
    """
    for folder in folders:
        plan, sidecar = folder / PLAN, folder / SIDECAR
        if not (plan.is_file() and sidecar.is_file()):
            continue
        info, made = read_json(plan), read_json(sidecar)
        if info["licence"] == (said := terms(licence, info.get("started_from"))):
            continue
        write_json(plan, info | {"licence": said})
        made["outputs"][f"{folder.name}/{PLAN}"] = sha256_file(plan)
        time = sidecar.stat().st_mtime_ns
        write_json(sidecar, made)
        os.utime(sidecar, ns=(time, time))
