"""The script that trains the embedded brain extraction can be rerun, and gone on with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import pipeline_lib.imaging.train_brain_extraction as script
from pipeline_lib.imaging.nifti import Volume, write_volume


@pytest.fixture
def heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ball in a larger one, of as many people as are held out and two more."""
    distance = np.linalg.norm(np.stack(np.mgrid[:40, :40, :40]) - 19.5, axis=0)
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    image, mask = (200.0 * (distance < 18) - 80 * (distance < 14)), (distance < 13).astype(float)
    for name in ("t1", "brainmask"):
        (tmp_path / name).mkdir()
    for number in range(script.HELD_OUT + 2):
        write_volume(tmp_path / "t1" / f"p{number}_T1.nii.gz", Volume(image.astype(np.float32), affine))
        write_volume(tmp_path / "brainmask" / f"p{number}_brainmask.nii.gz", Volume(mask.astype(np.float32), affine))
    monkeypatch.setattr(script, "synthetic_heads", list)
    return tmp_path


def test_training_goes_on_from_weights_and_names_its_runs(heads: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    data = ["--data", str(heads)]
    assert script.main([*data, "--steps", "1", "--out", str(first)]) == 0
    still = ["--start", str(first), "--learning-rate", "0", "--steps", "1"]
    assert script.main([*data, *still, "--seed", "1", "--out", str(second)]) == 0
    before, after = load_file(first), load_file(second)
    assert all(torch.equal(before[name], after[name]) for name in before), "a learning rate of 0 changes nothing"
    with safe_open(second, "pt") as weights:
        about = weights.metadata()
    assert about["runs"].split("; ") == [
        "--steps 1 --batch 1 --learning-rate 0.002 --seed 0",
        "--steps 1 --batch 1 --learning-rate 0 --seed 1",
    ]
    assert len(about["held_out"].split()) == script.HELD_OUT
    assert not {*about["held_out"].split()} & {*about["trained_on"].split()}


def test_example_follows_from_seed_and_number(heads: Path) -> None:
    head = script.load_head(*script.ixi_paths(heads, "p0"))
    first, second = (script.Examples([head], [], 8, seed=3) for _ in range(2))
    for number in range(8):
        image, mask = first[number]
        again = second[number]
        assert torch.equal(image, again[0])
        assert torch.equal(mask, again[1])
        assert image.shape == mask.shape == (1, *script.BOX)
        assert 0 <= float(image.min()) <= float(image.max()) <= 1
        assert {*mask.unique().tolist()} <= {0.0, 1.0}


def test_heads_that_are_not_turned_keep_their_voxels(heads: Path) -> None:
    head = script.load_head(*script.ixi_paths(heads, "p0"))
    image, mask, _ = script.Randomiser(np.random.default_rng(0))._place(head, degrees=0)
    assert torch.equal(image[mask > 0].sort()[0], head.image[head.mask > 0].sort()[0])
    assert mask.sum() == head.mask.sum()
    turned = script.Randomiser(np.random.default_rng(0))._place(head, degrees=8)[1]
    assert float(turned.sum()) == pytest.approx(float(head.mask.sum()), rel=0.6), "the scale is exp(-0.18) to exp(0.18)"


@pytest.mark.parametrize("content", [None, b"text"])
def test_start_that_is_no_weights_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    start = tmp_path / "start.safetensors"
    if content is not None:
        start.write_bytes(content)
    assert script.main(["--data", str(tmp_path), "--start", str(start)]) == 1
    assert "not weights that this script wrote" in capsys.readouterr().err


def test_too_few_heads_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--data", str(tmp_path)]) == 1
    assert "0 heads (t1/*_T1.nii.gz) found" in capsys.readouterr().err
