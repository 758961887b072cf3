"""Sampling: the same noise where it should be, the right classes, and pictures that open."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline_lib.inference.denoise import load_denoiser
from pipeline_lib.inference.generation import draw_samples, sample_generation, spread, wanted_samples
from pipeline_lib.inference.synthesis import sample_synthesis


def test_generation_samples_checkpoints_from_the_same_noise(
    make_recipe: Callable, make_denoiser: Callable, tmp_path: Path
) -> None:
    recipe = make_recipe("generation", checkpoints=2)
    diffusion = make_denoiser(recipe, ["z"], channels=1, steps=(10, 20, 30))
    sample_generation(recipe, diffusion, tmp_path / "out")
    steps = sorted(path.name for path in (tmp_path / "out").glob("step-*"))
    assert steps == ["step-00000010", "step-00000030"]
    first = np.load(tmp_path / "out/step-00000010/samples.npy")
    final = np.load(tmp_path / "out/samples.npy")
    assert first.shape == final.shape == (5, 1, 16, 16)
    assert not np.allclose(first, final)
    # Networks differ by little and start from the same noise, so samples of one number are alike.
    apart = ((first[:, None] - final[None]) ** 2).mean(axis=(2, 3, 4))
    assert (apart.argmin(axis=1) == np.arange(5)).all()


def test_generation_is_reproducible_and_animated(
    make_recipe: Callable, make_denoiser: Callable, tmp_path: Path
) -> None:
    recipe = make_recipe("generation")
    diffusion = make_denoiser(recipe, ["z"], channels=1)
    for name in ("one", "two"):
        sample_generation(recipe, diffusion, tmp_path / name)
    for name in ("samples.npy", "reverse.gif", "reverse.png", "grid.png", "samples.tsv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    with Image.open(tmp_path / "one/reverse.gif") as animation:
        assert animation.n_frames == 4
        assert animation.width >= 96


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_samples_do_not_depend_on_the_batch_size(sampler: str, make_recipe: Callable, make_denoiser: Callable) -> None:
    recipe = make_recipe("generation", sampler=sampler)
    diffusion = make_denoiser(recipe, ["z"], channels=1)
    wanted = wanted_samples(recipe, {}, per_group=False)
    drawn = [
        draw_samples(load_denoiser(recipe_of, diffusion), (1, 16, 16), wanted)
        for recipe_of in (make_recipe("generation", sampler=sampler, batch_size=size) for size in (1, 5))
    ]
    np.testing.assert_allclose(drawn[0], drawn[1], atol=1e-3)


def test_generation_conditioned_on_groups_takes_them_in_turn(make_recipe: Callable) -> None:
    wanted = wanted_samples(make_recipe("generation", condition="group"), {"groups": ["A", "B"]}, per_group=False)
    assert wanted.table["group"].tolist() == ["A", "B", "A", "B", "A"]
    assert wanted.classes is not None
    assert wanted.classes.tolist() == [0, 1, 0, 1, 0]


@pytest.mark.parametrize("dimensions", [2, 3])
def test_synthesis_draws_each_group_from_the_same_noise(
    dimensions: int, make_recipe: Callable, make_denoiser: Callable, make_autoencoder: Callable, tmp_path: Path
) -> None:
    recipe = make_recipe("synthesis", dimensions=dimensions, condition="group", guidance=2.0, count=3)
    diffusion = make_denoiser(recipe, ["z"], channels=3)
    sample_synthesis(recipe, diffusion, make_autoencoder("image", ["z"], dimensions=dimensions), tmp_path / "out",
                     voxel_size=3.0)  # fmt: skip
    table = pd.read_csv(tmp_path / "out/samples.tsv", sep="\t")
    images = np.load(tmp_path / "out/samples.npy")
    assert images.shape == (6, 1, *[16] * dimensions)
    assert np.abs(images).max() <= 1
    assert table["id"].tolist()[:4] == ["syn-A-0001", "syn-A-0002", "syn-A-0003", "syn-B-0001"]
    assert table["seed"][:3].tolist() == table["seed"][3:].tolist()
    assert not np.allclose(images[:3], images[3:])
    assert {"grid.png", "groups.png", "reverse.gif", "reverse.png"} <= {p.name for p in (tmp_path / "out").iterdir()}
    volumes = sorted((tmp_path / "out").glob("nifti/*.nii.gz"))
    assert len(volumes) == (6 if dimensions == 3 else 0)
    for path in volumes:
        assert "desc-synthetic" in path.name
        assert json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())["Synthetic"] is True
        assert nibabel.load(path).header.get_zooms() == (3, 3, 3)


def test_spread_keeps_first_and_last() -> None:
    paths = [Path(str(n)) for n in range(10)]
    assert [path.name for path in spread(paths, 4)] == ["0", "3", "6", "9"]
    assert spread(paths[:2], 4) == paths[:2]
    assert spread([], 4) == []
