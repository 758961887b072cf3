"""Multi-octave simplex fields: the published sum, unit variance, independence, reproducibility."""

from __future__ import annotations

import numpy as np
import opensimplex
import pytest
import torch

from pipeline_lib.config.schema import NoiseOptions
from pipeline_lib.noise.make import make_noise
from pipeline_lib.noise.simplex import SimplexNoise


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("spatial", [(5, 7), (3, 4, 6)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_field_is_the_sum_of_octaves_of_opensimplex(spatial: tuple[int, ...], dtype: torch.dtype) -> None:
    seeds, origins = torch.tensor([17, 4]), torch.tensor([[6.3, 8.1, 11.9], [7.0, 9.5, 6.2]], dtype=torch.float64)
    noise = SimplexNoise(octaves=3, decay=0.7, frequency=1 / 8, raw=True)
    fields = noise.fields(spatial, seeds, origins, dtype=dtype)
    tolerance = 1e-6 if dtype == torch.float64 else 1e-4
    for field, seed, (x0, y0, z0) in zip(fields, seeds.tolist(), origins.tolist(), strict=True):
        reference = opensimplex.OpenSimplex(seed)
        for index in torch.cartesian_prod(*map(torch.arange, spatial)).tolist():
            z, y, x = [0, *index][-3:]
            expected = sum(
                0.7**k * reference.noise3(*(2**k * (o + v / 8) for o, v in zip((x0, y0, z0), (x, y, z), strict=True)))
                for k in range(3)
            )
            assert float(field[tuple(index)]) == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("spatial", [(5, 7), (3, 4, 6)])
def test_each_sample_and_channel_has_a_seed_and_an_origin_of_its_own(spatial: tuple[int, ...]) -> None:
    drawn = {}

    class Recorded(SimplexNoise):
        def fields(self, spatial, seeds, origins, **options):
            drawn.update(seeds=seeds.tolist(), origins=origins.tolist())
            return super().fields(spatial, seeds, origins, **options)

    noise = Recorded(octaves=1, frequency=1 / 8, raw=True)
    fields = noise((3, 2, *spatial), generator=seeded(1), dtype=torch.float64).flatten(0, 1)
    assert len(set(drawn["seeds"])) == len(set(map(tuple, drawn["origins"]))) == 6
    lengths = [1, *spatial][-3:]
    for field, seed, origin in zip(fields, drawn["seeds"], drawn["origins"], strict=True):
        x, y, z = (o + np.arange(n) / 8 for o, n in zip(origin, reversed(lengths), strict=True))
        expected = opensimplex.OpenSimplex(seed).noise3array(x, y, z)
        assert np.abs(field.reshape(lengths).numpy() - expected).max() < 1e-12


@pytest.mark.parametrize("spatial", [(5, 7), (3, 4, 6)])
def test_the_same_on_every_device(spatial: tuple[int, ...], device: torch.device) -> None:
    """From a generator on the CPU; in float32 there as in float64 on the CPU."""
    expected = SimplexNoise()((2, 3, *spatial), generator=seeded(2), dtype=torch.float64)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-3)):
        found = SimplexNoise()((2, 3, *spatial), generator=seeded(2), device=device, dtype=dtype)
        assert found.device.type == device.type
        assert torch.allclose(found.cpu().double(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("spatial", [(24, 24), (8, 8, 8)])
def test_unit_variance_and_zero_mean_at_every_voxel(spatial: tuple[int, ...]) -> None:
    fields = SimplexNoise(octaves=2)((1500, 1, *spatial), generator=seeded(2))
    assert fields.std() == pytest.approx(1, rel=0.02)
    per_voxel = fields.var(dim=0)
    assert per_voxel.min() > 0.75
    assert per_voxel.max() < 1.25
    assert fields.mean(dim=0).abs().max() < 0.15


def test_default_octaves_have_unit_variance_and_raw_keeps_the_published_amplitude() -> None:
    unit = SimplexNoise()((100, 1, 48, 48), generator=seeded(3))
    raw = SimplexNoise(raw=True)((100, 1, 48, 48), generator=seeded(3))
    assert unit.std() == pytest.approx(1, rel=0.03)
    assert raw.std() == pytest.approx(0.5, rel=0.04)
    assert torch.allclose(raw / SimplexNoise().raw_std, unit, atol=1e-6)


def test_samples_and_channels_are_uncorrelated() -> None:
    fields = SimplexNoise(frequency=0.5)((6, 3, 48, 48), generator=seeded(4)).reshape(18, -1)
    correlation = torch.corrcoef(fields) - torch.eye(18)
    assert correlation.abs().max() < 0.15


def test_neighbouring_voxels_are_alike() -> None:
    field = SimplexNoise(octaves=1)((20, 1, 32, 32), generator=seeded(5))
    assert (field[..., 1:] - field[..., :-1]).std() < 0.2 * field.std()


def test_the_generator_decides_everything() -> None:
    noise = SimplexNoise()
    first = noise((2, 1, 8, 8), generator=seeded(6))
    assert torch.equal(first, noise((2, 1, 8, 8), generator=seeded(6)))
    assert not torch.equal(first, noise((2, 1, 8, 8), generator=seeded(7)))
    torch.manual_seed(8)
    without = noise((1, 1, 8, 8))
    torch.manual_seed(8)
    assert torch.equal(without, noise((1, 1, 8, 8)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_dtype_is_as_asked_for(dtype: torch.dtype) -> None:
    field = SimplexNoise()((1, 2, 5, 3, 7), generator=seeded(9), dtype=dtype)
    assert field.dtype == dtype
    assert field.shape == (1, 2, 5, 3, 7)
    exact = SimplexNoise()((1, 2, 5, 3, 7), generator=seeded(9), dtype=torch.float64)
    assert torch.allclose(field.double(), exact, atol=0.02 if dtype == torch.bfloat16 else 2e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"octaves": 0}, "octaves is 0"),
        ({"octaves": 2.5}, "octaves is 2.5; a whole number"),
        ({"decay": 1.5}, "decay is 1.5"),
        ({"frequency": 0}, "frequency is 0"),
        ({"frequency": float("inf")}, "frequency is inf"),
    ],
)
def test_bad_options_say_what_is_allowed(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SimplexNoise(**options)


@pytest.mark.parametrize("shape", [(1,), (1, 1, 8), (1, 1, 4, 4, 4, 4), (0, 1, 4, 4)])
def test_other_shapes_and_types_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="of 2 or 3 dimensions is needed"):
        SimplexNoise()(shape)
    with pytest.raises(ValueError, match="dtype torch.int64; a floating-point one"):
        SimplexNoise()((1, 1, 4, 4), dtype=torch.int64)


def test_defaults_are_those_of_the_specification() -> None:
    for noise in (SimplexNoise(), make_noise("simplex")):
        assert (noise.octaves, noise.decay, noise.frequency, noise.raw) == (6, 0.8, 1 / 64, False)
    options = NoiseOptions()
    assert (options.octaves, options.decay, options.frequency) == (6, 0.8, 1 / 64)


@pytest.mark.parametrize("kind", ["gaussian", "coarse", "simplex"])
@pytest.mark.parametrize("spatial", [(5, 7), (3, 4, 6)])
def test_some_rows_are_as_they_are_among_all(kind: str, spatial: tuple[int, ...]) -> None:
    noise, shape = make_noise(kind), (5, 2, *spatial)
    whole = noise(shape, generator=seeded(3))
    assert torch.equal(noise(shape, generator=seeded(3), rows=slice(2, 4)), whole[2:4])
