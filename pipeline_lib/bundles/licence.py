"""The terms of the scans in models that are finished: a licence may be settled, or corrected, after a training."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

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
    finished = [folder for folder in folders if (folder / PLAN).is_file() and (folder / SIDECAR).is_file()]
    plans = {folder: read_json(folder / PLAN) for folder in finished}
    of_weights = {str(info.get("weights_sha256"))[:16]: info for info in plans.values()}

    def settled(info: dict[str, Any]) -> dict[str, Any]:
        """Its plan with the terms; those of what it started from are settled too, where that is one of ``folders``."""
        started = info.get("started_from")
        earlier = of_weights.get(started["weights"]) if started else None
        if started and earlier and earlier.get("weights_sha256") != info.get("weights_sha256"):
            started = {**started, "licence": settled(earlier)["licence"]}
            info = {**info, "started_from": started}
        return {**info, "licence": terms(licence, started)}

    for folder, info in plans.items():
        plan, sidecar = folder / PLAN, folder / SIDECAR
        if info == (settled_info := settled(info)):
            continue
        made = read_json(sidecar)
        write_json(plan, settled_info)
        made["outputs"][f"{folder.name}/{PLAN}"] = sha256_file(plan)
        time = sidecar.stat().st_mtime_ns
        write_json(sidecar, made)
        os.utime(sidecar, ns=(time, time))
