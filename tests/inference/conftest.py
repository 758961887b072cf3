"""A tiny cohort of packed chunks and untrained networks saved as finished models."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline_lib.bundle_plan import FORMAT
from pipeline_lib.bundles.bundle import save_bundle
from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.dataset.conditions import Conditions
from pipeline_lib.dataset.people import trained_people
from pipeline_lib.files import write_json
from pipeline_lib.models.autoencoder import KLAutoencoder
from pipeline_lib.models.unet import UNet
from pipeline_lib.training.denoiser import process_of

SIDE = 16
PREPARED = {"preprocess": {"voxel_size": 2.0}, "data": {"size": [SIDE, SIDE]}}
TOLD = {"prepared": PREPARED}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def make_recipe() -> Callable[..., RecipeOptions]:
    """A recipe at the smallest scale; keyword arguments replace parts."""

    def make(task: str, *, dimensions: int = 2, condition: Sequence[str] = (), **sampling: Any) -> RecipeOptions:
        latent = task in ("synthesis", "translation")
        values: dict[str, Any] = {
            "task": task,
            "data": {"dimensions": dimensions, "size": [SIDE] * dimensions, "modality": "FLAIR"},
            "diffusion": {"timesteps": 20},
            "denoiser": {
                "channels": [8, 8],
                "attention": [False, False],
                "blocks": 1,
                "head_channels": 8,
                "condition": list(condition),
            },
            "sampling": {"steps": 4, "count": 5, "batch_size": 3, **sampling},
        }
        if latent:
            values["autoencoder"] = {"channels": [8, 8], "latent_channels": 3, "blocks": 1}
        if task == "translation":
            values["data"] |= {"target": "noddi", "channels": 2, "modality": "dwi"}
        return RecipeOptions.model_validate(values)

    return make


@pytest.fixture
def make_chunk(tmp_path: Path) -> Callable[..., Path]:
    """A packed chunk of two slices a person, with a lesion in the second person."""

    def make(
        name: str, people: list[str], *, dimensions: int = 2, channels: int = 1, target: bool = False, seed: int = 0
    ) -> Path:
        folder = tmp_path / "dataset" / name
        folder.mkdir(parents=True)
        rng = np.random.default_rng(seed)
        slices = 2 if dimensions == 2 else 1
        number = len(people) * slices
        size = [SIDE] * dimensions
        data = rng.uniform(-1, 1, (number, channels, *size)).astype(np.float32)
        mask = np.zeros((number, 1, *size), np.uint8)
        mask[(slice(None), slice(None), *[slice(3, 13)] * dimensions)] = 1
        np.save(folder / "data.npy", np.where(mask > 0, data, -1))
        np.save(folder / "mask.npy", mask)
        if target:
            maps = np.concatenate([0.5 * data[:, :1] + 0.1, -0.3 * data[:, :1], data[:, 1:2] * data[:, :1]], axis=1)
            np.save(folder / "target.npy", np.where(mask > 0, maps, -1).astype(np.float32))
        pd.DataFrame(
            [
                {
                    "scan": f"{person}_dwi" if target else f"{person}_FLAIR",
                    "participant": person,
                    "session": "",
                    "group": "AB"[n % 2],
                    "age": 30 + 5 * n,
                    "sex": "F",
                    "site": "",
                    "sha256": f"sha-{person}",
                    "slice": 5 * place if dimensions == 2 else "",
                    "has_lesion": "false",
                    "affine": json.dumps([[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 5 * place], [0, 0, 0, 1]]),
                    "space": "MNI152",
                }
                for n, person in enumerate(people)
                for place in range(slices)
            ]
        ).to_csv(folder / "index.tsv", sep="\t", index=False)
        left_right = 1 if dimensions == 2 else 0
        write_json(folder / "prepared.json", PREPARED)
        write_json(folder / "layout.json", {"dimensions": dimensions, "size": size, "left_right": left_right})
        return folder

    return make


@pytest.fixture
def make_denoiser(tmp_path: Path) -> Callable[..., Path]:
    """An untrained denoiser whose model.json says whom it was trained on; output weights are not zero."""

    def make(
        recipe: RecipeOptions, people: list[str], *, channels: int, concat: int = 0, steps: tuple[int, ...] = ()
    ) -> Path:
        torch.manual_seed(0)
        told = pd.DataFrame(
            {"group": ["A", "B"], "age": [20.0, 80.0], "slice": [0.0, 10.0], "modality": ["FLAIR", "T1w"]}
        )
        conditions = Conditions.fitted(recipe.denoiser.condition, told)
        architecture = {
            "dimensions": recipe.data.dimensions,
            "in_channels": channels + concat,
            "out_channels": channels,
            "channels": recipe.denoiser.channels,
            "blocks": 1,
            "attention": recipe.denoiser.attention,
            "head_channels": 8,
            "conditions": [condition.size for condition in conditions],
        }
        network = UNet(**architecture)
        for parameter in network.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
        folder = tmp_path / "diffusion"
        index = pd.DataFrame({"participant": people, "sha256": [f"sha-{person}" for person in people]})
        folder.mkdir()
        process = process_of(recipe, recipe.data.size)
        info = {**trained_people(index), **TOLD, "conditions": conditions.described(), "process": process}
        save_bundle(folder, network, kind="unet", architecture=architecture, info=info)
        (folder / "checkpoints").mkdir()
        for step in steps:
            for parameter in network.parameters():
                parameter.data += 0.02 * torch.randn_like(parameter)
            weights = (folder / "model.safetensors").read_bytes()
            save_bundle(folder, network, kind="unet", architecture=architecture, info={})
            (folder / "checkpoints" / f"step-{step:08d}.safetensors").write_bytes(
                (folder / "model.safetensors").read_bytes()
            )
            (folder / "model.safetensors").write_bytes(weights)
            write_json(folder / "model.json", {**info, "format": FORMAT, "kind": "unet", "architecture": architecture})
        return folder

    return make


@pytest.fixture
def make_autoencoder(tmp_path: Path) -> Callable[..., Path]:
    """An untrained KL autoencoder of factor 2."""

    def make(role: str, people: list[str], *, dimensions: int = 2, channels: int = 1) -> Path:
        torch.manual_seed(1)
        architecture = {
            "dimensions": dimensions,
            "in_channels": channels,
            "channels": [8, 8],
            "latent_channels": 3,
            "blocks": 1,
        }
        folder = tmp_path / "autoencoder" / role
        folder.mkdir(parents=True)
        index = pd.DataFrame({"participant": people, "sha256": [f"sha-{person}" for person in people]})
        size = [SIDE] * dimensions
        info = {**trained_people(index), **TOLD, "scale": [2.0, 0.5, 1.0], "data": {"size": size}}
        save_bundle(folder, KLAutoencoder(**architecture), kind="autoencoder", architecture=architecture, info=info)
        return folder

    return make
