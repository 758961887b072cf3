"""Training: exact after any interruption, honest about whom it saw, never from a wrong checkpoint."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tiny_chunks import FLAT, packed
from tiny_training import RECIPE, VAE, train

from pipeline_lib.bundles import bundle
from pipeline_lib.bundles.bundle import load_bundle
from pipeline_lib.config.schema import TrainingOptions
from pipeline_lib.dataset.packed import PackedDataset
from pipeline_lib.dataset.people import hashed_id
from pipeline_lib.diffusion.schedule import log_snr_shift
from pipeline_lib.errors import UserError
from pipeline_lib.files import read_json, sha256_file, sha256_text, write_json
from pipeline_lib.training import trainer
from pipeline_lib.training.denoiser import process_of, train_denoiser
from pipeline_lib.training.latents import encode_chunk
from pipeline_lib.training.steps import Step
from pipeline_lib.training.vae import VAEStep, train_vae


@pytest.fixture(scope="module")
def chunks(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], list[Path]]:
    folder = tmp_path_factory.mktemp("chunks")
    train = packed(folder, "train-anat-0001", [("a", "CN"), ("b", "AD"), ("c", "CN")])
    return [train], [packed(folder, "validation-anat-0001", [("d", "CN"), ("e", "AD")])]


KILLED = """
import os, signal, sys
from pathlib import Path
import pipeline_lib.{module} as patched
import pipeline_lib.training.trainer
sys.path[:0] = [{tests!r}, {tests!r} + '/tests']
from tiny_training import train

before, calls = patched.{function}, 0
def killing(*args, **options):
    global calls
    calls += 1
    if calls == {call} and {first}:
        os.kill(os.getpid(), signal.{signal})
    made = before(*args, **options)
    if calls == {call}:
        os.kill(os.getpid(), signal.{signal})
    return made
patched.{function} = killing
train({kind!r}, ([Path({train!r})], [Path({validation!r})]), Path({out!r}), Path({state!r}))
"""
AFTER_A_CHECKPOINT = {"module": "training.checkpoint", "function": "save_checkpoint", "call": 2, "first": False}
MOMENTS = {
    "after a checkpoint": AFTER_A_CHECKPOINT,
    "before its tensors are whole": {"module": "bundles.bundle", "function": "save_file", "call": 2, "first": False},
    "between its tensors and its manifest": {
        "module": "training.checkpoint",
        "function": "write_json",
        "call": 2,
        "first": True,
    },
    "in the middle of a step": {"module": "training.trainer", "function": "learning_rate", "call": 6, "first": True},
}


def interrupted(
    kind: str, chunks: tuple[list[Path], list[Path]], folder: Path, how: str, repository: Path,
    moment: dict[str, object] = AFTER_A_CHECKPOINT,
) -> int:  # fmt: skip
    program = KILLED.format(
        tests=str(repository), kind=kind, signal=how, train=str(chunks[0][0]), validation=str(chunks[1][0]),
        out=str(folder / "out"), state=str(folder / "state"), **moment,
    )  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    return subprocess.run(
        [sys.executable, "-c", program], cwd=repository, env=environment, capture_output=True
    ).returncode


@pytest.mark.parametrize(
    ("kind", "moment"),
    [("denoiser", "after a checkpoint"), ("vae", "after a checkpoint"), *(("vqgan", moment) for moment in MOMENTS)],
)
def test_killed_and_resumed_equals_undisturbed_bit_for_bit(
    kind: str, moment: str, chunks: tuple[list[Path], list[Path]], tmp_path: Path, repository: Path
) -> None:
    whole = train(kind, chunks, tmp_path / "whole", tmp_path / "other")
    assert interrupted(kind, chunks, tmp_path, "SIGKILL", repository, MOMENTS[moment]) == -signal.SIGKILL
    assert list((tmp_path / "state").glob("step-*.json")), "there is something to resume"
    assert not (tmp_path / "out").exists()
    resumed = train(kind, chunks, tmp_path / "out", tmp_path / "state")
    first, second = (load_file(folder / "model.safetensors") for folder in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)
    one, two = (pd.read_csv(folder / "history.csv").drop(columns="seconds") for folder in (whole, resumed))
    pd.testing.assert_frame_equal(one, two)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_signalled_training_leaves_a_checkpoint_of_that_step_and_an_exit_code(
    name: str, chunks: tuple[list[Path], list[Path]], tmp_path: Path, repository: Path
) -> None:
    moment = MOMENTS["in the middle of a step"] | {"call": 5}
    assert interrupted("denoiser", chunks, tmp_path, name, repository, moment) == 128 + getattr(signal, name)
    assert (tmp_path / "state" / "step-00000005.json").is_file(), "a step at which none was due"


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
    module, _ = load_bundle(out)
    assert not module.training


def test_latents_are_decoded_to_what_the_autoencoder_reconstructs(
    chunks: tuple[list[Path], list[Path]], tmp_path: Path
) -> None:
    model = train("vae", chunks, tmp_path / "vae", tmp_path / "state")
    encode_chunk({"image": model}, chunks[1][0], tmp_path / "latents")
    mean = np.load(tmp_path / "latents" / "mean.npy")
    assert mean.shape == (6, 2, 8, 8)
    module, info = load_bundle(model)
    with torch.no_grad():
        expected, _ = module.encode(torch.from_numpy(np.load(chunks[1][0] / "data.npy")))
    np.testing.assert_allclose(mean, expected.numpy(), atol=1e-5)
    assert len(info["scale"]) == 2


def test_images_that_do_not_divide_go_through_a_folded_autoencoder_and_its_denoiser(tmp_path: Path) -> None:
    """15 x 15 folded by 4 and halved: the latent covers 16 x 16, and what comes back is 15 x 15."""
    data = FLAT.model_copy(update={"size": [15, 15]})
    chunk = packed(tmp_path, "train-anat-0001", [("a", "CN"), ("b", "AD")], data)
    train_vae(VAE.model_copy(update={"fold": 4}), data, [chunk], [chunk], tmp_path / "vae", tmp_path / "s1", "image")
    encode_chunk({"image": tmp_path / "vae"}, chunk, tmp_path / "latents")
    assert np.load(tmp_path / "latents" / "mean.npy").shape == (6, 2, 2, 2)
    recipe = RECIPE.model_copy(update={"data": data, "denoiser": RECIPE.denoiser.model_copy(update={"fold": 4})})
    for name, chunks, vae in (
        ("pixels", [chunk], {}),
        ("latents", [tmp_path / "latents"], {"image": tmp_path / "vae"}),
    ):
        train_denoiser(recipe, chunks, chunks, tmp_path / name, tmp_path / f"state-{name}", vae)
        strip = np.load(sorted((tmp_path / f"state-{name}" / "strips").glob("*.npy"))[-1])
        assert strip.shape[1:3] == (15, 15)


def test_what_is_learned_is_known_at_each_level_of_noise(chunks: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    table = pd.read_csv(train("denoiser", chunks, tmp_path / "out", tmp_path / "state") / "noise_levels.tsv", sep="\t")
    assert table["first_t"].tolist() == table["last_t"].tolist() == list(range(10))
    assert (table["images"] == 6).all()
    assert table["log_snr"].is_monotonic_decreasing
    # Hardly trained, it predicts about no noise: the error of eps is its variance, and its x0 is worse than linear.
    np.testing.assert_allclose(table["loss"], table["eps_mse"], rtol=1e-5)
    np.testing.assert_allclose(table["eps_mse"], 1, atol=0.15)
    abar = 1 / (1 + np.exp(-table["log_snr"]))
    np.testing.assert_allclose(table["x0_mse"], table["eps_mse"] * (1 - abar) / abar, rtol=1e-3)
    assert (table["x0_mse"] > table["x0_mse_linear"]).all()
    images = np.load(chunks[1][0] / "data.npy")
    linear = images.var() * (1 - abar) / (abar * images.var() + 1 - abar)
    np.testing.assert_allclose(table["x0_mse_linear"], linear, rtol=1e-3)
    assert (table["eps_variance"] < 0.2).all()
    assert not table["eps_white"].any(), "about no noise is not white noise"
    assert ((table["eps_limit"] > 0) & (table["eps_limit"] < 1)).all()


def test_the_model_keeps_the_process_it_was_trained_with(chunks: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    diffusion = RECIPE.diffusion.model_copy(update={"shift": -2.0, "prediction": "x0", "loss_weight": "v"})
    recipe = RECIPE.model_copy(update={"diffusion": diffusion})
    train_denoiser(recipe, *chunks, tmp_path / "out", tmp_path / "state", {})
    kept = read_json(tmp_path / "out" / "model.json")["process"]
    assert kept == process_of(recipe, [16, 16])
    assert kept["shift"] == -2
    large = process_of(RECIPE, [256, 256])
    assert large["shift"] == log_snr_shift([256, 256]) < 0


def test_learning_lowers_the_validation_loss(chunks: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    longer = VAE.model_copy(update={"training": VAE.training.model_copy(update={"steps": 60, "learning_rate": 3e-3})})
    train_vae(longer, FLAT, *chunks, tmp_path / "out", tmp_path / "state", "image")
    losses = pd.read_csv(tmp_path / "out" / "history.csv")["validation_loss"].dropna()
    assert losses.iloc[-1] < 0.5 * losses.iloc[0]


def test_epochs_are_counted_in_steps_from_the_size_of_the_dataset(
    chunks: tuple[list[Path], list[Path]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """9 images in batches of 2, twice a step: 2.5 epochs are 5.6 steps, and a step is whole."""
    training = {"epochs": 2.5, "batch_size": 2, "accumulate": 2, "warmup": 0}
    options = TrainingOptions.model_validate(training)
    assert TrainingOptions.model_validate(options.model_dump()) == options, "as a stage is given it"
    with caplog.at_level("INFO", logger="pipeline"):
        train_vae(VAE.model_copy(update={"training": options}), FLAT, *chunks, tmp_path / "o", tmp_path / "s", "image")
    assert read_json(tmp_path / "o" / "model.json")["steps"] == 6
    assert "2.5 epochs of 9 images are 6 steps" in caplog.text


@pytest.mark.parametrize("both", [{"steps": 5, "epochs": 2}, {"steps": 0}])
def test_steps_or_epochs_and_not_both(both: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"remove one of them|give one of them"):
        TrainingOptions.model_validate(both)


def test_no_training_image_says_what_to_look_at(chunks: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    data = RECIPE.data.model_copy(update={"train_groups": ["nobody"]})
    with pytest.raises(UserError, match="no training image of groups nobody"):
        train_denoiser(RECIPE.model_copy(update={"data": data}), *chunks, tmp_path / "out", tmp_path / "state", {})


def test_loss_that_is_not_finite_names_step_and_scans(chunks: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    training = VAE.training.model_copy(update={"learning_rate": 1e30, "warmup": 0})
    with pytest.raises(UserError, match=r"not finite at step \d+ \(batch of sub-"):
        train_vae(VAE.model_copy(update={"training": training}), FLAT, *chunks, tmp_path / "o", tmp_path / "s", "image")


def test_training_without_progress_stops_and_keeps_its_best(
    chunks: tuple[list[Path], list[Path]], tmp_path: Path
) -> None:
    """The rate is so high that the loss rises: the best step comes early, and patience ends."""
    changes = {"steps": 400, "learning_rate": 0.3, "warmup": 0, "validate_every": 4, "patience": 5, "ema": 0.0}
    options = VAE.model_copy(update={"training": VAE.training.model_copy(update=changes)})
    for out in ("out", "again"):
        train_vae(options, FLAT, *chunks, tmp_path / out, tmp_path / "state", "image")
    history = pd.read_csv(tmp_path / "out" / "history.csv")
    info = read_json(tmp_path / "out" / "model.json")
    best = history.loc[history["validation_loss"].idxmin(), "step"]
    assert info["best_step"] == best
    assert info["steps"] == history["step"].max() == best + 20 < 400
    kept = load_file(tmp_path / "state" / f"step-{best:08d}.safetensors")
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(written[name], kept[f"average/{name}"]) for name in written)
    assert (tmp_path / "again/model.safetensors").read_bytes() == (tmp_path / "out/model.safetensors").read_bytes()


def test_full_disk_is_one_line_and_earlier_checkpoints_stay(
    chunks: tuple[list[Path], list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, calls = bundle.save_file, []

    def full(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) > 2:
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        before(*arguments)

    monkeypatch.setattr(bundle, "save_file", full)
    with pytest.raises(UserError, match=r"checkpoint of step 6 cannot be written \(No space left on device\): free"):
        train("vae", chunks, tmp_path / "out", tmp_path / "state")
    assert sorted(path.name for path in (tmp_path / "state").glob("step-*.json")) == [
        "step-00000002.json",
        "step-00000004.json",
    ]
    assert not list((tmp_path / "state").glob(".partial-*"))
    assert not (tmp_path / "out").exists()


def test_folder_that_cannot_be_written_is_one_line(chunks: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "step-00000002.safetensors").mkdir()
    with pytest.raises(UserError, match="checkpoint of step 2 cannot be written"):
        train("vae", chunks, tmp_path / "out", tmp_path / "state")


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_short_memory_says_what_to_lower_and_keeps_what_was_written(
    error: Exception, chunks: tuple[list[Path], list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = VAEStep.losses

    def short(self: VAEStep, name: str, batch: object, draw: object, step: int) -> object:
        if step == 3:
            raise error
        return before(self, name, batch, draw, step)

    monkeypatch.setattr(VAEStep, "losses", short)
    with pytest.raises(UserError, match=r"out of memory with training.batch_size 3; lower it and raise"):
        train("vae", chunks, tmp_path / "out", tmp_path / "state")
    assert (tmp_path / "state" / "step-00000002.json").is_file()


class Copying(Step):
    """One convolution that learns to give its input back: nothing random, so that runs can be compared."""

    averaged = "copy"

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.modules = {self.averaged: torch.nn.Conv2d(1, 1, 3, padding=1)}

    def order(self, step: int) -> list[str]:
        return [self.averaged]

    def losses(self, name: str, batch: dict[str, torch.Tensor], draw: object, step: int) -> dict[str, torch.Tensor]:
        return {"loss": (self.modules[name](batch["image"]).float() - batch["image"]).square().mean()}

    def validate(
        self, module: torch.nn.Module, batch: dict[str, torch.Tensor], draw: object
    ) -> dict[str, torch.Tensor]:
        return {"loss": (module(batch["image"]).float() - batch["image"]).square().mean()}

    def strip(self, module: torch.nn.Module) -> torch.Tensor:
        return torch.zeros(1, 1, 4, 4)


def copied(chunks: tuple[list[Path], list[Path]], state: Path, **changes: object) -> trainer.Trained:
    options = VAE.training.model_copy(update={"steps": 6, "batch_size": 4, "learning_rate": 0.01, **changes})
    images = PackedDataset(chunks[0])
    scans = images.index["scan"].tolist()
    fabric = trainer.launch(options, 2)
    return trainer.train(fabric, "copy", Copying(), images, scans, PackedDataset(chunks[1]), options, state)


def test_accumulated_batches_equal_one_large_batch(chunks: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    whole = copied(chunks, tmp_path / "whole")
    parts = copied(chunks, tmp_path / "parts", batch_size=2, accumulate=2)
    for one, other in zip(whole.module.parameters(), parts.module.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert whole.history["images"].tolist() == parts.history["images"].tolist()


def test_half_precision_keeps_its_weights_whole(chunks: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    whole = copied(chunks, tmp_path / "whole", steps=30)
    half = copied(chunks, tmp_path / "half", steps=30, precision="bfloat16")
    assert all(parameter.dtype == torch.float32 for parameter in half.module.parameters())
    last = [each.history["validation_loss"].dropna().iloc[-1] for each in (whole, half)]
    assert last[1] == pytest.approx(last[0], rel=0.05)
    assert last[1] != last[0], "it really was computed in half precision"


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU these are allowed")
@pytest.mark.parametrize(("precision", "dimensions"), [("float16", 2), ("bfloat16", 3)])
def test_half_precision_that_a_cpu_cannot_do_is_refused(precision: str, dimensions: int) -> None:
    options = TrainingOptions.model_validate({"steps": 1, "precision": precision})
    with pytest.raises(UserError, match=f"training.precision {precision} .*needs a GPU.*; use float32 here"):
        trainer.launch(options, dimensions)


def test_gradient_is_clipped_to_its_limit(chunks: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    """AdamW hardly sees the scale of a gradient, its second moments do: after one step 0.001 x gradient squared."""
    copied(chunks, tmp_path / "state", steps=1, clip=1e-3, checkpoint_every=1)
    tensors = load_file(tmp_path / "state" / "step-00000001.safetensors")
    moments = [value for name, value in tensors.items() if name.endswith("exp_avg_sq")]
    assert sum(float(value.sum()) for value in moments) == pytest.approx(1e-6 * 0.001, rel=1e-3)


class Bomb:
    """Pickled, it writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.mark,)


def armed(mark: Path) -> bytes:
    """A pickle whose unpickling would leave ``mark``."""
    bomb = Bomb(mark)
    function, arguments = bomb.__reduce__()
    function(*arguments)
    assert mark.is_file(), "what an unpickler would call leaves its mark"
    mark.unlink()
    return pickle.dumps(bomb)


def test_pickled_weights_are_refused_and_never_run(chunks: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    """As a model, and as a checkpoint whose hashes are right: whoever wrote it could have made them so."""
    mark = tmp_path / "unpickled"
    payload = armed(mark)

    model = train("vae", chunks, tmp_path / "out", tmp_path / "state")
    (model / "model.safetensors").write_bytes(payload)
    with pytest.raises(UserError, match="does not fit"):
        load_bundle(model)

    manifest = max((tmp_path / "state").glob("step-*.json"))
    weights = manifest.with_suffix(".safetensors")
    weights.write_bytes(payload)
    content = read_json(manifest)["content"] | {"tensors_sha256": sha256_file(weights)}
    digest = sha256_text(json.dumps(content, sort_keys=True))
    write_json(manifest, {"content": content, "sha256": digest})
    with pytest.raises(UserError, match="is no safetensors file"):
        train("vae", chunks, tmp_path / "again", tmp_path / "state")
    assert not mark.exists()


def test_packed_array_of_objects_is_refused_and_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "unpickled"
    chunk = packed(tmp_path, "train-anat-0001", [("a", "CN")])
    header = {"descr": "|O", "fortran_order": False, "shape": (len(np.load(chunk / "data.npy")),)}
    with open(chunk / "data.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.write(armed(mark))
    with pytest.raises(UserError, match=r"data\.npy"):
        PackedDataset([chunk])[0]
    assert not mark.exists()
