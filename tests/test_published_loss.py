"""The table of losses by epoch (benchmarks/published_loss.py): means over whole epochs, from a finished training or a checkpoint."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import yaml
from script_modules import load_script
from tiny_chunks import packed
from tiny_training import train

from pipeline_lib.errors import UserError
from pipeline_lib.files import write_json


@pytest.fixture(scope="module")
def script(repository: Path) -> ModuleType:
    return load_script(repository / "benchmarks" / "published_loss.py")


ROWS = [
    {"images": 60, "train_loss": 4.0},
    {"images": 100, "train_loss": 2.0, "validation_loss": 3.0},
    {"images": 200, "train_loss": 1.0, "validation_loss": 0.5},
    {"images": 250, "train_loss": 9.0},
]


def test_an_epoch_is_the_mean_of_its_images_and_only_whole_ones_count(script: ModuleType) -> None:
    found = script.by_epoch(pd.DataFrame(ROWS), 100)
    assert found.index.tolist() == [1, 2]
    assert found["train"].tolist() == pytest.approx([(60 * 4 + 40 * 2) / 100, 1.0])
    assert found["validation"].tolist() == [3.0, 0.5]
    assert script.markdown(found, 0.25, 0.5).splitlines()[2] == "| 1 | - | 3.2000, 3.0000 | - | 6.400, 6.000 |"
    assert "| 10 | .1041, .0902 | - | .416, .361 | - |" in script.markdown(found, 0.25, 0.5)


def test_a_training_that_goes_on_is_read_from_its_newest_checkpoint(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither history.csv nor a checkpoint"):
        script.history(tmp_path)
    for step, rows in ((10, ROWS[:2]), (20, ROWS)):
        content = {"step": step, "values": {"record": {"history": rows}}}
        write_json(tmp_path / f"step-{step:08d}.json", {"content": content})
    assert script.history(tmp_path)["images"].tolist() == [60, 100, 200, 250]


def test_a_finished_training_is_read_from_its_folder(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """8 steps of 3 images are 4 epochs of the 6 images of two people."""
    chunks = [packed(tmp_path, f"{split}-anat-0001", [(f"{split}{n}", "CN") for n in "ab"]) for split in ("t", "v")]
    train("denoiser", ([chunks[0]], [chunks[1]]), tmp_path / "diffusion", tmp_path / "state")
    rows = pd.read_csv(tmp_path / "diffusion" / "history.csv")
    monkeypatch.setattr("sys.argv", ["published_loss.py", str(tmp_path / "diffusion"), "--unit-variance"])
    script.main()
    told = capsys.readouterr().out
    assert "Training images: 6." in told
    last = rows["train_loss"].iloc[-2:].mean(), rows["validation_loss"].iloc[-1]
    cells = ", ".join(f"{loss:.4f}".lstrip("0") for loss in last)
    assert f"| 4 | - | {cells} | - |" in told


def test_raw_simplex_has_the_variance_that_is_told(script: ModuleType) -> None:
    assert script.raw_variance() == pytest.approx(0.26, abs=0.02)


def test_the_configuration_of_the_table_is_the_published_recipe(repository: Path) -> None:
    published = yaml.safe_load((repository / "config/recipes/anomaly.yaml").read_text())
    here = yaml.safe_load((repository / "config/ixi_published.yaml").read_text())["recipes"]["published"]
    training, own = published["denoiser"].pop("training"), here["denoiser"].pop("training")
    del published["data"]["train_groups"]
    assert here == published
    assert own.pop("batch_size") * own.pop("accumulate") == training.pop("batch_size")
    steps = {"validate_every", "checkpoint_every", "precision", "workers"}
    assert {k: v for k, v in own.items() if k not in steps} == {k: v for k, v in training.items() if k not in steps}
