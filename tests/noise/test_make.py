"""Noise by name, and the Gaussian one."""

from __future__ import annotations

import pytest
import torch

from pipeline_lib.noise.coarse import CoarseNoise
from pipeline_lib.noise.gaussian import GaussianNoise
from pipeline_lib.noise.make import make_noise
from pipeline_lib.noise.simplex import SimplexNoise


def test_names_lead_to_noises_with_their_options() -> None:
    assert isinstance(make_noise("gaussian"), GaussianNoise)
    coarse = make_noise("coarse", spacing=4)
    assert isinstance(coarse, CoarseNoise)
    assert coarse.spacing == 4
    simplex = make_noise("simplex", octaves=2, decay=0.5, frequency=0.1, raw=True)
    assert isinstance(simplex, SimplexNoise)
    assert (simplex.octaves, simplex.decay, simplex.frequency, simplex.raw) == (2, 0.5, 0.1, True)


def test_unknown_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="'pink'; allowed: gaussian, coarse, simplex"):
        make_noise("pink")


@pytest.mark.parametrize("shape", [(3, 2, 40, 40), (3, 2, 12, 12, 12)])
def test_gaussian_noise_is_standard_normal_and_reproducible(shape: tuple[int, ...], device: torch.device) -> None:
    """From a generator on the CPU the same on every device."""
    draws = [
        GaussianNoise()(shape, generator=torch.Generator().manual_seed(0), device=place).cpu()
        for place in (device, "cpu")
    ]
    assert torch.equal(*draws)
    assert abs(draws[0].mean()) < 0.05
    assert draws[0].std() == pytest.approx(1, abs=0.05)
