"""Chunks and inference folders made by hand, whose right scores are known."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline_lib.dataset.people import trained_people
from pipeline_lib.files import write_json

SIDE = 32
MILLIMETRES = 2.0


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@dataclass(frozen=True)
class Chunk:
    dataset: Path
    inference: Path


def write_index(folder: Path, people: list[str], slices: int, groups: str = "AB", *, known: bool = True) -> None:
    affine = json.dumps(np.diag([MILLIMETRES] * 3 + [1.0]).tolist())
    pd.DataFrame(
        [
            {
                "scan": f"{person}_FLAIR",
                "participant": person,
                "session": "",
                "group": groups[n % len(groups)],
                "age": 40,
                "sex": "F",
                "site": "",
                "sha256": f"sha-{person}",
                "slice": place,
                "has_lesion": "false",
                "lesion": "none" if known else "",
                "affine": affine,
            }
            for n, person in enumerate(people)
            for place in range(slices)
        ]
    ).to_csv(folder / "index.tsv", sep="\t", index=False)


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., Path]:
    """A model folder that only says whom it was trained on."""

    def make(people: list[str]) -> Path:
        folder = tmp_path / "diffusion"
        index = pd.DataFrame({"participant": people, "sha256": [f"sha-{person}" for person in people]})
        write_json(folder / "model.json", trained_people(index))
        return folder

    return make


@pytest.fixture
def make_images(tmp_path: Path) -> Callable[..., Path]:
    """A packed chunk of smooth random images, two a person."""

    def make(name: str, people: list[str], *, seed: int, dimensions: int = 2, shift: float = 0.0) -> Path:
        folder = tmp_path / "dataset" / name
        folder.mkdir(parents=True)
        rng = np.random.default_rng(seed)
        coarse = rng.uniform(-0.5, 0.5, (2 * len(people), 1, *[4] * dimensions)) + shift
        for axis in range(2, 2 + dimensions):
            coarse = coarse.repeat(SIDE // 4 if dimensions == 2 else 4, axis=axis)
        np.save(folder / "data.npy", coarse.astype(np.float32))
        np.save(folder / "mask.npy", np.ones(coarse.shape, np.uint8))
        write_index(folder, people, 2)
        return folder

    return make


@pytest.fixture
def make_anomaly_chunk(tmp_path: Path) -> Callable[..., Chunk]:
    """A chunk in which the diffusion map is the lesion plus little noise, and images are noise."""

    def make(name: str, people: list[str], *, lesions: bool = True, known: bool = True, seed: int = 0) -> Chunk:
        chunk = Chunk(tmp_path / "dataset" / name, tmp_path / "inference" / name)
        rng = np.random.default_rng(seed)
        shape = (2 * len(people), 1, SIDE, SIDE)
        mask = np.zeros(shape, np.uint8)
        mask[:, :, 4:28, 4:28] = 1
        lesion = np.zeros(shape, np.uint8)
        for image in range(len(lesion)):
            row, column = rng.integers(6, 20, 2)
            lesion[image, 0, row : row + 6, column : column + 6] = 1
        for folder in (chunk.dataset, chunk.inference):
            folder.mkdir(parents=True)
            write_index(folder, people, 2, known=known)
        write_json(chunk.dataset / "layout.json", {"left_right": 1})
        np.save(chunk.dataset / "data.npy", rng.uniform(-1, 1, shape).astype(np.float32))
        np.save(chunk.dataset / "mask.npy", mask)
        if lesions:
            np.save(chunk.dataset / "lesion.npy", lesion)
        np.save(chunk.inference / "maps.npy", (lesion + rng.normal(0, 0.2, shape)).astype(np.float32))
        np.save(chunk.inference / "reconstruction.npy", rng.normal(size=shape).astype(np.float32))
        return chunk

    return make
