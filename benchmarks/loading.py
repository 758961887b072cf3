"""How fast training images come from packed chunks, and what the loading processes share, as a Markdown table.

python benchmarks/loading.py > docs/loading.md
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import torch
from planning import SUSTAINED, networks, read_recipe

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.dataset.augment import augmentation
from pipeline_lib.dataset.index import TEXT_COLUMNS
from pipeline_lib.dataset.packed import PackedDataset
from pipeline_lib.training.stream import Positions, Stream, batches

SLICES, SIZE, BATCH, STEPS = 4_000, (112, 96), 32, 200
RECIPE = RecipeOptions(task="generation")
NEEDED = SUSTAINED / (3 * networks(read_recipe("generation"))[-1].forward)
"""Images a second that the full-scale 2D denoiser takes on the GPU that planning assumes."""


def write_chunk(folder: Path) -> None:
    """A packed chunk of random slices."""
    data = np.lib.format.open_memmap(folder / "data.npy", "w+", np.float32, (SLICES, 1, *SIZE))
    data[:] = np.random.default_rng(0).random((SLICES, 1, *SIZE), np.float32) * 2 - 1
    data.flush()
    rows = ["\t".join([*TEXT_COLUMNS, "age", "has_lesion"])]
    rows += ["\t".join([*(f"{name}{i}" for name in TEXT_COLUMNS), "50", "false"]) for i in range(SLICES)]
    (folder / "index.tsv").write_text("\n".join(rows) + "\n")
    (folder / "layout.json").write_text(json.dumps({"left_right": 1}))


def memory(process: psutil.Process) -> tuple[float, float]:
    """Memory mapped into the processes, and what is theirs alone, MB a process."""
    infos = [child.memory_full_info() for child in process.children()] or [process.memory_full_info()]
    return sum(info.rss for info in infos) / len(infos) / 2**20, sum(info.uss for info in infos) / len(infos) / 2**20


def measure(folder: Path, workers: int) -> list[str]:
    """A row of the table."""
    images = PackedDataset([folder], augment=augmentation(RECIPE.denoiser.training.augment, 0))
    positions = Positions(0, STEPS, 1, BATCH, slice(0, BATCH))
    loaded: Iterator[dict[str, torch.Tensor]] = batches(Stream(images, 0), positions, workers=workers, pin=False)
    for _ in range(20):
        next(loaded)
    started = time.perf_counter()
    for _ in range(STEPS - 40):
        next(loaded)
    rate = (STEPS - 40) * BATCH / (time.perf_counter() - started)
    rss, uss = memory(psutil.Process(os.getpid()))
    return [str(workers), f"{rate:,.0f}", f"{rate / NEEDED:.1f}", f"{rss:,.0f}", f"{uss:,.0f}"]


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        write_chunk(Path(name))
        rows = [measure(Path(name), workers) for workers in (0, 1, 2, 4)]
        size = (Path(name) / "data.npy").stat().st_size / 2**20
    print(f"""# Loading training images

Made by `python benchmarks/loading.py > docs/loading.md` on {os.cpu_count()} cores: {SLICES:,} packed slices of {SIZE[0]} x {SIZE[1]} ({size:.0f} MB),
batches of {BATCH}, the default augmentation of scans included (flip, rotation, scale, shift, gamma). With 0 workers the training process loads itself.

| workers | images a second | times what a GPU needs | memory a process, MB | of it not shared, MB |
|---:|---:|---:|---:|---:|""")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print(f"""
What a GPU needs is {NEEDED:.0f} images a second: the full-scale 2D denoiser on a GPU that sustains {SUSTAINED / 1e12:.0f} TFLOP/s
([planning.md](planning.md), assumed). The packed file is mapped, so its pages are in memory once for all processes.""")


if __name__ == "__main__":
    main()
