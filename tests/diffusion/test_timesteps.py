"""Stratified timesteps."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_lib.diffusion.timesteps import stratified_timesteps


@given(batch=st.integers(1, 64), timesteps=st.integers(1, 1000), seed=st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_one_timestep_from_each_part(batch: int, timesteps: int, seed: int) -> None:
    t = stratified_timesteps(batch, timesteps, generator=torch.Generator().manual_seed(seed))
    assert t.dtype == torch.int64
    assert t.shape == (batch,)
    for i, value in enumerate(t.sort().values.tolist()):
        assert 0 <= value < timesteps
        assert i * timesteps // batch <= value <= (i + 1) * timesteps / batch


def test_every_timestep_is_equally_likely_at_every_place_of_the_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([stratified_timesteps(3, 7, generator=generator) for _ in range(7000)])
    for place in draws.T:
        assert (torch.bincount(place, minlength=7) / 7000 - 1 / 7).abs().max() < 0.02


@pytest.mark.parametrize(("batch", "timesteps"), [(0, 10), (4, 0)])
def test_nothing_to_draw_is_refused(batch: int, timesteps: int) -> None:
    with pytest.raises(ValueError, match=f"batch is {batch} and timesteps {timesteps}; at least 1 of each"):
        stratified_timesteps(batch, timesteps)
