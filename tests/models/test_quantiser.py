"""The quantiser against one-by-one computation, and its codebook's life."""

from __future__ import annotations

import copy
import math
import subprocess
import sys

import pytest
import torch

from pipeline_lib.models import quantiser as module
from pipeline_lib.models.quantiser import Quantiser, usage_and_perplexity


def latent(dimensions: int, n: int = 2, size: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, size, *[6, 5, 4][:dimensions], generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("n", [1, 3])
def test_each_vector_becomes_its_nearest_code(dimensions: int, n: int) -> None:
    quantiser, z = Quantiser(16, 4).eval(), latent(dimensions, n)
    found = quantiser(z)
    tokens = z.movedim(1, -1).reshape(-1, 4)
    nearest = torch.cdist(tokens.double(), quantiser.codebook.double()).argmin(1)
    assert torch.equal(found.indices.flatten(), nearest)
    assert found.indices.shape == (n, *z.shape[2:])
    assert torch.allclose(found.z.movedim(1, -1).reshape(-1, 4), quantiser.codebook[nearest], atol=1e-6)
    expected = 0.25 * (tokens - quantiser.codebook[nearest]).square().mean()
    assert torch.allclose(found.loss, expected)


def test_defaults_are_those_of_the_specification() -> None:
    quantiser = Quantiser(8, 4)
    assert (quantiser.decay, quantiser.epsilon, quantiser.commitment) == (0.99, 1e-5, 0.25)


def test_memory_is_a_fraction_of_the_table_of_distances() -> None:
    """In a process of its own, whose allocator has nothing to give back from earlier work."""
    code = (
        "import resource, torch; from pipeline_lib.models.quantiser import Quantiser\n"
        "quantiser, z = Quantiser(16_384, 8).train(), torch.randn(1, 8, 32, 32, 32)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "quantiser(z)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    used = int(run.stdout) * (1 if sys.platform == "darwin" else 1024)
    assert used < 4 * 32**3 * 16_384 / 8


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    quantiser, tokens = Quantiser(16, 4), latent(2).movedim(1, -1).reshape(-1, 4)
    whole = quantiser.nearest(tokens)
    monkeypatch.setattr(module, "_ELEMENTS", 16 * 7)
    assert torch.equal(quantiser.nearest(tokens), whole)


def test_gradient_passes_straight_through_and_commits() -> None:
    quantiser, z = Quantiser(8, 4).eval(), latent(2).requires_grad_()
    found = quantiser(z)
    (gradient,) = torch.autograd.grad((3 * found.z).sum(), z, retain_graph=True)
    assert torch.allclose(gradient, torch.full_like(z, 3))
    (gradient,) = torch.autograd.grad(found.loss, z)
    assert torch.allclose(
        gradient, 0.25 * 2 * (z - quantiser.codebook[found.indices].movedim(-1, 1)) / z.numel(), atol=1e-8
    )


def started(codes: int, z: torch.Tensor, **options: float) -> Quantiser:
    torch.manual_seed(1)
    quantiser = Quantiser(codes, z.shape[1], **options)
    quantiser(z)
    return quantiser


def test_the_first_batch_provides_the_codes() -> None:
    z = latent(2)
    torch.manual_seed(0)
    quantiser = Quantiser(16, 4, decay=0.9999)
    assert torch.equal(quantiser.counts, torch.ones(16))
    quantiser(z)
    distance = torch.cdist(quantiser.codebook, z.movedim(1, -1).reshape(-1, 4)).min(1).values
    assert distance.max() < 1e-2
    assert quantiser.initialised


@pytest.mark.parametrize("epsilon", [1e-5, 2.0])
def test_running_means_are_those_of_a_loop(epsilon: float) -> None:
    quantiser = started(6, latent(2), decay=0.9, restart=0.0, epsilon=epsilon)
    z = latent(2, n=3, seed=5)
    counts, sums = quantiser.counts.clone().double(), quantiser.sums.clone().double()
    indices = quantiser(z).indices
    hits, totals = torch.zeros(6), torch.zeros(6, 4, dtype=torch.float64)
    for index, vector in zip(indices.flatten().tolist(), z.movedim(1, -1).reshape(-1, 4), strict=True):
        hits[index] += 1
        totals[index] += vector
    counts, sums = 0.9 * counts + 0.1 * hits, 0.9 * sums + 0.1 * totals
    smoothed = (counts + epsilon) / (counts.sum() + 6 * epsilon) * counts.sum()
    assert torch.allclose(quantiser.counts.double(), counts, atol=1e-5)
    assert torch.allclose(quantiser.codebook.double(), sums / smoothed[:, None], atol=1e-5)


def test_codes_move_to_the_centres_of_clusters() -> None:
    centres = torch.tensor([[4.0, 0.0], [-4.0, 0.0], [0.0, 4.0], [0.0, -4.0]])
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(3)
    quantiser = Quantiser(4, 2, decay=0.8)
    for _ in range(200):
        which = torch.randint(4, (1, 8, 8), generator=generator)
        noise = 0.1 * torch.randn((1, 8, 8, 2), generator=generator)
        quantiser((centres[which] + noise).movedim(-1, 1))
    assert torch.cdist(centres, quantiser.codebook).min(1).values.max() < 0.1


def test_a_dead_code_is_placed_on_a_vector_with_mean_and_count() -> None:
    z = latent(2)
    quantiser = started(8, z)
    quantiser.codebook[3] = 1000.0
    quantiser.sums[3] = 1000.0
    quantiser.counts[3] = 1e-3
    others = [i for i in range(8) if i != 3]
    before = quantiser.counts[others].clone()
    quantiser(z)
    average = z.numel() / 4 / 8
    tokens = z.movedim(1, -1).reshape(-1, 4)
    assert float(quantiser.counts[3]) == pytest.approx(average)
    assert torch.cdist(quantiser.codebook[3:4], tokens).min() < 1e-5
    assert torch.allclose(quantiser.sums[3], quantiser.codebook[3] * average)
    assert (quantiser.counts[others] > 0.9 * before).all()


@pytest.mark.parametrize("n", [1, 4])
def test_a_code_dies_below_a_share_of_the_average_count(n: int) -> None:
    z = latent(2, n)
    quantiser = started(8, z, decay=0.999, restart=0.5)
    average = z.numel() / 4 / 8
    quantiser.sums[:2] = quantiser.codebook[:2] = 1000.0  # far from every vector
    quantiser.counts[0], quantiser.counts[1] = 0.45 * average, 0.55 * average
    quantiser(z)
    assert quantiser.codebook[0].abs().max() < 10
    assert quantiser.codebook[1].abs().min() > 10
    assert float(quantiser.counts[0]) == pytest.approx(average)


def test_unused_codes_come_back_to_use() -> None:
    """All vectors equal at first, so that one code takes all; when they spread, the dead ones are used again."""
    torch.manual_seed(0)
    quantiser = Quantiser(16, 4, decay=0.9)
    for seed in range(40):
        quantiser(latent(2, seed=seed) * (0.0 if seed == 0 else 1.0))
    used = torch.bincount(quantiser.eval()(latent(2, n=20)).indices.flatten(), minlength=16)
    assert (used > 0).sum() >= 14


def test_more_codes_than_vectors() -> None:
    quantiser = started(500, latent(2, n=1))
    assert quantiser.codebook.isfinite().all()
    assert quantiser(latent(2, n=1, seed=1)).z.isfinite().all()


def test_evaluation_and_no_grad_change_nothing() -> None:
    quantiser = started(8, latent(2))
    state = {name: value.clone() for name, value in quantiser.state_dict().items()}
    assert set(state) == {"codebook", "counts", "sums", "initialised"}
    with torch.no_grad():
        quantiser(latent(2, seed=2))
    quantiser.eval()(latent(2, seed=3))
    for name, value in quantiser.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_training_continues_from_the_state_dict_as_if_never_stopped() -> None:
    quantiser, other = started(8, latent(2)), Quantiser(8, 4)
    other.load_state_dict(quantiser.state_dict())
    for run in (quantiser, other):
        torch.manual_seed(7)
        for seed in range(5):
            run(latent(2, seed=seed))
    for name, value in quantiser.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_float32_inside_autocast_and_the_dtype_of_the_input_outside() -> None:
    quantiser = Quantiser(8, 4).eval()
    z = latent(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = quantiser(z)
    assert torch.equal(inside.z, quantiser(z).z)
    half = quantiser(z.bfloat16())
    assert half.z.dtype == torch.bfloat16
    assert half.loss.dtype == torch.float32


def test_the_state_stays_float32_and_exact_whatever_the_module_is_cast_to() -> None:
    quantiser = started(8, latent(2))
    state = {name: value.clone() for name, value in quantiser.state_dict().items()}
    for cast in (quantiser.bfloat16, quantiser.half, quantiser.double):
        cast()
        for name, value in quantiser.state_dict().items():
            assert value.dtype == state[name].dtype
            assert torch.equal(value, state[name]), name
    assert quantiser.to("meta", torch.bfloat16).codebook.is_meta


def test_autocast_does_not_round_distances() -> None:
    """With many codes the nearest two are so close that bfloat16 would confuse them."""
    torch.manual_seed(0)
    quantiser, z = Quantiser(512, 8).eval(), torch.randn(1, 8, 40, 100)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = quantiser(z)
    assert torch.equal(inside.indices, quantiser(z).indices)
    assert torch.equal(inside.loss, quantiser(z).loss)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_same_on_every_device(dimensions: int, device: torch.device) -> None:
    """Looked up and learned as on the CPU in double precision, one vector after the other."""
    quantiser, z = started(8, latent(dimensions), restart=0.0), latent(dimensions, seed=1)
    there = copy.deepcopy(quantiser).to(device)
    found = there(z.to(device))
    tokens = z.movedim(1, -1).reshape(-1, 4).double()
    nearest = torch.cdist(tokens, quantiser.codebook.double()).argmin(1)
    assert found.z.device.type == device.type
    assert torch.equal(found.indices.cpu().flatten(), nearest)
    assert torch.allclose(found.z.cpu(), quantiser.codebook[found.indices.cpu()].movedim(-1, 1), atol=1e-6)
    hits = torch.nn.functional.one_hot(nearest, 8).double()
    assert torch.allclose(there.counts.cpu().double(), 0.99 * quantiser.counts + 0.01 * hits.sum(0), atol=1e-4)
    assert torch.allclose(there.sums.cpu().double(), 0.99 * quantiser.sums + 0.01 * hits.T @ tokens, atol=1e-4)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_memory_does_not_grow_with_tokens_times_codes() -> None:
    """Of 65,536 tokens and 16,384 codes, the distances alone would be 4 GiB."""
    quantiser, z = Quantiser(16_384, 8).cuda().train(), torch.randn(2, 8, 32, 32, 32, device="cuda")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    quantiser(z)
    assert torch.cuda.max_memory_allocated() - before < 64 * 2**20


def test_usage_and_perplexity() -> None:
    usage, perplexity = usage_and_perplexity(torch.tensor([5, 5, 0, 5, 5, 0, 0, 0]))
    assert usage == 0.5
    assert perplexity == pytest.approx(4)
    assert usage_and_perplexity(torch.tensor([3.0, 1.0]))[1] == pytest.approx(
        math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    )
    with pytest.raises(ValueError, match="no codes"):
        usage_and_perplexity(torch.zeros(4))


def test_bad_arguments_say_what_is_allowed() -> None:
    with pytest.raises(ValueError, match="1 codes"):
        Quantiser(1, 4)
    with pytest.raises(ValueError, match="decay is 1"):
        Quantiser(8, 4, decay=1.0)
    with pytest.raises(ValueError, match="restart is 2"):
        Quantiser(8, 4, restart=2)
    with pytest.raises(ValueError, match="commitment is -1; at least 0"):
        Quantiser(8, 4, commitment=-1)
    with pytest.raises(ValueError, match="epsilon is -1; it must be above 0"):
        Quantiser(8, 4, epsilon=-1)
    with pytest.raises(ValueError, match=r"\(0, 4, 6, 5\); at least one vector"):
        Quantiser(8, 4)(latent(2, n=0))
    with pytest.raises(ValueError, match=r"\(2, 3, 6, 5\); \(N, 4, \*spatial\)"):
        Quantiser(8, 4)(latent(2, size=3))
