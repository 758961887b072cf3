"""What travels to a machine without network and back (benchmarks/device): how little it changes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from script_modules import load_script
from tiny_chunks import PAIRED, packed
from tiny_training import train

from pipeline_lib.bundles.bundle import load_bundle
from pipeline_lib.bundles.check import check
from pipeline_lib.dataset.packed import PackedDataset
from pipeline_lib.state import training_key


@pytest.fixture(scope="module")
def travel(repository: Path) -> ModuleType:
    return load_script(repository / "benchmarks" / "device" / "travel.py")


def test_a_chunk_comes_back_within_half_a_level(travel: ModuleType, tmp_path: Path) -> None:
    chunk = packed(tmp_path, "train-dmri-0001", [("a", "CN"), ("b", "AD")], PAIRED)
    list(travel.shrink(chunk, tmp_path / "small.npz"))
    travel.open_chunk(tmp_path / "small.npz", tmp_path / "opened" / chunk.name)
    before, after = PackedDataset([chunk]), PackedDataset([tmp_path / "opened" / chunk.name])
    assert after.index.equals(before.index)
    for row in range(len(before)):
        assert torch.equal(after[row]["mask"], before[row]["mask"])
        for name in ("image", "target"):
            assert (after[row][name] - before[row][name]).abs().max() <= 1 / 255 + 1e-6
            assert torch.equal(after[row][name] == -1, before[row][name] < -1 + 1 / 255), "background stays exact"
    assert training_key("r", "denoiser", "", {}, after.folders), "a training takes it for a finished chunk"


def test_what_is_not_exact_is_measured(travel: ModuleType, tmp_path: Path) -> None:
    chunk = packed(tmp_path, "train-anat-0001", [("a", "CN")])
    (line,) = travel.shrink(chunk, tmp_path / "small.npz")
    values = np.load(chunk / "data.npy")
    error = np.abs(travel.from_levels(travel.to_levels(values)) - values).max()
    assert f"error at most {error:.4f}" in line


@pytest.mark.parametrize("kind", ["denoiser", "vqgan"])
def test_a_bundle_of_16_bits_is_a_bundle(travel: ModuleType, kind: str, tmp_path: Path) -> None:
    people = [("a", "CN"), ("b", "AD"), ("c", "CN")]
    chunks = [packed(tmp_path, "train-anat-0001", people)], [packed(tmp_path, "validation-anat-0001", people)]
    model = train(kind, chunks, tmp_path / "out", tmp_path / "state")
    travel.halve(model, tmp_path / "half")
    assert not check(tmp_path / "half")
    whole, half = (load_bundle(folder).module.state_dict() for folder in (model, tmp_path / "half"))
    assert any(not torch.equal(half[name], value) for name, value in whole.items())
    for name, value in whole.items():
        assert half[name].dtype == value.dtype
        torch.testing.assert_close(half[name], value, rtol=2**-10, atol=1e-7)
        assert not name.startswith("quantiser.") or torch.equal(half[name], value)
    assert 0 < travel.difference(model, tmp_path / "half") < 0.01


@pytest.fixture
def lacking(repository: Path, tmp_path: Path) -> dict[str, str]:
    """The environment of a machine on which what stays behind cannot be imported."""
    for package in ("SimpleITK", "nilearn", "snakemake", "umap"):
        (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError('{package} stays behind')\n")
    paths = [tmp_path, repository, repository / "tests", repository / "benchmarks" / "device"]
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))}


@pytest.mark.parametrize("script", ["train.py", "profile_step.py", "travel.py", "machine.py"])
def test_scripts_that_travel_need_no_package_that_stays_behind(
    repository: Path, lacking: dict[str, str], script: str
) -> None:
    code = f"import runpy; runpy.run_path('benchmarks/device/{script}', run_name='imported')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, env=lacking, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_tests_that_travel_need_no_package_that_stays_behind(repository: Path, lacking: dict[str, str]) -> None:
    named = re.search(r"^TESTS=\((.*)\)$", (repository / "benchmarks" / "device" / "run.sh").read_text(), re.M)
    assert named is not None
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-q", "-m", "cuda"]
    done = subprocess.run(
        [*command, *named[1].split()], cwd=repository, env=lacking, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
