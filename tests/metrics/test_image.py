"""Image measures equal scikit-image's and torchmetrics'."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio
from torchmetrics.functional.image import structural_similarity_index_measure

from pipeline_lib.metrics.image import mae, multiscale_similarity, psnr, ssim


def pair(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    target = rng.uniform(-1, 1, shape)
    return (target + rng.normal(0, 0.2, shape)).clip(-1, 1), target


def test_psnr_equals_scikit_image() -> None:
    prediction, target = pair((20, 30))
    expected = peak_signal_noise_ratio(target, prediction, data_range=2)
    assert psnr(prediction, target, data_range=2) == pytest.approx(expected)


def test_psnr_of_a_known_error() -> None:
    assert psnr(np.zeros((4, 4)), np.full((4, 4), 0.2), data_range=2) == pytest.approx(20)
    assert psnr(np.ones((4, 4)), np.ones((4, 4)), data_range=2) == float("inf")


@pytest.mark.parametrize("shape", [(32, 40), (16, 18, 20)])
def test_ssim_equals_torchmetrics_away_from_the_border(shape: tuple[int, ...]) -> None:
    prediction, target = pair(shape)
    tensors = [torch.from_numpy(array)[None, None] for array in (prediction, target)]
    _, full = structural_similarity_index_measure(*tensors, data_range=2.0, return_full_image=True)
    inner = (slice(5, -5),) * len(shape)
    mask = np.zeros(shape, dtype=bool)
    mask[inner] = True
    assert ssim(prediction, target, data_range=2, mask=mask) == pytest.approx(float(full[0, 0][inner].mean()), abs=1e-5)
    assert ssim(prediction, target, data_range=2) == pytest.approx(float(full[0, 0][inner].mean()), abs=1e-5)


def test_masked_measures_see_only_the_mask() -> None:
    prediction, target = pair((24, 24))
    mask = np.zeros((24, 24), dtype=bool)
    mask[:, :12] = True
    outside = prediction.copy()
    outside[:, 18:] = 1
    assert mae(outside, target, mask) == mae(prediction, target, mask)
    assert psnr(outside, target, data_range=2, mask=mask) == psnr(prediction, target, data_range=2, mask=mask)
    assert mae(prediction, target, mask) == pytest.approx(np.abs(prediction - target)[:, :12].mean())
    assert mae(outside, target) != mae(prediction, target)


@pytest.mark.parametrize(
    ("shape", "weight"), [((20, 20), 1.0), ((24, 24, 24), 0.2856 / 0.3304), ((112, 96), 0.3001 / 0.6305)]
)
def test_multiscale_similarity_of_flat_images_is_the_luminance_of_the_coarsest_scale(
    shape: tuple[int, ...], weight: float
) -> None:
    """Contrast and structure of flat images agree, luminance is (2ab + C) / (a^2 + b^2 + C) with C = (.01 x 2)^2."""
    found = multiscale_similarity(np.full((2, 1, *shape), 0.5), np.full((2, 1, *shape), 0.25))
    assert found == pytest.approx([(0.2504 / 0.3129) ** weight] * 2, abs=1e-3)


def test_multiscale_similarity_falls_with_noise_and_is_1_for_equal_images() -> None:
    rng = np.random.default_rng(0)
    image = np.tile(np.sin(np.arange(96) / 7), (3, 1, 112, 1))
    noisy = image + np.array([0, 0.2, 1.0]).reshape(3, 1, 1, 1) * rng.normal(size=image.shape)
    same, little, much = multiscale_similarity(image, noisy)
    assert same == pytest.approx(1, abs=1e-5)
    assert same > little > much
    with pytest.raises(ValueError, match="11 along each axis"):
        multiscale_similarity(image[..., :8], noisy[..., :8])
