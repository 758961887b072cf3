"""Translation: the linear floor is least squares on training people, and the ceiling is the autoencoder's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LinearRegression

from pipeline_lib.errors import UserError
from pipeline_lib.files import read_json
from pipeline_lib.inference.latent import load_latent_space
from pipeline_lib.inference.translation import apply_floor, fit_floor, infer_translation
from pipeline_lib.training.latents import encode_chunk


def test_floor_equals_scikit_learn(make_recipe: Callable, make_chunk: Callable, tmp_path: Path) -> None:
    chunks = [make_chunk(f"train-dmri-000{n}", [f"p{n}", f"q{n}"], channels=2, target=True, seed=n) for n in (1, 2)]
    fit_floor(make_recipe("translation"), chunks, tmp_path / "floor")
    fitted = read_json(tmp_path / "floor/coefficients.json")
    arrays = {name: np.concatenate([np.load(c / f"{name}.npy") for c in chunks]) for name in ("data", "target", "mask")}
    inside = arrays["mask"][:, 0] > 0
    source, target = (np.moveaxis(arrays[name], 1, -1)[inside] for name in ("data", "target"))
    expected = LinearRegression().fit(source, target)
    np.testing.assert_allclose(fitted["weights"], expected.coef_, atol=1e-6)
    np.testing.assert_allclose(fitted["intercept"], expected.intercept_, atol=1e-6)
    assert (fitted["people"], fitted["voxels"]) == (4, int(inside.sum()))
    applied = apply_floor(fitted, arrays["data"], arrays["mask"] > 0)
    np.testing.assert_allclose(np.moveaxis(applied, 1, -1)[inside], expected.predict(source).clip(-1, 1), atol=1e-5)
    assert (np.moveaxis(applied, 1, -1)[~inside] == -1).all()


def test_floor_without_training_voxels_says_so(make_recipe: Callable, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no brain voxel with dwi and noddi"):
        fit_floor(make_recipe("translation"), [], tmp_path / "floor")


@pytest.mark.parametrize("dimensions", [2, 3])
def test_translation_of_a_chunk(
    dimensions: int,
    make_recipe: Callable,
    make_chunk: Callable,
    make_denoiser: Callable,
    make_autoencoder: Callable,
    tmp_path: Path,
) -> None:
    recipe = make_recipe("translation", dimensions=dimensions)
    like = {"dimensions": dimensions, "channels": 2, "target": True}
    chunk, train = make_chunk("test-dmri-0001", ["a", "b", "c"], **like), make_chunk("train-dmri-0001", ["t"], **like)
    autoencoders = {
        "source": make_autoencoder("source", ["c"], dimensions=dimensions, channels=2),
        "target": make_autoencoder("target", ["t"], dimensions=dimensions, channels=3),
    }
    encode_chunk(autoencoders, chunk, tmp_path / "latents")
    fit_floor(recipe, [train], tmp_path / "floor")
    diffusion = make_denoiser(recipe, ["t"], channels=3, concat=3)
    infer_translation(
        recipe, diffusion, autoencoders, None, tmp_path / "floor", chunk, tmp_path / "latents", tmp_path / "out"
    )
    index, refused = (pd.read_csv(tmp_path / "out" / name, sep="\t") for name in ("index.tsv", "refused.tsv"))
    assert set(index["participant"]) == {"a", "b"}
    assert set(refused["participant"]) == {"c"}, "trained on by the source autoencoder only"
    rows = index["row"].to_numpy()
    target = np.load(chunk / "target.npy")[rows]
    space = load_latent_space(autoencoders["target"])
    own = space.decode(space.encode(torch.from_numpy(target)))
    np.testing.assert_allclose(np.load(tmp_path / "out/ceiling.npy"), own, atol=1e-4)
    prediction = np.load(tmp_path / "out/prediction.npy")
    assert prediction.shape == target.shape
    volumes = sorted((tmp_path / "out").glob("nifti/*.nii.gz"))
    assert [path.name for path in volumes] == (
        [f"{who}_desc-{what}_noddi.nii.gz" for who in "ab" for what in ("error", "predicted", "uncertainty")]
        if dimensions == 3
        else []
    )
    for path in [path for path in volumes if "predicted" in path.name]:
        image = nibabel.load(path)
        assert image.shape == (16, 16, 16, 3)
        assert image.header.get_zooms()[:3] == (2, 2, 2)
        assert int(image.header["sform_code"]) == int(image.header["qform_code"]) == 4, "the chunk's space is MNI152"
        assert 0 <= image.get_fdata().min() <= image.get_fdata().max() <= 1
