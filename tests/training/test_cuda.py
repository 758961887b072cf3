"""Training on a GPU: half precision, exact resume, what a checkpoint holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from tiny_chunks import packed
from tiny_training import train

from pipeline_lib.bundles.bundle import load_bundle
from pipeline_lib.config.schema import TrainingOptions
from pipeline_lib.files import read_json
from pipeline_lib.training import trainer

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
KINDS = ("denoiser", "vae", "vqgan")
HALF = ("bfloat16", "float16")


@pytest.fixture(scope="module")
def chunks(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], list[Path]]:
    folder = tmp_path_factory.mktemp("chunks")
    train = packed(folder, "train-anat-0001", [("a", "CN"), ("b", "AD"), ("c", "CN")])
    return [train], [packed(folder, "validation-anat-0001", [("d", "CN"), ("e", "AD")])]


@pytest.fixture
def deterministic(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The kernels that give the same sum each time, where there are such."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


class Interrupted(Exception):
    """In place of a killed process, whose start costs seconds on a GPU."""


def interrupt(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    before = trainer.learning_rate

    def rate(at: int, options: TrainingOptions) -> float:
        if at == step:
            raise Interrupted
        return before(at, options)

    monkeypatch.setattr(trainer, "learning_rate", rate)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["float32", *HALF])
def test_interrupted_and_resumed_equals_undisturbed_bit_for_bit(
    kind: str, precision: str, chunks: tuple[list[Path], list[Path]], tmp_path: Path
) -> None:
    whole = train(kind, chunks, tmp_path / "whole", tmp_path / "other", precision=precision)
    with pytest.MonkeyPatch.context() as patched:
        interrupt(patched, 5)
        with pytest.raises(Interrupted):
            train(kind, chunks, tmp_path / "out", tmp_path / "state", precision=precision)
    assert (tmp_path / "state" / "step-00000004.json").is_file(), "there is something to resume"
    resumed = train(kind, chunks, tmp_path / "out", tmp_path / "state", precision=precision)
    first, second = (load_file(folder / "model.safetensors") for folder in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)
    one, two = (pd.read_csv(folder / "history.csv").drop(columns="seconds") for folder in (whole, resumed))
    pd.testing.assert_frame_equal(one, two)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", HALF)
def test_half_precision_learns_what_float32_learns(
    kind: str, precision: str, chunks: tuple[list[Path], list[Path]], tmp_path: Path
) -> None:
    losses = []
    for each in ("float32", precision):
        out = train(kind, chunks, tmp_path / each, tmp_path / f"state-{each}", precision=each, steps=40, ema=0.9)
        losses.append(pd.read_csv(out / "history.csv")["validation_loss"].dropna().to_numpy())
        assert all(value.dtype == torch.float32 for value in load_bundle(out).module.parameters())
    assert losses[0][-1] < losses[0][0]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.1)
    assert (losses[1] != losses[0]).any(), "it really was computed in half precision"


def test_float16_scales_its_loss_and_keeps_the_scale(chunks: tuple[list[Path], list[Path]], tmp_path: Path) -> None:
    train("denoiser", chunks, tmp_path / "out", tmp_path / "state", precision="float16")
    values = read_json(tmp_path / "state" / "step-00000008.json")["content"]["values"]
    assert values["scaler"]["scale"] > 1
    train("denoiser", chunks, tmp_path / "whole", tmp_path / "other")
    assert "scaler" not in read_json(tmp_path / "other" / "step-00000008.json")["content"]["values"]


def test_a_model_trained_on_a_gpu_gives_the_same_on_the_cpu(
    chunks: tuple[list[Path], list[Path]], tmp_path: Path
) -> None:
    """Its weights are kept channels last there, and leave as any other."""
    module, _ = load_bundle(train("denoiser", chunks, tmp_path / "out", tmp_path / "state", steps=40, ema=0.9))
    x, t = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 8])
    with torch.no_grad():
        expected = module(x, t)
        for layout in (torch.contiguous_format, torch.channels_last):
            there = module.to("cuda", memory_format=layout)  # type: ignore[call-overload]  # torch has it
            found = there(x.cuda().to(memory_format=layout), t.cuda()).cpu()
            assert (found - expected).norm() < 0.01 * expected.norm()
