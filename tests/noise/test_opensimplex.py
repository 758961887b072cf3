"""The lattice noise against the opensimplex package and against its own statistics."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import opensimplex
import pytest
import torch

from pipeline_lib.noise.compiled import permutations
from pipeline_lib.noise.opensimplex import _evaluate, _fused, evaluate_tensors, expected_std
from pipeline_lib.noise.opensimplex import opensimplex as noise
from pipeline_lib.noise.simplex import SimplexNoise

SEEDS = np.array([3, 0, -5, 2**63 - 1, -(2**63), 1234567890123], dtype=np.int64)


def test_permutations_are_those_of_the_package() -> None:
    expected = [opensimplex.OpenSimplex(int(seed))._perm for seed in SEEDS]
    assert np.array_equal(permutations(SEEDS), np.array(expected))


def test_tensor_operations_are_one_graph_for_any_number_of_fields_and_points() -> None:
    """Which `torch.compile` then makes a few kernels of."""
    compiled = torch.compile(_evaluate, dynamic=True, fullgraph=True, backend="aot_eager")
    for fields, number in ((8, 40), (1, 8), (3, 24), (4, 7)):
        points = 50 * torch.rand((fields, number, 3), dtype=torch.float32)
        shuffled = torch.from_numpy(permutations(np.arange(fields)))
        expected = evaluate_tensors(points, shuffled)
        assert torch.allclose(evaluate_tensors(points, shuffled, compiled), expected, atol=1e-6)


@pytest.mark.parametrize("works", [True, False])
def test_compiled_where_that_works_and_said_once_where_not(
    works: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    def fake_compile(function: Callable[..., torch.Tensor], **_: object) -> Callable[..., torch.Tensor]:
        def compiled(*tensors: torch.Tensor) -> torch.Tensor:
            calls.append(1)
            if not works:
                raise RuntimeError("Failed to find C compiler.\nand more")
            return function(*tensors)

        return compiled

    monkeypatch.setattr(torch, "compile", fake_compile)
    run = _fused.__wrapped__()
    points, shuffled = 50 * torch.rand((2, 30, 3)), torch.from_numpy(permutations(SEEDS[:2]))
    for _ in range(3):
        assert torch.equal(evaluate_tensors(points, shuffled, run), evaluate_tensors(points, shuffled))
    assert len(calls) == (3 if works else 1)
    assert caplog.messages == (
        []
        if works
        else ["simplex noise takes longer on this GPU than it could: torch.compile failed (Failed to find C compiler.)"]
    )


@pytest.mark.parametrize("evaluate", [noise, evaluate_tensors], ids=["compiled", "tensors"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-4)])
def test_values_are_those_of_the_package(
    evaluate: Callable[..., torch.Tensor], dtype: torch.dtype, tolerance: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    points = (torch.rand((len(SEEDS), 3000, 3), generator=generator, dtype=torch.float64) - 0.5) * 80
    values = evaluate(points.to(dtype), torch.from_numpy(permutations(SEEDS)))
    assert values.dtype == dtype
    for seed, rows, ours in zip(SEEDS, points.tolist(), values, strict=True):
        reference = opensimplex.OpenSimplex(int(seed))
        expected = torch.tensor([reference.noise3(*row) for row in rows], dtype=torch.float64)
        assert (ours.double() - expected).abs().max() < tolerance


def test_expected_std_is_that_of_many_values() -> None:
    generator = torch.Generator().manual_seed(1)
    points = torch.rand((200, 2000, 3), generator=generator, dtype=torch.float64) * 300
    values = noise(points, torch.from_numpy(permutations(np.arange(200))))
    assert values.std() == pytest.approx(expected_std(), rel=0.01)
    assert abs(values.mean()) < 0.005


@pytest.mark.parametrize("evaluate", [noise, evaluate_tensors], ids=["compiled", "tensors"])
@pytest.mark.parametrize(("step", "start"), [(0.25, -6.0), (1 / 32, 0.37), (1 / 64, 7.3)])
def test_points_between_regions_fall_to_the_side_of_the_package(
    evaluate: Callable[..., torch.Tensor], step: float, start: float
) -> None:
    """On a regular grid many points are ties, and the noise jumps there by up to 1e-4."""
    axis = start + step * np.arange(40)
    expected = opensimplex.OpenSimplex(int(SEEDS[0])).noise3array(axis, axis, axis)
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    points = torch.from_numpy(np.stack([x, y, z], axis=-1))[None]
    values = evaluate(points.reshape(1, -1, 3), torch.from_numpy(permutations(SEEDS[:1])))
    assert np.abs(values.numpy().reshape(expected.shape) - expected).max() < 1e-12


def test_torch_keeps_its_number_of_threads() -> None:
    """In a process of its own: numba starts its threads once, and with them changes OpenMP's number."""
    code = (
        "import torch; from pipeline_lib.noise.simplex import SimplexNoise;"
        "SimplexNoise()((1, 1, 4, 4)); print(torch.get_num_threads())"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "1"


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-4)])
def test_the_same_on_every_device(dtype: torch.dtype, tolerance: float, device: torch.device) -> None:
    """On a GPU in float32 by compiled kernels, for several shapes."""
    for fields, number in ((4, 1000), (1, 300), (6, 77)):
        points = 50 * torch.rand((fields, number, 3), dtype=torch.float64)
        shuffled = torch.from_numpy(permutations(SEEDS[:fields]))
        found = noise(points.to(device, dtype), shuffled.to(device)).cpu()
        assert torch.allclose(found.double(), noise(points, shuffled), rtol=0, atol=tolerance)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_kernels_for_a_gpu_are_compiled(caplog: pytest.LogCaptureFixture) -> None:
    points, shuffled = torch.rand((2, 500, 3)).cuda(), torch.from_numpy(permutations(SEEDS[:2])).cuda()
    noise(points, shuffled)  # compiles, and tries kernels out
    with torch.profiler.profile() as profiler:
        noise(points, shuffled)
    assert "torch.compile failed" not in caplog.text
    kernels = [event for event in profiler.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    assert 0 < len(kernels) < 20, "fused, not hundreds"


@pytest.mark.parametrize("coordinates", [2, 4])
def test_other_than_three_coordinates_are_refused(coordinates: int) -> None:
    with pytest.raises(ValueError, match=f"{coordinates} coordinates; 3 are needed"):
        noise(torch.zeros(1, 5, coordinates), torch.zeros(1, 256, dtype=torch.long))


def test_number_of_fields_must_be_that_of_permutations() -> None:
    with pytest.raises(ValueError, match=r"permutations have shape \(1, 256\); \(3, 256\) is needed"):
        noise(torch.zeros(3, 5, 3), torch.zeros(1, 256, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"seeds have shape \(3,\) and origins \(1, 3\)"):
        SimplexNoise().fields((8, 8), torch.tensor([1, 2, 3]), torch.zeros(1, 3, dtype=torch.float64))
