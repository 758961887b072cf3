"""A bundle is read as it was written, checked by whoever receives it, and used only on images prepared alike."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_chunks import FLAT, preprocessed
from tiny_training import RECIPE, train

from pipeline_lib import bundle_plan
from pipeline_lib.bundle_plan import FORMAT, find_bundle, shipped
from pipeline_lib.bundles.build import LARGEST
from pipeline_lib.bundles.bundle import load_bundle
from pipeline_lib.bundles.check import check
from pipeline_lib.dataset.pack import pack_chunk
from pipeline_lib.dataset.people import hashed_id
from pipeline_lib.dataset.prepared import prepared_of, refuse_prepared_otherwise
from pipeline_lib.errors import UserError
from pipeline_lib.files import read_json, sha256_file, write_json
from pipeline_lib.inference.anomaly import infer_anomaly
from pipeline_lib.training.denoiser import train_denoiser
from pipeline_lib.training.latents import encode_chunk

PREPROCESS = {"voxel_size": 6.0, "intensity": "percentile", "dwi_channels": "shells", "quality": {"x": 1}}


def chunk(folder: Path, name: str, people: str, preprocess: dict[str, Any], data: Any = FLAT) -> Path:
    source = preprocessed(folder / f"preprocessed-{name}", [(person, "CN") for person in people])
    write_json(source / "provenance.json", {"options": preprocess})
    pack_chunk(source, data, folder / name)
    return folder / name


@pytest.fixture(scope="module")
def chunks(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], list[Path]]:
    folder = tmp_path_factory.mktemp("chunks")
    return [chunk(folder, "train-anat-0001", "abc", PREPROCESS)], [
        chunk(folder, "validation-anat-0001", "de", PREPROCESS)
    ]


@pytest.fixture(scope="module")
def trained(chunks: tuple[list[Path], list[Path]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained denoiser."""
    folder = tmp_path_factory.mktemp("trained")
    train_denoiser(RECIPE, *chunks, folder / "diffusion", folder / "state", {}, licence="CC0; made up")
    return folder / "diffusion"


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of it whose model.json is changed."""

    def make(**changes: Any) -> Path:
        folder = tmp_path / "copy"
        folder.mkdir()
        (folder / "model.safetensors").write_bytes((trained / "model.safetensors").read_bytes())
        plan = {key: value for key, value in (read_json(trained / "model.json") | changes).items() if value is not None}
        write_json(folder / "model.json", plan)
        return folder

    return make


def test_trained_model_says_all_that_its_use_needs(trained: Path) -> None:
    info = load_bundle(trained).info
    assert info["format"] == FORMAT
    assert info["role"] == "denoiser"
    assert info["prepared"]["preprocess"] == PREPROCESS
    assert info["prepared"]["data"]["size"] == [16, 16]
    assert info["prepared"]["data"]["voxel_size"] == 12.0
    assert info["people"] == sorted(hashed_id(person) for person in "abc")
    assert info["licence"] == "CC0; made up"
    assert info["weights_sha256"] == sha256_file(trained / "model.safetensors")
    assert check(trained) == []


def test_weights_come_back_as_they_were_written_and_never_train(trained: Path) -> None:
    module = load_bundle(trained).module
    for name, value in load_file(trained / "model.safetensors").items():
        assert torch.equal(module.state_dict()[name], value)
    assert not module.training
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_checkpoint_of_a_model_is_read_with_the_models_plan(trained: Path) -> None:
    path = min((trained / "checkpoints").glob("*.safetensors"))
    early, late = load_bundle(path), load_bundle(trained)
    assert early.info == late.info
    assert any(not torch.equal(a, b) for a, b in zip(early.module.parameters(), late.module.parameters(), strict=True))


def test_later_format_is_refused(copy: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=f"has format {FORMAT + 1}; this version reads up to {FORMAT}"):
        load_bundle(copy(format=FORMAT + 1))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"prepared": None, "licence": None}, "lacks prepared, licence"),
        ({"people": ["sub-01"]}, "people are to be hashes"),
        ({"note": "/home/somebody/scans"}, "holds a path of the machine it was trained on: /home/somebody/scans"),
        ({"kind": "vqgan"}, "does not fit"),
        ({"kind": "diffusers"}, "a model of kind 'diffusers' is unknown"),
        ({"format": None}, "is not the plan of a bundle"),
    ],
)
def test_check_finds_what_is_wrong_with_a_plan(copy: Callable[..., Path], changes: dict[str, Any], fault: str) -> None:
    faults = check(copy(**changes))
    assert len(faults) == 1
    assert fault in faults[0]


def test_check_finds_altered_weights(copy: Callable[..., Path]) -> None:
    folder = copy()
    weights = load_file(folder / "model.safetensors")
    name = next(name for name, value in weights.items() if value.is_floating_point())
    weights[name].view(-1)[0] = float("nan")
    save_file(weights, folder / "model.safetensors")
    faults = check(folder)
    assert "its SHA-256 differs" in faults[0]
    assert f"{name} holds values that are not finite" in faults[1]


def test_commands_list_show_and_check(trained: Path, copy: Callable[..., Path], repository: Path) -> None:
    def run(*words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipeline_lib.bundles", *map(str, words)]
        return subprocess.run(command, cwd=repository, capture_output=True, text=True)

    assert run("list").returncode == 0
    shown = run("show", trained).stdout
    for text in ("licence: CC0; made up", "3 people", "voxel_size 6.0", "size [16, 16]"):
        assert text in shown
    assert run("check", trained).returncode == 0
    bad = run("check", copy(people=["Jane"]))
    assert bad.returncode == 1
    assert "hashes" in bad.stdout
    missing = run("show", "nowhere")
    assert missing.returncode == 1
    assert missing.stderr.startswith("ERROR nowhere: no such bundle; ")
    assert len(missing.stderr.splitlines()) == 1


def test_bundle_that_ships_is_found_by_its_name(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny").mkdir()
    for name in ("model.json", "model.safetensors"):
        (tmp_path / "tiny" / name).write_bytes((trained / name).read_bytes())
    monkeypatch.setattr(bundle_plan, "SHIPPED", tmp_path)
    assert shipped() == ["tiny"]
    assert load_bundle("tiny").info == load_bundle(trained).info


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["bundles list", "cohort --help", "bundles check nowhere"])
def test_a_command_read_by_head_ends_without_a_word(command: str, unbuffered: str, repository: Path) -> None:
    words = f"{shlex.quote(sys.executable)} -m pipeline_lib.{command} | true; exit ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(["bash", "-c", words], cwd=repository, capture_output=True, text=True, env=environment)
    assert done.stderr == ""
    if "nowhere" in command:
        assert done.returncode, "what was wrong stays wrong"


def test_a_command_without_an_output_ends_without_a_word(repository: Path) -> None:
    words = f"{shlex.quote(sys.executable)} -m pipeline_lib.bundles list >&-"
    done = subprocess.run(["bash", "-c", words], cwd=repository, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_show_says_in_words_what_a_model_is_told_and_what_it_reached() -> None:
    command = [sys.executable, "-m", "pipeline_lib.bundles", "show", "generator-t1"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "told: age (number, 20.9 to 79.4), slice (number, -10 to 40)" in shown
    assert "held out: KID 0.0484 [-0.0916, 0.188], diffusion (result)" in shown
    assert "diffusion minus held-out people, half against half" in shown
    assert "slices (every_mm 2.0, from_mm -10.0, plane axial, to_mm 40.0)" in shown
    (network,) = [line for line in shown.splitlines() if line.startswith("network: ")]
    for option in ("fold 4", "channels [64, 80, 96]", "blocks 1", "attention [False, False, True]", "detail 16"):
        assert option in network
    assert "{" not in shown


def test_every_bundle_that_ships_is_whole_and_small() -> None:
    assert {name: check(name) for name in shipped()} == {name: [] for name in shipped()}
    sizes = {
        name: sum(path.stat().st_size for path in find_bundle(name).rglob("*") if path.is_file()) for name in shipped()
    }
    assert all(size <= LARGEST for size in sizes.values())
    assert sum(sizes.values()) <= 5 * LARGEST


def test_images_prepared_otherwise_are_refused_with_every_difference(trained: Path, tmp_path: Path) -> None:
    otherwise = PREPROCESS | {"voxel_size": 3.0, "intensity": "zscore"}
    foreign = chunk(tmp_path, "test-anat-0001", "xy", otherwise, FLAT.model_copy(update={"size": [8, 16]}))
    with pytest.raises(UserError) as refused:
        infer_anomaly(RECIPE, trained, tmp_path, foreign, tmp_path / "out")
    for text in (
        "data.size [8, 16] (there [16, 16])",
        "intensity zscore (there percentile)",
        "voxel_size 3.0 (there 6.0)",
    ):
        assert text in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_who_is_let_in_and_where_slices_lie_is_no_difference(trained: Path, tmp_path: Path) -> None:
    """Nor is what concerns diffusion MRI alone, for a model of T1w."""
    slices = FLAT.slices.model_copy(update={"to_mm": 10.0})
    like = PREPROCESS | {"quality": {"x": 2}, "dwi_channels": "directions"}
    same = chunk(
        tmp_path, "test-anat-0001", "xy", like, FLAT.model_copy(update={"slices": slices, "train_groups": ["CN"]})
    )
    refuse_prepared_otherwise(trained, read_json(trained / "model.json"), same)


def test_autoencoder_does_not_encode_images_prepared_otherwise(
    chunks: tuple[list[Path], list[Path]], tmp_path: Path
) -> None:
    model = train("vae", chunks, tmp_path / "vae", tmp_path / "state")
    assert check(model) == []
    foreign = chunk(tmp_path, "test-anat-0001", "xy", PREPROCESS | {"voxel_size": 3.0})
    with pytest.raises(UserError, match=r"preprocess\.voxel_size 3\.0 \(there 6\.0\)"):
        encode_chunk({"image": model}, foreign, tmp_path / "latents")
    encode_chunk({"image": model}, chunks[1][0], tmp_path / "latents")
    assert prepared_of([tmp_path / "latents"]) == prepared_of(chunks[0])


def test_chunks_prepared_differently_are_not_learned_from_together(
    chunks: tuple[list[Path], list[Path]], tmp_path: Path
) -> None:
    other = chunk(tmp_path, "train-anat-0002", "fg", PREPROCESS | {"intensity": "zscore"})
    with pytest.raises(UserError, match="prepared otherwise than .*intensity zscore"):
        train("vae", ([*chunks[0], other], chunks[1]), tmp_path / "out", tmp_path / "state")
    assert not list((tmp_path / "state").glob("step-*")), "refused before a step is made"


def test_plan_of_a_model_is_plain_json_and_names_nobody(trained: Path) -> None:
    text = (trained / "model.json").read_text()
    assert "sub-" not in text
    assert json.loads(text)["kind"] == "unet"
