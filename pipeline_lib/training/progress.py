"""What a person watching sees: a line every few seconds, then curves and pictures."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from pipeline_lib.files import atomic_path
from pipeline_lib.imaging.planes import ortho
from pipeline_lib.training.steps import Step

log = logging.getLogger("pipeline")

SECONDS_BETWEEN_LINES = 2.0
SHARE_BETWEEN_LINES = 0.01
"""Of the time so far: a training of hours does not fill its log."""


class Shown:
    """What a training shows of itself while it runs: lines, TensorBoard's curves, strips of samples.

    Lines are such as ``train_denoiser anomaly: step 40/200, loss 0.1234, 0.17 s/step, 27 s left``. Strips are kept in
    ``strips/`` of the state folder, TensorBoard's events in ``tensorboard/``. Only the process that leads shows anything.
    """

    def __init__(self, name: str, state: Path, start: int, steps: int, *, leads: bool) -> None:
        self.name, self.state, self.start, self.steps, self.leads = name, state, start, steps, leads
        self.began = self.last = time.monotonic()
        self.writer = SummaryWriter(state / "tensorboard", purge_step=start) if leads else None

    def __enter__(self) -> Shown:
        return self

    def __exit__(self, *_: object) -> None:
        if self.writer is not None:
            self.writer.close()

    @property
    def seconds(self) -> float:
        """Time since training started or was resumed."""
        return time.monotonic() - self.began

    def line(self, step: int, loss: float) -> None:
        """Say where training is after ``step`` steps, unless it was said a moment ago."""
        now = time.monotonic()
        pause = max(SECONDS_BETWEEN_LINES, SHARE_BETWEEN_LINES * (now - self.began))
        if not self.leads or (now - self.last < pause and step < self.steps):
            return
        self.last = now
        each = (now - self.began) / max(1, step - self.start)
        left = each * (self.steps - step)
        when = f"{_duration(left)} left" if step < self.steps else f"{_duration(now - self.began)} in all"
        log.info("%s: step %d/%d, loss %.4f, %.2g s/step, %s", self.name, step, self.steps, loss, each, when)

    def curves(self, row: Mapping[str, float]) -> None:
        """A row of the history as points of TensorBoard's curves."""
        if self.writer is not None:
            for key, value in row.items():
                self.writer.add_scalar(key.replace("_", "/", 1), value, int(row["step"]))

    def strip(self, step: int, model: Step, module: nn.Module) -> None:
        """Keep the samples of the averaged ``module`` at ``step``."""
        if self.leads:
            path = self.state / "strips" / f"step-{step:08d}.npy"
            with atomic_path(path) as temporary, open(temporary, "wb") as file:
                np.save(file, to_rgb(model.strip(module)))

    def strips(self, model: Step) -> dict[str, NDArray[np.uint8]]:
        """Every strip kept by its label, after what they are to look like where there is such a thing."""
        wanted = model.reference()
        rows = {} if wanted is None else {"wanted": to_rgb(wanted)}
        if self.leads:
            for path in sorted((self.state / "strips").glob("step-*.npy")):
                rows[f"step {int(path.stem.removeprefix('step-'))}"] = np.load(path)
        return rows


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def to_rgb(images: Tensor) -> NDArray[np.uint8]:
    """Images (N, C, *spatial) in [-1, 1] as something to look at, (N, rows, columns, 3).

    A volume shows its three middle slices; other than three channels, the first one.
    """
    values = images.detach().float().cpu().clamp(-1, 1).numpy()
    coloured = values if values.shape[1] == 3 else values[:, :1].repeat(3, axis=1)
    views = [np.stack([ortho(channel[None], ground=-1) for channel in image], axis=-1) for image in coloured]
    return ((np.stack(views) + 1) * 127.5).round().astype(np.uint8)


def draw_loss(history: pd.DataFrame, title: str, path: Path) -> None:
    """Training and validation loss over the optimiser steps, and every part of it."""
    parts = [str(column).partition("_") for column in history]
    names = list(dict.fromkeys(name for split, _, name in parts if split in ("train", "validation")))
    figure, axes = plt.subplots(1, len(names), figsize=(4 * len(names), 3), squeeze=False, layout="constrained")
    for name, axis in zip(names, axes[0], strict=True):
        positive = True
        for split, colour, marker in (("train", "tab:blue", ""), ("validation", "tab:orange", "o")):
            if f"{split}_{name}" in history:
                rows = history[["step", f"{split}_{name}"]].dropna()
                axis.plot(rows["step"], rows[f"{split}_{name}"], color=colour, marker=marker, ms=3, label=split)
                positive = positive and bool((rows[f"{split}_{name}"] > 0).all())
        axis.set(title=name.replace("_", " "), xlabel="optimiser step", yscale="log" if positive else "linear")
        axis.legend(frameon=False, fontsize="small")
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize="medium")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw_strip(rows: Mapping[str, NDArray[np.uint8]], title: str, path: Path) -> None:
    """One labelled row of pictures after the other, each (N, rows, columns, 3)."""
    count = max(len(row) for row in rows.values())
    wide = max(1.0, *(row.shape[2] / row.shape[1] for row in rows.values()))
    figure, axes = plt.subplots(
        len(rows), count, figsize=(1.4 * wide * count + 0.6, 1.4 * len(rows) + 0.5), squeeze=False, layout="constrained"
    )
    for (label, row), line in zip(rows.items(), axes, strict=True):
        for axis in line:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        for axis, picture in zip(line, row, strict=False):
            axis.imshow(picture, interpolation="nearest")
        line[0].set_ylabel(label, fontsize="small")
    figure.suptitle(title, fontsize="medium")
    figure.savefig(path, dpi=100)
    plt.close(figure)
