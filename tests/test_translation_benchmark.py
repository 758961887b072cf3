"""The benchmark of both ways of a translation (benchmarks/translation.py): the blocks it cuts of people."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from script_modules import load_script

from pipeline_lib.files import read_json, write_json


@pytest.fixture(scope="module")
def script(repository: Path) -> ModuleType:
    return load_script(repository / "benchmarks" / "translation.py")


def test_a_block_begins_at_the_left_edge_of_the_brain_and_lies_where_it_did(script: ModuleType, tmp_path: Path) -> None:
    size, brain = (60, 64, 48), (slice(7, 55), slice(10, 61), slice(0, 48))
    chunk = tmp_path / "test-dmri-0001"
    chunk.mkdir()
    mask = np.zeros((1, 1, *size), np.uint8)
    mask[0, 0][brain] = 1
    places = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij")).astype(np.float32)[None]
    for name, values in (("data", places), ("target", places), ("mask", mask)):
        np.save(chunk / f"{name}.npy", values)
    affine = np.array([[2.0, 0, 0, -60], [0, 2, 0, -70], [0, 0, 2, -50], [0, 0, 0, 1]])
    pd.DataFrame({"scan": ["a"], "affine": [json.dumps(affine.tolist())]}).to_csv(
        chunk / "index.tsv", sep="\t", index=False
    )
    write_json(chunk / "layout.json", {"dimensions": 3, "size": list(size)})
    write_json(chunk / "prepared.json", {"preprocess": None, "data": {"size": list(size)}})

    script.cut(chunk, tmp_path / "cut", script.BLOCK)
    script.cut(chunk, tmp_path / "eighths", script.BLOCK // 2)

    (block,) = np.load(tmp_path / "cut/data.npy")
    first = block[:, 0, 0, 0]
    assert first.tolist() == [7, (10 + 61 - script.BLOCK) // 2, (48 - script.BLOCK) // 2]
    assert block.shape == (3, *[script.BLOCK] * 3)
    assert np.load(tmp_path / "cut/mask.npy").all()
    moved = np.array(json.loads(pd.read_csv(tmp_path / "cut/index.tsv", sep="\t")["affine"].iloc[0]))
    np.testing.assert_allclose(moved @ [0, 0, 0, 1], affine @ [*first, 1])
    eighths = np.load(tmp_path / "eighths/data.npy")
    half = script.BLOCK // 2
    assert len(eighths) == 8
    np.testing.assert_array_equal(eighths[1], block[:, :half, :half, half:])
    assert pd.read_csv(tmp_path / "eighths/index.tsv", sep="\t")["scan"].is_unique
    for name in ("layout.json", "prepared.json"):
        written = read_json(tmp_path / "cut" / name)
        assert written.get("data", written)["size"] == [script.BLOCK] * 3


def test_recipes_of_both_ways_are_those_of_the_configuration(script: ModuleType) -> None:
    files = "ixi_noddi.yaml", "ixi_noddi_published.yaml"
    residual, published = (script.recipe_of(name, script.BLOCK) for name in files)
    assert residual.autoencoder is None
    assert published.regression is None
    assert published.autoencoder.kind == "vqgan"
    assert residual.data.size == published.data.size == [script.BLOCK] * 3


def test_blocks_come_back_as_the_maps_they_are_of(script: ModuleType) -> None:
    maps = np.random.default_rng(0).random((2, 3, 4, 8, 12), np.float32)
    for factor in (2, 4):
        blocks = script.blocks_of(maps, factor)
        np.testing.assert_array_equal(blocks[1], maps[0, :, :factor, :factor, factor : 2 * factor].ravel())
        np.testing.assert_array_equal(script.maps_of(blocks, maps.shape, factor), maps)
