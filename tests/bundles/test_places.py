"""What is known place by place travels with a bundle that has it, and is no part of the others."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from pipeline_lib.bundle_plan import SHIPPED, finished_recipe
from pipeline_lib.bundles.check import check
from pipeline_lib.bundles.parts import copy_part

ARRAYS = {
    "contrasts": np.array(["T1w"]),
    "levels": np.zeros(1),
    "mean": np.zeros((1, 2, 2)),
    "deviation": np.ones((1, 2, 2)),
}


def test_places_travel_where_there_are_any(tmp_path: Path) -> None:
    bundle = tmp_path / "own"
    shutil.copytree(SHIPPED / "anomaly-t1", bundle)
    assert "places.npz" not in finished_recipe(bundle).parts["standards"]
    path = bundle / "fitted" / "places.npz"
    np.savez_compressed(path, **ARRAYS)
    assert check(bundle) == []
    copy_part(bundle, "standards", tmp_path / "standards")
    assert (tmp_path / "standards" / "places.npz").read_bytes() == path.read_bytes()

    np.savez_compressed(path, **{**ARRAYS, "mean": np.full((1, 2, 2), np.nan)})
    assert check(bundle) == [f"{path}: mean holds values that are not finite"]
    path.write_bytes(b"no arrays")
    (fault,) = check(bundle)
    assert fault.startswith(f"{path} cannot be read")
