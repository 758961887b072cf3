"""Patches are parts of images about the brain, the same ones for the same draw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_chunks import PAIRED, packed

from pipeline_lib.dataset.augment import Augmentation
from pipeline_lib.dataset.patches import PatchDataset

PEOPLE = [("a", "A"), ("b", "B")]
DATA = PAIRED.model_copy(update={"size": [16, 20, 12], "voxel_size": 10.0})


@pytest.fixture
def chunk(tmp_path: Path) -> Path:
    return packed(tmp_path, "train-dmri-0001", PEOPLE, DATA)


def test_a_patch_is_a_part_of_its_image_and_holds_brain(chunk: Path) -> None:
    patches = PatchDataset([chunk], patch=8, seed=3)
    whole = {name: np.load(chunk / f"{name}.npy") for name in ("data", "target", "mask")}
    places = set()
    for draw in range(12):
        index = draw % 2
        sample = patches.draw(index, draw)
        assert {name: tuple(sample[name].shape) for name in ("image", "target", "mask")} == {
            "image": (3, 8, 8, 8), "target": (3, 8, 8, 8), "mask": (1, 8, 8, 8),
        }  # fmt: skip
        assert sample["mask"].any()
        windows = np.lib.stride_tricks.sliding_window_view(whole["data"][index, 0], (8, 8, 8))
        (start,) = np.argwhere((windows == sample["image"][0].numpy()).all((3, 4, 5)))
        where = tuple(slice(at, at + 8) for at in start)
        np.testing.assert_array_equal(sample["target"], whole["target"][index][:, *where])
        places.add((index, *start))
    assert len(places) > 6


def test_a_draw_gives_the_same_patch_whenever_it_is_due(chunk: Path) -> None:
    one, other = (PatchDataset([chunk], patch=8, seed=seed) for seed in (1, 2))
    torch.testing.assert_close(one.draw(0, 5), PatchDataset([chunk], patch=8, seed=1).draw(0, 5))
    assert any(not torch.equal(one.draw(0, n)["image"], other.draw(0, n)["image"]) for n in range(4))


def test_several_patches_of_each_image_can_be_numbered(chunk: Path) -> None:
    patches = PatchDataset([chunk], patch=8, seed=0, each=3)
    assert len(patches) == 6
    torch.testing.assert_close(patches[4], patches.draw(1, 1))
    assert patches.batch(range(6))["image"].shape == (6, 3, 8, 8, 8)
    with pytest.raises(IndexError):
        patches[6]


def test_augmented_patches_are_cut_from_more_and_never_larger_than_the_image(chunk: Path) -> None:
    turned = PatchDataset([chunk], patch=8, seed=0, augment=Augmentation(rotate=20.0))
    assert turned.draw(0, 0)["image"].shape == (3, 8, 8, 8)
    large = PatchDataset([chunk], patch=64, seed=0)
    np.testing.assert_array_equal(large.draw(1, 7)["image"], np.load(chunk / "data.npy")[1])
