"""GPU memory of a training step by size and batch, computed from shapes, as Markdown tables.

    python benchmarks/memory.py                   # the tables, and a small step on this CPU beside its computation
    python benchmarks/memory.py --device cuda     # steps of the full-scale recipes on a card beside theirs
    python benchmarks/memory.py --whole           # whole volumes through a translation's regression, in tiles and at once

Computed: every tensor that lives at a time, weights, gradients, both moments of AdamW, the average and all that the
backward pass keeps, through one whole step of fake tensors, which have shapes and no content. Autocast is that of a GPU,
which normalises in float32. What cuDNN takes for its own work and what the allocator leaves unused comes on top.
"""

from __future__ import annotations

import argparse
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import AdamW
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.models.autoencoder import KLAutoencoder
from pipeline_lib.models.discriminator import PatchDiscriminator
from pipeline_lib.models.quantiser import Quantised
from pipeline_lib.models.regressor import Regressor
from pipeline_lib.models.tiles import TILE, tiled
from pipeline_lib.models.unet import UNet
from pipeline_lib.models.vqgan import VQGAN
from pipeline_lib.training.steps import Draw
from pipeline_lib.training.vae import VAEStep
from pipeline_lib.training.vqgan import VQGANStep

RECIPES = Path(__file__).resolve().parent.parent / "config" / "recipes"
GB = 1e9
CARDS = (16, 24, 40, 80)
"""GB."""
SIZES = {2: ([128, 128], [192, 160]), 3: ([80, 96, 80], [112, 128, 112])}
"""Those of the recipes, and larger ones; memory is about linear in the voxels."""
WHOLE = ([128, 160, 128], [192, 232, 192], [256, 320, 256])
"""Voxels of whole brains at 1.25 mm, as the recommended translation has them, and of the same and more at finer voxels."""
POINTS = (1, 128, 256)
"""Batches that are computed. Memory is linear in the batch, but for one so small that the optimiser takes most."""
BATCHES = (1, 8, 32, 128)
PRECISIONS = ("bfloat16", "float32")


class Live(TorchDispatchMode):
    """Bytes of all tensors made within this context that are alive, and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self.known:
            self.known.add(key)
            self.bytes += size
            self.peak = max(self.peak, self.bytes)
            weakref.finalize(storage, self._freed, key, size)

    def _freed(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.bytes -= size


@dataclass(frozen=True)
class Network:
    """A network of a recipe: ``run`` makes one whole training step of a batch on a device, in a precision."""

    recipe: str
    name: str
    size: Sequence[int]
    batch: int
    run: Callable[[int, str, str], None]

    def computed(self, batch: int, precision: str) -> int:
        """Bytes of a step."""
        with FakeTensorMode(), Live() as live, _normalising_in_float32(precision):
            self.on("cpu", batch, precision)
        return live.peak

    def on(self, device: str, batch: int, precision: str) -> None:
        """A step there."""
        with torch.device(device):
            self.run(batch, device, precision)

    def line(self, precision: str) -> tuple[float, float, float]:
        """Bytes of a step of one image; and those of a large batch: so many, and so many an image."""
        one, first, second = (self.computed(batch, precision) for batch in POINTS)
        each = (second - first) / (POINTS[2] - POINTS[1])
        return one, first - POINTS[1] * each, each


@contextmanager
def _normalising_in_float32(precision: str) -> Iterator[None]:
    """As autocast does on a GPU, other than on a CPU."""
    before = F.group_norm

    def wide(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        return before(x.float(), groups, weight, bias, eps)

    with mock.patch.object(F, "group_norm", wide) if precision != "float32" else nullcontext():
        yield


def autocast(device: str, precision: str) -> AbstractContextManager[Any]:
    """bfloat16, or nothing."""
    return torch.autocast(device, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def update(
    module: nn.Module,
    losses: Callable[[], Tensor],
    device: str,
    precision: str,
    optimiser: AdamW,
    average: Sequence[Tensor],
) -> None:
    """One optimiser step and the average, as the training loop makes them."""
    optimiser.zero_grad(set_to_none=True)
    with autocast(device, precision):
        loss = losses()
    loss.backward()
    nn.utils.clip_grad_norm_(module.parameters(), 1.0, foreach=True)
    optimiser.step()
    for mean, value in zip(average, module.parameters(), strict=False):
        mean.lerp_(value.detach(), 0.1)


def trained(module: nn.Module) -> tuple[nn.Module, AdamW, list[Tensor]]:
    """A module, its optimiser, its average. On a GPU AdamW works on all weights at once."""
    average = [parameter.detach().clone() for parameter in module.parameters()]
    return module, AdamW(module.parameters(), lr=1e-4, foreach=True), average


def denoiser_step(recipe: RecipeOptions, size: Sequence[int], channels: int, concat: int, checkpointing: bool) -> Any:
    """A step of the denoiser of images or latents of ``size``."""
    options = recipe.denoiser

    def run(batch: int, device: str, precision: str) -> None:
        network = UNet(
            dimensions=recipe.data.dimensions, in_channels=channels + concat, out_channels=channels, fold=options.fold,
            channels=options.channels, blocks=options.blocks, attention=options.attention,
            head_channels=options.head_channels, conditions=[0] * len(options.condition), checkpointing=checkpointing,
            detail=options.detail,
        )  # fmt: skip
        if device == "cuda" and recipe.data.dimensions == 2:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch has it
        module, optimiser, average = trained(network)
        x = torch.randn(batch, channels, *size)
        source = torch.randn(batch, concat, *size) if concat else None
        noise, t = torch.randn_like(x), torch.zeros(batch, dtype=torch.int64)

        def loss() -> Tensor:
            return (module(x + noise, t, None, source).float() - noise).square().mean()

        for _ in range(2):  # the first makes the moments
            update(module, loss, device, precision, optimiser, average)

    return run


def autoencoder_step(recipe: RecipeOptions, size: Sequence[int], channels: int) -> Any:
    """A step of the autoencoder, of a VQGAN with its discriminator."""
    options = recipe.autoencoder
    assert options is not None

    def run(batch: int, device: str, precision: str) -> None:
        kept: dict[str, Any] = {
            "dimensions": recipe.data.dimensions, "in_channels": channels, "fold": options.fold, "channels": options.channels,
            "blocks": options.blocks, "latent_channels": options.latent_channels,
        }  # fmt: skip
        images = {"image": torch.randn(batch, channels, *size)}
        draw = Draw(0, batch, slice(0, batch), torch.device(device))
        if options.kind == "vae":
            module, optimiser, average = trained(KLAutoencoder(**kept))
            step: Any = VAEStep(module, "image", options.kl_weight, images["image"])  # type: ignore[arg-type]
            parts = {"autoencoder": (module, optimiser, average)}
        else:
            vqgan = VQGAN(**kept, codes=options.codes)
            vqgan.quantiser = _Straight(options.codes, options.latent_channels)  # type: ignore[assignment]
            critic = PatchDiscriminator(
                dimensions=recipe.data.dimensions, in_channels=channels, channels=options.channels[0], layers=3
            )
            module, optimiser, average = trained(vqgan)
            step = VQGANStep(module, critic, "image", options, images["image"])  # type: ignore[arg-type]
            parts = {
                "vqgan": (module, optimiser, average),
                "discriminator": (critic, AdamW(critic.parameters(), lr=1e-4, foreach=True), []),
            }
        for _ in range(2):
            for name, (part, optimiser, average) in parts.items():
                loss = lambda name=name: step.losses(name, images, draw, 2 * options.adversarial_start)["loss"]  # noqa: E731
                update(part, loss, device, precision, optimiser, average)

    return run


def regressor(recipe: RecipeOptions) -> Regressor:
    """The regression of a recipe, untrained."""
    options, data = recipe.regression, recipe.data
    assert options is not None
    return Regressor(
        dimensions=data.dimensions, in_channels=data.channels, out_channels=data.target_channels, fold=options.fold,
        channels=options.channels, blocks=options.blocks, dropout=options.dropout,
    )  # fmt: skip


def regression_step(recipe: RecipeOptions) -> Any:
    """A step of the regression, whose patches are of one size whatever that of the images."""
    options, data = recipe.regression, recipe.data
    assert options is not None

    def run(batch: int, device: str, precision: str) -> None:
        module, optimiser, average = trained(regressor(recipe))
        patch = [options.patch] * data.dimensions
        source, target = torch.randn(batch, data.channels, *patch), torch.randn(batch, data.target_channels, *patch)
        for _ in range(2):
            update(module, lambda: (module(source) - target).square().mean(), device, precision, optimiser, average)

    return run


class _Straight(nn.Module):
    """A quantiser's tensors without its look-up, which depends on content; that takes some 20 MiB more."""

    def __init__(self, codes: int, size: int) -> None:
        super().__init__()
        for name in ("codebook", "sums"):
            self.register_buffer(name, torch.zeros(codes, size))

    def forward(self, z: Tensor) -> Quantised:
        wide = z.float()
        chosen = torch.zeros_like(wide)
        loss = 0.25 * F.mse_loss(wide, chosen)
        return Quantised((wide + (chosen - wide).detach()).to(z.dtype), loss, chosen[:, 0].long())


def networks(name: str, recipe: RecipeOptions, size: Sequence[int]) -> list[Network]:
    """What a recipe trains on images of ``size``."""
    data, options, denoiser = recipe.data, recipe.autoencoder, recipe.denoiser
    found, grid, channels, concat = [], list(size), data.channels, 0
    if options is not None:
        label = f"{options.kind.upper()}{' and discriminator' if options.kind == 'vqgan' else ''}"
        found.append(
            Network(name, label, size, options.training.batch_size, autoencoder_step(recipe, size, data.channels))
        )
        factor = options.fold * 2 ** (len(options.channels) - 1)
        grid, channels = [-(-length // factor) for length in size], options.latent_channels
        concat = channels if data.target else 0
    elif data.target:  # the residual of a regression
        channels, concat = data.target_channels, data.channels + data.target_channels
    if recipe.regression is not None:
        step = regression_step(recipe)
        found.append(Network(name, "regression", size, recipe.regression.training.batch_size, step))
    batch = denoiser.training.batch_size
    found.append(Network(name, "denoiser", size, batch, denoiser_step(recipe, grid, channels, concat, False)))
    again = denoiser_step(recipe, grid, channels, concat, True)
    found.append(Network(name, "denoiser, `checkpointing: true`", size, batch, again))
    return found


def recipes() -> dict[str, RecipeOptions]:
    """The full-scale recipes; `generation` has the networks of `anomaly`."""
    paths = [path for path in sorted(RECIPES.glob("*.yaml")) if path.stem != "generation"]
    return {path.stem: RecipeOptions.model_validate(yaml.safe_load(path.read_text())) for path in paths}


def table() -> Iterator[str]:
    """Memory of every network by size, precision and batch, and the largest batch of a card."""
    yield (
        "| recipe | network | image | precision | "
        + " | ".join(f"batch {n}" for n in BATCHES)
        + " | "
        + " | ".join(f"largest in {n} GB" for n in CARDS)
        + " |"
    )
    yield "|---|---|---|---|" + "---:|" * (len(BATCHES) + len(CARDS))
    for name, recipe in recipes().items():
        for size in SIZES[recipe.data.dimensions]:
            for network in networks(name, recipe, size):
                plain = size == recipe.data.size and "checkpointing" not in network.name
                for precision in PRECISIONS if plain else PRECISIONS[:1]:
                    one, fixed, each = network.line(precision)
                    fits = [max(0, int((card * GB * 0.9 - fixed) / each)) for card in CARDS]
                    cells = [name, network.name, " x ".join(map(str, size)), precision,
                             *(f"{max(one, fixed + n * each) / GB:.1f}" for n in BATCHES), *(f"{n:,}" if n else "none" for n in fits)]  # fmt: skip
                    yield "| " + " | ".join(cells) + " |"


def whole(network: nn.Module, channels: int, size: Sequence[int], tile: int) -> int:
    """Bytes at most while a volume goes through a network, the volume and what comes out among them."""
    with FakeTensorMode(allow_non_fake_inputs=True), Live() as live, torch.no_grad():
        source = torch.zeros(1, channels, *size)
        tiled(network, source, multiple=network.multiple(), tile=tile)  # type: ignore[operator]
    return live.peak


def whole_table() -> Iterator[str]:
    """Memory of regressions on whole volumes, float32."""
    yield "| regression | volume | in tiles, GB | at once, GB |"
    yield "|---|---|---:|---:|"
    shipped = yaml.safe_load((RECIPES.parent / "ixi_noddi.yaml").read_text())["recipes"]["translation"]
    chosen = {"noddi-from-shells": RecipeOptions.model_validate(shipped)}
    chosen |= {name: recipe for name, recipe in recipes().items() if recipe.regression is not None}
    for name, recipe in chosen.items():
        assert recipe.regression is not None
        with FakeTensorMode():
            network = regressor(recipe)
        for size in WHOLE:
            found = [whole(network, recipe.data.channels, size, tile) / GB for tile in (TILE, 2 * TILE)]
            yield f"| {name} | {' x '.join(map(str, size))} | {found[0]:.1f} | {found[1]:.1f} |"


def measured_on_cpu(network: Network, batch: int) -> int:
    """Bytes that the CPU's allocator gave out at most during a step in float32."""
    with torch.profiler.profile(profile_memory=True) as profiler:
        network.on("cpu", batch, "float32")
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def measured_on_gpu(network: Network, batch: int, precision: str) -> int:
    """Bytes that a card's allocator gave out at most."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    network.on("cuda", batch, precision)
    return torch.cuda.max_memory_allocated() - before


def small(name: str, recipe: RecipeOptions) -> list[Network]:
    """The same networks, so narrow that a CPU makes a step in seconds."""
    changes: dict[str, Any] = {"channels": [16, 32], "blocks": 1}
    denoiser = recipe.denoiser.model_copy(update={**changes, "attention": [False, True]})
    autoencoder = recipe.autoencoder.model_copy(update=changes) if recipe.autoencoder else None
    narrow = recipe.model_copy(update={"denoiser": denoiser, "autoencoder": autoencoder})
    return networks(name, narrow, [64, 64] if recipe.data.dimensions == 2 else [24, 24, 24])


def checks(device: str) -> Iterator[str]:
    """Rows of what was computed and what an allocator gave out."""
    yield "| recipe | network | image | precision | batch | computed, GB | measured, GB | measured / computed |"
    yield "|---|---|---|---|---:|---:|---:|---:|"
    for name, recipe in recipes().items():
        size = recipe.data.size
        for network in small(name, recipe) if device == "cpu" else networks(name, recipe, size):
            batch, precision = (4, "float32") if device == "cpu" else (network.batch, "bfloat16")
            computed = network.computed(batch, precision)
            measured = (
                measured_on_cpu(network, batch) if device == "cpu" else measured_on_gpu(network, batch, precision)
            )
            cells = [name, network.name, " x ".join(map(str, network.size)), precision, str(batch),
                     f"{computed / GB:.3f}", f"{measured / GB:.3f}", f"{measured / computed:.2f}"]  # fmt: skip
            yield "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], help="only the check, on this device")
    parser.add_argument("--whole", action="store_true", help="only whole volumes through a regression")
    given = parser.parse_args()
    device = given.device
    if given.whole:
        print("\n".join(whole_table()))
        return
    if device is None:
        for line in table():
            print(line, flush=True)
        print()
    for line in checks(device or "cpu"):
        print(line)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
