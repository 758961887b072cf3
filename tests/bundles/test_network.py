"""A segmenter and an autoencoder ship on their own, and so does the brain extraction, which is where preprocessing reads it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from pipeline_lib.bundle_plan import SHIPPED, find_bundle, stated
from pipeline_lib.bundles.bundle import load_bundle, make_module, save_bundle
from pipeline_lib.bundles.check import check
from pipeline_lib.bundles.extraction import LICENCE, NAME, plan_of
from pipeline_lib.bundles.network import build_network, is_network
from pipeline_lib.dataset.people import hashed_id
from pipeline_lib.errors import UserError
from pipeline_lib.files import read_json, sha256_file
from pipeline_lib.imaging.brain import WEIGHTS, load_network

FIGURE = {
    "name": "Dice of the brain",
    "value": 0.9,
    "low": 0.8,
    "high": 0.95,
    "role": "result",
    "method": "segmenter",
    "people": 4,
}
UNET = {
    "dimensions": 2,
    "in_channels": 1,
    "out_channels": 2,
    "channels": [8, 8],
    "blocks": 1,
    "attention": [False, False],
}
AUTOENCODER = {"dimensions": 2, "in_channels": 1, "channels": [8], "latent_channels": 2, "blocks": 1, "fold": 2}


@pytest.fixture
def network(tmp_path: Path) -> Callable[..., Path]:
    """The folder of a network as a training leaves it."""

    def make(kind: str = "unet", role: str = "segmenter", **changes: Any) -> Path:
        architecture = UNET if kind == "unet" else AUTOENCODER
        torch.manual_seed(0)
        info = {
            "role": role, "people": [hashed_id("a")], "scans": [hashed_id("b")], "train_people": 1, "train_scans": 1,
            "train_images": 9, "steps": 3, "licence": "CC0", "figures": [FIGURE], "data": {"size": [16, 16]},
            "prepared": {"data": {"modality": "T1w", "size": [16, 16]}, "preprocess": {"voxel_size": 2.0}}, **changes,
        }  # fmt: skip
        save_bundle(
            tmp_path / "trained", make_module(kind, architecture), kind=kind, architecture=architecture, info=info
        )
        (tmp_path / "trained" / "dice.tsv").write_text("participant\na\n")
        return tmp_path / "trained"

    return make


@pytest.mark.parametrize(
    ("kind", "role", "use"),
    [("unet", "segmenter", "evaluation: {segmenter: mine}"), ("autoencoder", "image", "{start_from: mine, ...}")],
)
def test_network_becomes_a_bundle_that_is_whole_and_names_nobody(
    kind: str, role: str, use: str, network: Callable[..., Path], tmp_path: Path
) -> None:
    trained = network(kind, role)
    assert is_network(trained)
    build_network(trained, "mine", tmp_path, data="A made-up head.")
    bundle = tmp_path / "mine"
    assert check(bundle) == []
    assert sorted(path.name for path in bundle.iterdir()) == ["LICENSE", "card.md", "model.json", "model.safetensors"]
    assert {value.dtype for value in load_file(bundle / "model.safetensors").values()} == {torch.float16}
    card = (bundle / "card.md").read_text()
    for text in (
        "A made-up head. Terms: CC0.",
        use,
        "| Dice of the brain | segmenter | result | 0.9  | 0.8 to 0.95 | 4 |",
    ):
        assert text in card, text
    assert load_bundle(bundle).info["people"] == [hashed_id("a")]


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"role": "denoiser"}, "the denoiser of a recipe ships with the rest of it"),
        ({"licence": ""}, "nobody stated the terms"),
        ({"figures": []}, "no figures of held-out people; measure them first"),
    ],
)
def test_network_that_does_not_ship_says_why(
    changes: dict[str, Any], fault: str, network: Callable[..., Path], tmp_path: Path
) -> None:
    trained = network(**changes)
    with pytest.raises(UserError, match=fault):
        build_network(trained, "mine", tmp_path, data="Heads.")
    assert not (tmp_path / "mine").exists()


def test_figures_of_an_earlier_segmenter_are_read_and_shown(network: Callable[..., Path], tmp_path: Path) -> None:
    trained = network(figures=[{"metric": "Dice of the brain, mean over test people", "value": 0.9, "people": 4}])
    (figure,) = stated(read_json(trained / "model.json"))
    assert (figure["name"], figure["role"], figure["low"]) == (
        "Dice of the brain, mean over test people",
        "result",
        None,
    )
    (tmp_path / "figures.json").write_text(json.dumps([FIGURE]))
    words = ["build", trained, "mine", "--data", "Heads.", "--figures", tmp_path / "figures.json", "--out", tmp_path]
    subprocess.run([sys.executable, "-m", "pipeline_lib.bundles", *map(str, words)], check=True, capture_output=True)
    assert [row["name"] for row in read_json(tmp_path / "mine" / "model.json")["figures"]] == ["Dice of the brain"]


def test_brain_extraction_is_a_bundle_with_the_weights_that_preprocessing_reads() -> None:
    folder = find_bundle(NAME)
    assert sha256_file(folder / "model.safetensors") == sha256_file(WEIGHTS)
    own, shipped = load_network().state_dict(), load_bundle(NAME).module.state_dict()
    assert own.keys() == shipped.keys()
    assert all(torch.equal(own[name], shipped[name]) for name in own)
    assert "SBIA" in (folder / "LICENSE").read_text()
    plan = read_json(folder / "model.json")
    assert (plan["licence"], len(plan["people"]), plan["steps"]) == (LICENCE, 79, 15000)
    mean, least = plan["figures"]
    assert (mean["people"], round(mean["value"], 3), round(least["value"], 3)) == (20, 0.985, 0.982)


def test_plan_of_the_brain_extraction_names_its_people_as_hashes(shared_data: Path) -> None:
    ixi = shared_data / "ixi_t1_2mm_rawhead"
    plan = plan_of(WEIGHTS, ixi, dict.fromkeys("abc", 0.9))
    shipped = read_json(SHIPPED / NAME / "model.json")
    assert {key: plan[key] for key in plan if key != "figures"} == {
        key: shipped[key] for key in plan if key != "figures"
    }
    with safe_open(WEIGHTS, framework="pt") as file:
        held_out = file.metadata()["held_out"].split()
    names = [name.replace("-", "") for name in held_out]
    assert not {hashed_id(name) for name in names} & set(plan["people"])
    assert hashed_id("IXI012HH1211") in plan["people"]
