"""Where the time of a training step goes: waiting for data, the host, the card. As a Markdown table.

    python benchmarks/device/profile_step.py slices --chunks CHUNKS --work WORK

The real training loop runs for some steps; only the calls that wait are timed, and the kernels are counted by
torch.profiler. A loss is read back after each step, so that a step's wall time is its own.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from train import IMAGES, changed, read_recipe

from pipeline_lib.training import trainer
from pipeline_lib.training.denoiser import train_denoiser

WARM, TIMED, PROFILED = 30, 40, 20
"""Steps."""


class Clock:
    """Seconds of waiting for data and of updating, from step to step, and the profile of the last ones."""

    def __init__(self, warm: int, timed: int, profiled: int) -> None:
        self.warm, self.timed, self.profiled, self.steps = warm, timed, profiled, 0
        self.waited, self.updated = 0.0, 0.0
        self.began = self.wall = 0.0
        activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])
        self.profiler = profile(activities=activities)

    def batches(self, *arguments: Any, **options: Any) -> Iterator[Any]:
        """`trainer.batches`, timed."""
        loaded = BATCHES(*arguments, **options)
        while True:
            began = time.perf_counter()
            try:
                batch = next(loaded)
            except StopIteration:
                return
            if self.counting:
                self.waited += time.perf_counter() - began
            yield batch

    def update(self, *arguments: Any, **options: Any) -> Any:
        """`trainer._update`, timed."""
        if self.steps == self.warm:
            self.began = time.perf_counter()
        if self.steps == self.warm + self.timed:
            self.wall = time.perf_counter() - self.began
            self.profiler.start()
        began = time.perf_counter()
        losses = UPDATE(*arguments, **options)
        if self.counting:
            self.updated += time.perf_counter() - began
        self.steps += 1
        if self.steps == self.warm + self.timed + self.profiled:
            self.profiler.stop()
        return losses

    @property
    def counting(self) -> bool:
        """Whether this step is timed."""
        return self.warm <= self.steps < self.warm + self.timed


BATCHES: Callable[..., Iterator[Any]] = trainer.batches
UPDATE: Callable[..., Any] = trainer._update


def main() -> None:
    """Train, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--chunks", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    warm, timed, profiled = (2, 3, 3) if arguments.tiny else (WARM, TIMED, PROFILED)
    steps = warm + timed + profiled
    never = {"steps": steps, "validate_every": steps + 1, "checkpoint_every": steps + 1}
    recipe = changed(read_recipe(arguments.name, tiny=arguments.tiny), "denoiser", never)
    clock = Clock(warm, timed, profiled)
    trainer.batches, trainer._update = clock.batches, clock.update  # type: ignore[assignment]
    folders = [
        sorted((arguments.chunks / IMAGES[arguments.name]).glob(f"{split}-*")) for split in ("train", "validation")
    ]
    train_denoiser(recipe, *folders, arguments.work / "out", arguments.work / "state", {}, name=arguments.name)

    each = 1e3 * clock.wall / timed
    averages = clock.profiler.key_averages()
    kernels = [event for event in averages if event.device_type == DeviceType.CUDA and not event.is_user_annotation]
    on_card = sum(event.self_device_time_total for event in kernels) / 1e3 / profiled
    rows = {
        "wall": each,
        "waiting for data": 1e3 * clock.waited / timed,
        "forward, backward, optimiser, as the host sees it": 1e3 * clock.updated / timed,
        "kernels on the card": on_card,
    }
    batch = recipe.denoiser.training.batch_size
    print(f"\n### A training step of {arguments.name}, batch {batch}, {recipe.denoiser.training.precision}\n")
    print("| | ms | % of the step |\n|---|---:|---:|")
    for name, value in rows.items():
        print(f"| {name} | {value:.2f} | {100 * value / each:.0f} |")
    print(f"\n{batch * 1e3 / each:.0f} images a second\n")
    print(
        averages.table(
            sort_by="self_device_time_total" if on_card else "self_cpu_time_total",
            row_limit=15,
            max_name_column_width=60,
        )
    )


if __name__ == "__main__":
    main()
