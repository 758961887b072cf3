"""Training: exact after any interruption, honest about whom it saw, never from a wrong checkpoint."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from tiny_chunks import FLAT, packed
from tiny_training import RECIPE, VAE, train

from pipeline_lib.dataset.people import hashed_id
from pipeline_lib.errors import UserError
from pipeline_lib.files import read_json
from pipeline_lib.training.artifact import load_model
from pipeline_lib.training.denoiser import train_denoiser
from pipeline_lib.training.latents import encode_chunk
from pipeline_lib.training.vae import train_vae


@pytest.fixture(scope="module")
def chunks(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], list[Path]]:
    folder = tmp_path_factory.mktemp("chunks")
    train = packed(folder, "train-anat-0001", [("a", "CN"), ("b", "AD"), ("c", "CN")])
    return [train], [packed(folder, "validation-anat-0001", [("d", "CN"), ("e", "AD")])]


KILLED = """
import os, signal, sys
from pathlib import Path
import pipeline_lib.training.trainer as trainer
sys.path[:0] = [{tests!r}, {tests!r} + '/tests']
from tiny_training import train

save = trainer.save_checkpoint
def killing(folder, step, *args, **options):
    path = save(folder, step, *args, **options)
    if step == 4:
        os.kill(os.getpid(), signal.{signal})
    return path
trainer.save_checkpoint = killing
train({kind!r}, ([Path({train!r})], [Path({validation!r})]), Path({out!r}), Path({state!r}))
"""


def interrupted(kind: str, chunks: tuple[list[Path], list[Path]], folder: Path, how: str, repository: Path) -> int:
    program = KILLED.format(
        tests=str(repository), kind=kind, signal=how, train=str(chunks[0][0]), validation=str(chunks[1][0]),
        out=str(folder / "out"), state=str(folder / "state"),
    )  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    return subprocess.run(
        [sys.executable, "-c", program], cwd=repository, env=environment, capture_output=True
    ).returncode


@pytest.mark.parametrize("kind", ["denoiser", "vae", "vqgan"])
def test_killed_and_resumed_equals_undisturbed_bit_for_bit(
    kind: str, chunks: tuple[list[Path], list[Path]], tmp_path: Path, repository: Path
) -> None:
    whole = train(kind, chunks, tmp_path / "whole", tmp_path / "other")
    assert interrupted(kind, chunks, tmp_path, "SIGKILL", repository) == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    resumed = train(kind, chunks, tmp_path / "out", tmp_path / "state")
    first, second = (load_file(folder / "model.safetensors") for folder in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)
    one, two = (pd.read_csv(folder / "history.csv").drop(columns="seconds") for folder in (whole, resumed))
    pd.testing.assert_frame_equal(one, two)


def test_terminated_training_leaves_a_checkpoint_and_an_exit_code(
    chunks: tuple[list[Path], list[Path]], tmp_path: Path, repository: Path
) -> None:
    assert interrupted("denoiser", chunks, tmp_path, "SIGTERM", repository) == 128 + signal.SIGTERM
    assert list((tmp_path / "state").glob("step-*.json"))


def test_damaged_checkpoint_is_recognised_and_the_one_before_used(
    chunks: tuple[list[Path], list[Path]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = train("denoiser", chunks, tmp_path / "whole", tmp_path / "state")
    newest = max((tmp_path / "state").glob("step-*.safetensors"))
    content = bytearray(newest.read_bytes())
    content[-10] ^= 1
    newest.write_bytes(content)
    with caplog.at_level("WARNING", logger="pipeline"):
        again = train("denoiser", chunks, tmp_path / "again", tmp_path / "state")
    assert newest.name in caplog.text
    first, second = (load_file(folder / "model.safetensors") for folder in (whole, again))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_model_says_whom_it_was_trained_on_and_leaves_its_curves(
    chunks: tuple[list[Path], list[Path]], tmp_path: Path
) -> None:
    out = train("denoiser", chunks, tmp_path / "out", tmp_path / "state")
    info = read_json(out / "model.json")
    assert info["people"] == sorted(hashed_id(person) for person in "abc")
    assert info["train_images"] == 9
    for name in ("history.csv", "loss.png", "strip.png", "tensorboard"):
        assert (out / name).exists()
    assert len(list((out / "checkpoints").glob("step-*.safetensors"))) == 2
    history = pd.read_csv(out / "history.csv")
    assert history["step"].max() == 8
    assert history["validation_loss"].notna().any()
    module, _ = load_model(out)
    assert not module.training


def test_latents_are_decoded_to_what_the_autoencoder_reconstructs(
    chunks: tuple[list[Path], list[Path]], tmp_path: Path
) -> None:
    model = train("vae", chunks, tmp_path / "vae", tmp_path / "state")
    encode_chunk({"image": model}, chunks[1][0], tmp_path / "latents")
    mean = np.load(tmp_path / "latents" / "mean.npy")
    assert mean.shape == (6, 2, 8, 8)
    module, info = load_model(model)
    with torch.no_grad():
        expected, _ = module.encode(torch.from_numpy(np.load(chunks[1][0] / "data.npy")))
    np.testing.assert_allclose(mean, expected.numpy(), atol=1e-5)
    assert len(info["scale"]) == 2


def test_learning_lowers_the_validation_loss(chunks: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    longer = VAE.model_copy(update={"training": VAE.training.model_copy(update={"steps": 60, "learning_rate": 3e-3})})
    train_vae(longer, FLAT, *chunks, tmp_path / "out", tmp_path / "state", "image")
    losses = pd.read_csv(tmp_path / "out" / "history.csv")["validation_loss"].dropna()
    assert losses.iloc[-1] < 0.5 * losses.iloc[0]


def test_no_training_image_says_what_to_look_at(chunks: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    data = RECIPE.data.model_copy(update={"train_groups": ["nobody"]})
    with pytest.raises(UserError, match="no training image of groups nobody"):
        train_denoiser(RECIPE.model_copy(update={"data": data}), *chunks, tmp_path / "out", tmp_path / "state", {})


def test_loss_that_is_not_finite_names_step_and_scans(chunks: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    training = VAE.training.model_copy(update={"learning_rate": 1e30, "warmup": 0})
    with pytest.raises(UserError, match=r"not finite at step \d+ \(batch of sub-"):
        train_vae(VAE.model_copy(update={"training": training}), FLAT, *chunks, tmp_path / "o", tmp_path / "s", "image")
