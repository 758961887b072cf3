"""Side by side with the packages that people use now, in one run, as Markdown tables.

    make bench                            # on this machine's CPU
    make bench BENCH='--device cuda'      # on a GPU, bfloat16
    make bench BENCH='--only quantisers samplers'

Every comparison alternates between the candidates, so that whatever else the machine does falls on all of them,
and shows medians (of two for the quantisers, of which MONAI's takes half a minute). "Relative" is to the first row, turn
by turn.
"""

from __future__ import annotations

import argparse
import copy
import gc
import logging
import os
import platform
import statistics
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Any
from unittest import mock

import diffusers
import numba
import numpy as np
import opensimplex
import psutil
import torch
from monai.networks.layers.vector_quantizer import EMAQuantizer, VectorQuantizer
from monai.networks.nets import DiffusionModelUNet
from torch import Tensor, nn

from pipeline_lib.diffusion.process import DiffusionProcess
from pipeline_lib.diffusion.samplers import ddim, timestep_pairs
from pipeline_lib.diffusion.schedule import make_schedule
from pipeline_lib.models.monai import load_monai_unet
from pipeline_lib.models.quantiser import Quantiser
from pipeline_lib.models.unet import UNet
from pipeline_lib.noise.compiled import permutations
from pipeline_lib.noise.opensimplex import opensimplex as our_opensimplex
from pipeline_lib.noise.simplex import SimplexNoise

Work = Callable[[], object]
Network = Callable[[Tensor, Tensor], Tensor]
STEPS = 20
"""Sampling steps, of 1000."""
FIELDS = 8
"""Fields, or planes, of noise that are made together."""


@dataclass(frozen=True)
class Setting:
    """Where and how a run measures."""

    device: torch.device
    repeats: int
    eager: bool = False  # without torch.compile, which takes minutes

    def autocast(self) -> AbstractContextManager[Any]:
        """bfloat16 on a GPU, nothing on a CPU."""
        on_gpu = self.device.type == "cuda"
        return torch.autocast("cuda", torch.bfloat16) if on_gpu else nullcontext()

    def wait(self) -> None:
        """Until the device has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def alternate(work: Mapping[str, Work], setting: Setting, warm: int = 2) -> dict[str, list[float]]:
    """Seconds of each, in turns, after so many warm-up rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(setting.repeats + warm):
        for name, run in work.items():
            setting.wait()
            started = time.perf_counter()
            run()
            setting.wait()
            if turn >= warm:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def milliseconds(seconds: Sequence[float], digits: int = 0) -> str:
    """The median."""
    return f"{1e3 * statistics.median(seconds):.{digits}f}"


def relative(seconds: Sequence[float], base: Sequence[float]) -> str:
    """The median ratio of what was measured in the same turn: how fast the machine is changes from turn to turn."""
    return f"{statistics.median(one / other for one, other in zip(seconds, base, strict=True)):.2f}"


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table below a heading."""
    print(f"\n### {title}\n\n| " + " | ".join(header) + " |")
    print("|---|" + "---:|" * (len(header) - 1))
    for row in rows:
        print("| " + " | ".join(row) + " |")


def millions(module: nn.Module) -> str:
    """Weights in millions."""
    return f"{sum(parameter.numel() for parameter in module.parameters()) / 1e6:.2f}"


def training_step(network: nn.Module, call: Network, x: Tensor, t: Tensor, setting: Setting) -> Work:
    """Forward, backward and AdamW on the squared error."""
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with setting.autocast():
            loss = (call(x, t).float() - x).square().mean()
        loss.backward()
        optimiser.step()

    return step


def forward(call: Network, x: Tensor, t: Tensor, setting: Setting) -> Work:
    """One evaluation without gradients."""

    def run() -> None:
        with torch.no_grad(), setting.autocast():
            call(x, t)

    return run


def lucidrains() -> nn.Module:
    """denoising-diffusion-pytorch's U-Net, its width chosen for as many weights as the others.

    What only its training loop uses is stood in for: PyPI's torchvision does not load beside CPU builds of torch.
    """
    unused = (
        "accelerate", "ema_pytorch", "pytorch_fid", "pytorch_fid.fid_score", "pytorch_fid.inception", "torchvision",
    )  # fmt: skip
    with mock.patch.dict(sys.modules, {name: mock.MagicMock() for name in unused}):
        from denoising_diffusion_pytorch import Unet
    unet: nn.Module = Unet(40, dim_mults=(1, 2, 4), channels=1)
    return unet


def unets(dimensions: int, setting: Setting) -> None:
    """This U-Net and MONAI's with the same weights; others as near in size as their options allow.

    MONAI normalises in 32 groups, this library otherwise in fewer (`layers.group_norm`).
    """
    on_gpu = setting.device.type == "cuda"
    side, batch = ((128, 32) if dimensions == 2 else (48, 4)) if on_gpu else ((64, 8) if dimensions == 2 else (24, 2))
    channels, attention = (32, 64, 128), (False, False, True)
    theirs = DiffusionModelUNet(
        spatial_dims=dimensions, in_channels=1, out_channels=1, num_res_blocks=2, channels=channels,
        attention_levels=attention, num_head_channels=32,
    )  # fmt: skip
    usual, ours = (
        UNet(
            dimensions=dimensions, in_channels=1, out_channels=1, channels=channels, blocks=2, attention=attention,
            head_channels=32, groups=groups,
        ) for groups in (None, 32)
    )  # fmt: skip
    for parameter in theirs.parameters():  # some start at zero, and two networks that give zero prove nothing
        nn.init.normal_(parameter, std=0.05)
    load_monai_unet(ours, theirs.state_dict())
    usual.load_state_dict(ours.state_dict())
    layout: Any = torch.channels_last if dimensions == 2 else torch.channels_last_3d
    networks: dict[str, nn.Module] = {
        "MONAI DiffusionModelUNet": theirs,
        "MONAI DiffusionModelUNet, channels_last": copy.deepcopy(theirs).to(memory_format=layout),
        "pipeline_lib UNet, same weights and groups": ours,
        "pipeline_lib UNet": usual,
        "pipeline_lib UNet, channels_last": copy.deepcopy(usual).to(memory_format=layout),
    }
    if on_gpu and not setting.eager:  # where all are in bfloat16
        networks["MONAI DiffusionModelUNet, channels_last, torch.compile"] = copy.deepcopy(theirs).to(
            memory_format=layout
        )
        networks["pipeline_lib UNet, channels_last, torch.compile"] = copy.deepcopy(usual).to(memory_format=layout)
    elif not on_gpu and dimensions == 2:
        networks["pipeline_lib UNet, channels_last, bfloat16"] = copy.deepcopy(usual).to(memory_format=layout)
    if dimensions == 2:
        networks["diffusers UNet2DModel"] = diffusers.UNet2DModel(
            sample_size=side, in_channels=1, out_channels=1, layers_per_block=2, block_out_channels=channels,
            down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"), attention_head_dim=32,
        )  # fmt: skip
        networks["denoising-diffusion-pytorch Unet"] = lucidrains()
    x = torch.randn(batch, 1, *[side] * dimensions, device=setting.device)
    t = torch.randint(0, 1000, (batch,), device=setting.device)
    calls: dict[str, Network] = {}
    inputs: dict[str, Tensor] = {}
    for name, network in networks.items():
        network.to(setting.device)
        called: Any = torch.compile(network) if "compile" in name else network
        if "bfloat16" in name:
            called = torch.autocast("cpu", torch.bfloat16)(network.forward)
        calls[name] = (lambda x, t, called=called: called(x, t).sample) if "diffusers" in name else called
        inputs[name] = x.to(memory_format=layout) if "channels_last" in name else x
    with torch.no_grad():
        expected, found = (network(x, t) for network in (theirs, ours))
    difference = float((expected - found).abs().max() / expected.abs().max())
    steps = alternate(
        {name: training_step(networks[name], calls[name], inputs[name], t, setting) for name in networks}, setting
    )
    forwards = alternate({name: forward(calls[name], inputs[name], t, setting) for name in networks}, setting)
    base, first = next(iter(steps.values())), next(iter(forwards.values()))
    rows = [
        [name, millions(networks[name]), milliseconds(steps[name]), relative(steps[name], base),
         milliseconds(forwards[name]), relative(forwards[name], first)]
        for name in networks
    ]  # fmt: skip
    shape = " x ".join(map(str, x.shape))
    table(
        f"U-Net, {dimensions}D, {shape}",
        ["network", "weights, millions", "training step, ms", "relative", "forward, ms", "relative"],
        rows,
    )
    print(
        f"\nLargest difference between the outputs of the two of the same weights and groups: {difference:.1e} of the largest output."
    )


def folded(dimensions: int, setting: Setting) -> None:
    """Images trained on in a second: this U-Net on voxels folded by 4 beside others of as many weights on plain voxels.

    All have the same levels, blocks and attention; a folded network's first and last convolution are larger.
    """
    on_gpu = setting.device.type == "cuda"
    side = 128 if dimensions == 2 else 64
    batch = (32 if dimensions == 2 else 4) if on_gpu else (8 if dimensions == 2 else 1)
    channels, attention = (64, 96, 128), (False, False, True)
    networks: dict[str, nn.Module] = {
        "MONAI DiffusionModelUNet": DiffusionModelUNet(
            spatial_dims=dimensions, in_channels=1, out_channels=1, num_res_blocks=1, channels=channels,
            attention_levels=attention, num_head_channels=32,
        )
    }  # fmt: skip
    if dimensions == 2:
        networks["diffusers UNet2DModel"] = diffusers.UNet2DModel(
            sample_size=side, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=channels,
            down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"), attention_head_dim=32,
        )  # fmt: skip
    for fold in (1, 2, 4) if dimensions == 2 or on_gpu else (2, 4):  # plain volumes take as long as MONAI's
        networks[f"pipeline_lib UNet, folded by {fold}" if fold > 1 else "pipeline_lib UNet"] = UNet(
            dimensions=dimensions, in_channels=1, out_channels=1, fold=fold, channels=channels, blocks=1,
            attention=attention, head_channels=32,
        )  # fmt: skip
    x = torch.randn(batch, 1, *[side] * dimensions, device=setting.device)
    t = torch.randint(0, 1000, (batch,), device=setting.device)
    steps: dict[str, Work] = {}
    for name, network in networks.items():
        network.to(setting.device)
        call: Any = (lambda x, t, network=network: network(x, t).sample) if "diffusers" in name else network
        steps[name] = training_step(network, call, x, t, setting)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times = alternate(steps, replace(setting, repeats=min(setting.repeats, 3)), warm=1)
    torch.set_num_threads(threads)
    base = next(iter(times.values()))
    rows = [
        [name, millions(networks[name]), f"{batch / statistics.median(seconds):.2f}", f"{statistics.median(one / other for one, other in zip(base, seconds, strict=True)):.1f}"]
        for name, seconds in times.items()
    ]  # fmt: skip
    shape = " x ".join(map(str, x.shape))
    table(
        f"Images trained on, {dimensions}D, batches of {shape}",
        ["network", "weights, millions", "images a second" if on_gpu else "images a core-second", "times the first"],
        rows,
    )


def samplers(setting: Setting) -> None:
    """What a sampler costs beside the model: DDIM."""
    network = UNet(
        dimensions=2, in_channels=1, out_channels=1, channels=(32, 64, 128), blocks=2, attention=(False, False, True)
    )
    network.to(setting.device).eval()
    x = torch.randn(8, 1, 64, 64, device=setting.device)
    process = DiffusionProcess(make_schedule("linear", 1000), "eps")
    scheduler = diffusers.DDIMScheduler(1000, beta_schedule="linear", clip_sample=True, timestep_spacing="trailing")
    scheduler.set_timesteps(STEPS, device=setting.device)
    spent = 0.0

    def model(x: Tensor, t: Tensor) -> Tensor:
        nonlocal spent
        setting.wait()
        started = time.perf_counter()
        out: Tensor = network(x, t)
        setting.wait()
        spent += time.perf_counter() - started
        return out

    def ours() -> None:
        ddim(model, x, timestep_pairs(1000, STEPS), process, clip=True)

    def theirs() -> None:
        sample = x
        for t in scheduler.timesteps:
            sample = scheduler.step(model(sample, t.expand(len(x))), t, sample).prev_sample

    runs: dict[str, Work] = {"diffusers DDIMScheduler": theirs, "pipeline_lib ddim": ours}
    inside: dict[str, list[float]] = {name: [] for name in runs}
    outside: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(setting.repeats + 1):
        for name, run in runs.items():
            spent, started = 0.0, time.perf_counter()
            with torch.no_grad():
                run()
            setting.wait()
            if turn:
                inside[name].append(1e3 * spent / STEPS)
                outside[name].append(1e3 * (time.perf_counter() - started - spent) / STEPS)
    rows = []
    for name in runs:
        network_ms, sampler_ms = statistics.median(inside[name]), statistics.median(outside[name])
        rows.append([name, f"{network_ms:.2f}", f"{sampler_ms:.3f}", f"{100 * sampler_ms / network_ms:.2f}"])
    table(
        f"Sampler, DDIM, {STEPS} steps of 8 x 1 x 64 x 64",
        ["sampler", "model, ms a step", "sampler, ms a step", "overhead, %"],
        rows,
    )


class Peak:
    """The process's largest resident memory within a context, in bytes above what it started with; a GPU's own count."""

    def __init__(self, setting: Setting) -> None:
        self.setting, self.bytes, self.done = setting, 0, threading.Event()

    def __enter__(self) -> Peak:
        gc.collect()
        if self.setting.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self.start = torch.cuda.memory_allocated()
        else:
            self.process = psutil.Process(os.getpid())
            self.start = self.process.memory_info().rss
            self.watcher = threading.Thread(target=self._watch)
            self.watcher.start()
        return self

    def _watch(self) -> None:
        while not self.done.wait(0.002):
            self.bytes = max(self.bytes, self.process.memory_info().rss - self.start)

    def __exit__(self, *_: object) -> None:
        if self.setting.device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated() - self.start
        else:
            self.done.set()
            self.watcher.join()


def quantisers(setting: Setting) -> None:
    """Two volumes of 32 x 32 x 32 tokens, 16,384 codes of size 8, in training."""
    codes, size = 16_384, 8
    z = torch.randn(2, size, 32, 32, 32, device=setting.device)
    ours = Quantiser(codes, size).to(setting.device).train()
    theirs = VectorQuantizer(EMAQuantizer(3, codes, size)).to(setting.device).train()
    quantisers = {"MONAI VectorQuantizer": theirs, "pipeline_lib Quantiser": ours}
    peaks = {}
    for name, quantise in reversed(quantisers.items()):
        with Peak(setting) as peak:
            quantise(z)
        peaks[name] = peak.bytes / 2**20
    seconds = alternate({name: partial(quantise, z) for name, quantise in quantisers.items()}, setting)
    rows = [[name, f"{statistics.median(seconds[name]):.2f}", f"{peaks[name]:,.0f}"] for name in quantisers]
    table("Vector quantisation, 2 x 32^3 tokens, 16,384 codes of 8", ["quantiser", "seconds", "peak memory, MiB"], rows)


def simplex_points(setting: Setting) -> None:
    """The same points, opensimplex (numba) and this library, at the spacing of each octave of a default field.

    The finer the spacing, the more neighbours share a cell, whose vertices this library looks up once.
    """
    reference = opensimplex.OpenSimplex(3)
    shuffled = torch.from_numpy(permutations(np.array([3])))
    planes = np.arange(FIELDS) + 7.3  # which it shares out among cores
    largest, rows = 0.0, []
    for cores in sorted({1, os.cpu_count() or 1}):
        numba.set_num_threads(cores)
        torch.set_num_threads(cores)  # after numba, which sets the number of the OpenMP that they may share
        totals: dict[str, list[float]] = {}
        for spacing in (2**k / 64 for k in range(6)):
            axis = np.arange(128) * spacing + 0.37
            grid = np.stack(np.meshgrid(planes, axis, axis, indexing="ij"), -1)[..., ::-1].copy()
            exact = torch.from_numpy(grid)[None]
            work: dict[str, Work] = {
                "opensimplex": partial(reference.noise3array, axis, axis, planes),
                "float64": partial(our_opensimplex, exact, shuffled),
                "float32": partial(our_opensimplex, exact.float(), shuffled),
            }
            seconds = alternate(work, setting)
            for name, times in seconds.items():
                totals[name] = [a + b for a, b in zip(times, totals.get(name, [0.0] * len(times)), strict=True)]
            rows.append(point_row(f"1/{1 / spacing:.0f}", cores, seconds))
            found = our_opensimplex(exact, shuffled)[0].numpy()
            largest = max(largest, float(np.abs(found - reference.noise3array(axis, axis, planes)).max()))
        rows.append(point_row("sum of the six", cores, totals))
    table(
        f"Simplex noise, ns a point, {FIELDS} x 128 x 128 points of each octave of a default field, CPU",
        ["spacing, lattice units", "cores", "opensimplex (numba)", "pipeline_lib, float64", "relative",
         "pipeline_lib, float32", "relative"],
        rows,
    )  # fmt: skip
    print(f"\nLargest difference in float64: {largest:.1e}.")


def point_row(spacing: str, cores: int, seconds: Mapping[str, Sequence[float]]) -> list[str]:
    """Nanoseconds a point of opensimplex and of this library in float64 and float32, both also relative to it."""
    row = [spacing, str(cores)]
    for name, times in seconds.items():
        row.append(f"{1e9 * statistics.median(times) / FIELDS / 128**2:.0f}")
        if name != "opensimplex":
            row.append(relative(times, seconds["opensimplex"]))
    return row


def simplex_fields(setting: Setting) -> None:
    """Whole fields of six octaves."""
    plane = np.array([7.3])
    noise = SimplexNoise()

    def usual() -> None:
        """A field a sample and octave, one after the other, as published code does."""
        for seed in range(FIELDS):
            made = opensimplex.OpenSimplex(seed)
            points = np.arange(128) / 64
            sum(0.8**k * made.noise3array(points * 2**k, points * 2**k, plane)[0] for k in range(6))

    times = alternate({"opensimplex, a field at a time": usual, "pipeline_lib SimplexNoise": lambda: noise((FIELDS, 1, 128, 128), device=setting.device)}, setting)  # fmt: skip
    rows = [[name, milliseconds([total / FIELDS for total in seconds], 2)] for name, seconds in times.items()]
    table(f"Simplex noise, {FIELDS} fields of 128 x 128, 6 octaves, {setting.device}", ["", "ms a field"], rows)


def simplex_in_training(setting: Setting) -> None:
    """A batch of noise beside the training step that it is drawn for."""
    network = UNet(
        dimensions=2, in_channels=1, out_channels=1, channels=(32, 64, 128), blocks=2, attention=(False, False, True)
    )
    network.to(setting.device)
    x = torch.randn(32, 1, 128, 128, device=setting.device)
    t = torch.randint(0, 1000, (32,), device=setting.device)
    noise, generator = SimplexNoise(), torch.Generator(setting.device)
    work: dict[str, Work] = {
        "pipeline_lib UNet, training step": training_step(network, network, x, t, setting),
        "pipeline_lib SimplexNoise": lambda: noise(x.shape, generator=generator, device=setting.device),
    }
    times = alternate(work, setting)
    step = next(iter(times.values()))
    table(
        f"Simplex noise, 32 fields of 128 x 128, 6 octaves, {setting.device}",
        ["", "ms", "% of the step"],
        [
            [name, milliseconds(seconds, 2), f"{100 * float(relative(seconds, step)):.0f}"]
            for name, seconds in times.items()
        ],
    )


TABLES: Mapping[str, Callable[[Setting], None]] = {
    "quantisers": lambda setting: quantisers(replace(setting, repeats=min(setting.repeats, 2))),
    "unets": lambda setting: unets(2, setting),
    "unets_3d": lambda setting: unets(3, setting),
    "folded": lambda setting: folded(2, setting),
    "folded_3d": lambda setting: folded(3, setting),
    "samplers": samplers,
    "simplex_points": simplex_points,
    "simplex_fields": simplex_fields,
    "simplex_in_training": simplex_in_training,
}
"""In this order: after others, memory that was freed would hide what the quantisers take."""
ON_CPU = tuple(name for name in TABLES if name != "simplex_in_training")
ON_GPU = ("unets", "simplex_in_training", "folded", "quantisers", "samplers", "unets_3d", "folded_3d", "simplex_fields")
"""What is wanted most comes first: a GPU may be lent for minutes. It counts its memory itself."""


def main() -> None:
    """Print all tables, or those asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--eager", action="store_true", help="without torch.compile, which takes minutes")
    parser.add_argument("--only", nargs="+", choices=TABLES, help="these tables, in this order")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    setting = Setting(torch.device(arguments.device), arguments.repeats, arguments.eager)
    on_gpu = setting.device.type == "cuda"
    where = torch.cuda.get_device_name() if on_gpu else f"{os.cpu_count()} cores, {platform.machine()}"
    peers = ("torch", "monai", "diffusers", "denoising-diffusion-pytorch", "opensimplex")
    versions = ", ".join(f"{peer} {version(peer)}" for peer in peers)
    print(f"## {where}\n\n{versions}")
    for name in arguments.only or (ON_GPU if on_gpu else ON_CPU):
        TABLES[name](setting)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
