"""Two processes give what one gives: the scripts of the workflow, started as the rules start them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file
from tiny_chunks import FLAT, packed
from tiny_training import RECIPE, VAE, VQGAN

from pipeline_lib.files import read_json, write_json

DEVICES = 2


@pytest.fixture(scope="module")
def chunks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("chunks")
    train = packed(folder, "train-anat-0001", [("a", "CN"), ("b", "AD"), ("c", "CN")])
    validation = packed(folder, "validation-anat-0001", [("d", "CN"), ("e", "AD")])
    for chunk in (train, validation):
        write_json(chunk / "provenance.json", {"outputs": {}})
    return train, validation


def options(kind: str, devices: int) -> str:
    model = {"vae": VAE, "vqgan": VQGAN, "denoiser": RECIPE.denoiser}[kind]
    training = model.training.model_copy(update={"devices": devices, "batch_size": 4})
    model = model.model_copy(update={"training": training})
    if kind == "denoiser":
        return RECIPE.model_copy(update={"denoiser": model}).model_dump_json()
    return json.dumps({"autoencoder": model.model_dump(), "data": FLAT.model_dump()})


def script(kind: str, devices: int, chunks: tuple[Path, Path], folder: Path, repository: Path) -> Path:
    """Run the training script of ``kind`` to its end; its output folder."""
    out = folder / f"{kind}-{devices}"
    command = [
        sys.executable, f"workflow/scripts/train_{kind}.py", "--recipe", "tiny",
        *([] if kind == "denoiser" else ["--role", "image"]),
        "--train", chunks[0], "--validation", chunks[1], "--state", folder / f"state-{devices}",
        "--options", options(kind, devices), "--out", out, "--log", folder / f"{kind}-{devices}.log",
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(repository)}
    done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.parametrize("kind", ["denoiser", "vae", "vqgan"])
def test_two_processes_equal_one_of_the_same_batch(
    kind: str, chunks: tuple[Path, Path], tmp_path: Path, repository: Path
) -> None:
    one, two = (script(kind, devices, chunks, tmp_path, repository) for devices in (1, DEVICES))
    # The deviation of a part of the batch, averaged over the parts, is not that of the whole.
    apart = {"seconds", *(f"{split}_latent_std" for split in ("train", "validation"))}
    histories = [pd.read_csv(out / "history.csv") for out in (one, two)]
    first, second = (history.drop(columns=list(apart & set(history))) for history in histories)
    pd.testing.assert_frame_equal(first, second, rtol=1e-5, atol=1e-6)
    weights, others = (load_file(out / "model.safetensors") for out in (one, two))
    for name, value in weights.items():
        np.testing.assert_allclose(value.numpy(), others[name].numpy(), atol=2e-4, err_msg=name)
    assert outputs(one) == outputs(two)


def outputs(folder: Path) -> set[str]:
    """Names of the files in the sidecar, TensorBoard's apart: theirs are of the process and the time."""
    names = {name.partition("/")[2] for name in read_json(folder / "provenance.json")["outputs"]}
    return {name for name in names if not name.startswith("tensorboard")}
