"""Seams are seen where there are some, and not where there are none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline_lib.metrics.spectrum import SEAM_FREQUENCIES, radial_power, seam_power, spectrum_along
from pipeline_lib.models.folding import unfold_voxels


def brain_like(spatial: tuple[int, ...], n: int = 24, seed: int = 0) -> NDArray[np.float64]:
    """Bright ellipsoids with texture whose power falls with frequency, on a dark background."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, size) for size in spatial), indexing="ij"))
    frequency = np.sqrt(
        sum(axis**2 for axis in np.meshgrid(*(np.fft.fftfreq(size) for size in spatial), indexing="ij"))
    )
    images = []
    for _ in range(n):
        radius = rng.uniform(0.6, 0.9, len(spatial)).reshape(-1, *[1] * len(spatial))
        centre = rng.uniform(-0.1, 0.1, len(spatial)).reshape(radius.shape)
        texture = np.fft.ifftn(np.fft.fftn(rng.standard_normal(spatial)) / (0.05 + frequency)).real
        images.append(np.where((((grid - centre) / radius) ** 2).sum(0) < 1, 0.6 + 0.2 * texture / texture.std(), -1))
    return np.stack(images)[:, None]


@pytest.mark.parametrize("spatial", [(112, 96), (100, 90), (40, 48, 36)])
@pytest.mark.parametrize("frequency", SEAM_FREQUENCIES)
def test_nothing_stands_out_of_images_without_seams(spatial: tuple[int, ...], frequency: float) -> None:
    assert seam_power(brain_like(spatial), frequency) == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("block", [2, 4])
@pytest.mark.parametrize("spatial", [(112, 96), (40, 48, 36)])
def test_a_faint_pattern_of_blocks_within_the_brain_stands_out(block: int, spatial: tuple[int, ...]) -> None:
    """Channels of a folded network that differ by a little, as one does that has not learned them alike."""
    images = brain_like(spatial)
    offsets = torch.randn(1, block ** len(spatial), *[1] * len(spatial), generator=torch.Generator().manual_seed(0))
    pattern = unfold_voxels(offsets.expand(-1, -1, *(n // block for n in spatial)), block).numpy()
    seamed = images + 0.15 * pattern * (images > -1)
    assert seam_power(seamed, 1 / block) > 1.5 * seam_power(images, 1 / block)
    if block == 4:
        plain = brain_like(spatial, seed=1)
        assert seam_power(plain, 1 / 4) < 0.7 * seam_power(seamed, 1 / 4)


@given(frequency=st.integers(4, 15), phase=st.floats(0, 6))
@settings(max_examples=20, deadline=None)
def test_a_wave_has_its_power_at_its_own_frequency(frequency: int, phase: float) -> None:
    wave = np.cos(2 * np.pi * frequency / 32 * np.arange(32) + phase)
    power = spectrum_along(np.tile(wave, (2, 1, 40, 1)), 3)
    assert power.argmax() == frequency
    assert np.delete(power, frequency).max() < 1e-9 * power[frequency]


def test_bad_arguments_say_what_is_needed() -> None:
    with pytest.raises(ValueError, match="frequency is 0.6"):
        seam_power(np.zeros((1, 1, 64, 64)), 0.6)
    with pytest.raises(ValueError, match="32 voxels or more"):
        seam_power(np.ones((1, 1, 16, 64)), 0.5)


@pytest.mark.parametrize("cycles", [3, 8, 13])
def test_power_of_a_wave_is_at_its_frequency(cycles: int) -> None:
    """A cosine of amplitude a over n voxels has power (a n / 2)^2 at each of its two frequencies, and nowhere else."""
    length, amplitude = 32, 0.7
    phase = 2 * np.pi * cycles * np.arange(length) / length
    wave = np.broadcast_to(amplitude * np.cos(phase)[:, None, None], (length,) * 3)
    frequency, power = radial_power(wave + 5, np.ones(wave.shape, bool), bins=16)
    place = int(cycles / length / 0.5 * 16)
    lengths = np.sqrt(sum(axis**2 for axis in np.meshgrid(*[np.fft.fftfreq(length)] * 3)))
    count = (np.floor(lengths / 0.5 * 16) == place).sum()
    assert power[place] * count == pytest.approx(2 * (amplitude * length**3 / 2) ** 2)
    assert np.delete(power, place).max() < 1e-9 * power[place]
    assert frequency[place] - 1 / 64 <= cycles / length <= frequency[place] + 1 / 64


def test_white_noise_is_flat_and_what_lies_outside_the_mask_does_not_count() -> None:
    random = np.random.default_rng(0)
    noise, mask = random.normal(size=(40, 48, 40)), np.zeros((40, 48, 40), bool)
    mask[5:-5, 5:-5, 5:-5] = True
    power = radial_power(noise, mask)[1]
    np.testing.assert_allclose(power[2:], mask.sum(), rtol=0.15)
    np.testing.assert_array_equal(radial_power(np.where(mask, noise, 1e6), mask)[1], power)
