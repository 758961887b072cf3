"""The one training loop, read from top to bottom.

What a model contributes is a `Step`. Devices, precision and processes are Lightning Fabric's. Everything
random is a pure function of (seed, step), and everything else is in the checkpoint, so that a run that
was killed and resumed ends bit for bit where an undisturbed one does.
"""

from __future__ import annotations

import logging
import math
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import AdamW
from torch.utils.tensorboard import SummaryWriter

from pipeline_lib.config.schema import TrainingOptions
from pipeline_lib.dataset.packed import PackedArrays
from pipeline_lib.errors import UserError
from pipeline_lib.files import atomic_path
from pipeline_lib.training.artifact import save_weights
from pipeline_lib.training.checkpoint import (
    load_checkpoint,
    load_step,
    optimiser_tensors,
    restore_optimiser,
    save_checkpoint,
)
from pipeline_lib.training.ema import EMA
from pipeline_lib.training.interrupt import Interrupts
from pipeline_lib.training.progress import Progress, draw_loss, draw_strip, pictures
from pipeline_lib.training.steps import Batch, Draw, Step, seed_of
from pipeline_lib.training.stream import Drawable, Positions, Stream, batches

log = logging.getLogger("pipeline")

PRECISION: Mapping[str, Any] = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}
VALIDATION_IMAGES = 512
"""At most so many images, evenly spread, make a point of the validation curve."""
HISTORY = ("step", "images", "seconds", "lr")
"""First columns of history.csv; losses follow."""
CURVE_POINTS = 100
"""Rows of history.csv, at least, where there are as many steps."""


@dataclass(frozen=True)
class Trained:
    """What a finished training leaves.

    Attributes:
        module: the averaged module; that of ``best_step`` where ``training.patience`` is set.
        history: a row each recorded step.
        strips: pictures (N, rows, columns, 3) by the label of their row.
        steps: optimiser steps made; fewer than asked for where there was no more patience.
        best_step: step of the lowest validation loss; 0 without validation.
        state: folder with the checkpoints, the TensorBoard events and the kept averages.
    """

    module: nn.Module
    history: pd.DataFrame
    strips: Mapping[str, NDArray[np.uint8]]
    steps: int
    best_step: int
    state: Path


def launch(options: TrainingOptions, dimensions: int) -> Fabric:
    """Start the processes that ``options`` ask for; call it before anything is put on a device.

    Raises:
        UserError: more devices than there are, images that cannot be shared out evenly, or half
            precision without a GPU: float16 at all, bfloat16 in 3D, where oneDNN's gradients are wrong by
            any factor for volumes of 2 voxels along each axis, as at the bottom of a network.
    """
    gpus = torch.cuda.device_count()
    processes = options.devices * options.nodes
    if gpus and options.devices > gpus:
        raise UserError(f"training.devices is {options.devices}, but this machine has {gpus} GPUs; ask for fewer")
    if options.batch_size % processes:
        raise UserError(
            f"training.batch_size {options.batch_size} cannot be shared by {processes} processes; "
            f"make it a multiple of {processes}"
        )
    if options.precision == "float16" and not gpus:
        raise UserError("training.precision float16 needs a GPU; use float32 here")
    if options.precision == "bfloat16" and dimensions == 3 and not gpus:
        raise UserError(
            "training.precision bfloat16 in 3D needs a GPU (gradients on a CPU are wrong); use float32 here"
        )
    fabric = Fabric(
        accelerator="cuda" if gpus else "cpu",
        devices=options.devices,
        num_nodes=options.nodes,
        strategy="ddp" if processes > 1 else "auto",
        precision=PRECISION[options.precision],
        # On one node the processes are started here, also within a job of SLURM; on several, by srun.
        plugins=[LightningEnvironment()] if options.nodes == 1 else None,
    )
    fabric.launch()
    torch.manual_seed(options.seed)
    return fabric


def learning_rate(step: int, options: TrainingOptions) -> float:
    """Rate of optimiser step ``step`` (from 0): linear warm-up, then half a cosine down to zero."""
    if step < options.warmup:
        return options.learning_rate * (step + 1) / options.warmup
    done = (step - options.warmup) / max(1, options.steps - options.warmup)
    return options.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def train(
    fabric: Fabric,
    name: str,
    model: Step,
    images: Drawable,
    scans: Sequence[str],
    validation: PackedArrays,
    options: TrainingOptions,
    state: Path,
    *,
    keep_averages_at: Sequence[int] = (),
) -> Trained:
    """Train ``model``, from the last whole checkpoint in ``state`` where there is one.

    Args:
        fabric: from `launch`.
        name: what progress lines start with.
        images: the training images.
        scans: the scan each of them is from, to name those of a batch that goes wrong.
        validation: images of the validation curve; may be empty.
        state: folder for progress, the caller's key of data, configuration and code in its name.
        keep_averages_at: steps whose averaged weights are kept as ``averages/step-00000100.safetensors``.

    Raises:
        UserError: a loss or gradient is not finite, memory is short, or a checkpoint cannot be written.
        SystemExit: SIGTERM or SIGUSR1 came; the checkpoint is written.
    """
    # 1. Networks, averages and optimisers; the registry of all that a checkpoint holds.
    device, first = fabric.device, fabric.is_global_zero
    for module in model.modules.values():
        module.to(device).train()
    ema = EMA(model.modules[model.averaged], options.ema)
    optimisers = {
        part: AdamW(
            module.parameters(),
            lr=options.learning_rate,
            betas=options.betas or model.betas,
            weight_decay=options.weight_decay,
        )
        for part, module in model.modules.items()
    }
    stepping: dict[str, Any] = {part: fabric.setup_optimizers(each) for part, each in optimisers.items()}
    scaler = getattr(fabric.strategy.precision, "scaler", None)
    record = _Record()

    def registry() -> dict[str, Tensor]:
        tensors = {f"average/{key}": value for key, value in ema.module.state_dict().items()}
        for part, module in model.modules.items():
            names = {id(parameter): key for key, parameter in module.named_parameters()}
            state_of = optimiser_tensors(optimisers[part], names)
            tensors |= {f"module/{part}/{key}": value for key, value in module.state_dict().items()}
            tensors |= {f"optimiser/{part}/{key}": value for key, value in state_of.items()}
        return tensors

    def restore(tensors: Mapping[str, Tensor]) -> None:
        ema.module.load_state_dict(_under(tensors, "average/"))
        for part, module in model.modules.items():
            module.load_state_dict(_under(tensors, f"module/{part}/"))
            restore_optimiser(optimisers[part], module, _under(tensors, f"optimiser/{part}/"))

    # 2. Where did we stop?
    state.mkdir(parents=True, exist_ok=True)
    start = 0
    found = load_checkpoint(state)
    if found is not None:
        tensors, values, start = found
        restore(tensors)
        record = _Record(**values["record"])
        if scaler is not None:
            scaler.load_state_dict(values["scaler"])
        log.info("%s: resumed at step %d/%d", name, start, options.steps)
    fabric.barrier()

    def checkpoint(step: int) -> None:
        if first:
            values = {"record": vars(record), "scaler": scaler.state_dict() if scaler is not None else None}
            path = save_checkpoint(state, step, registry(), values, keep=options.keep, best=record.best_step)
            log.debug("%s: checkpoint %s", name, path)
        fabric.barrier()

    def exhausted(step: int) -> bool:
        """Whether the validation loss has not fallen for as long as there is patience."""
        return 0 < options.patience * options.validate_every <= step - record.best_step and bool(record.best_step)

    def strip(step: int) -> None:
        if first:
            with atomic_path(state / "strips" / f"step-{step:08d}.npy") as temporary, open(temporary, "wb") as file:
                np.save(file, pictures(model.strip(ema.module)))

    # 3. This process's part of every batch.
    share = options.batch_size // fabric.world_size
    rows = slice(fabric.global_rank * share, (fabric.global_rank + 1) * share)
    stream = Stream(images, options.seed)
    positions = Positions(start, options.steps, options.accumulate, options.batch_size, rows)
    loaded = batches(stream, positions, workers=options.workers, pin=device.type == "cuda")
    every = max(1, min(options.validate_every, options.steps // CURVE_POINTS))
    progress = Progress(name, start, options.steps)
    earlier = record.seconds
    writer = SummaryWriter(state / "tensorboard", purge_step=start) if first else None

    with Interrupts() as interrupts, _short_of_memory(name, options):
        for step in range(start, options.steps):
            if exhausted(step):
                log.info("%s: no better validation loss since step %d: stopped early", name, record.best_step)
                break
            # 4. One optimiser step: every module in its order, over the accumulated batches.
            micro = [fabric.to_device(next(loaded)) for _ in range(options.accumulate)]
            rate = learning_rate(step, options)
            shown: dict[str, float] = {}
            for part in model.order(step):
                module, optimiser = model.modules[part], stepping[part]
                optimiser.zero_grad(set_to_none=True)
                totals: dict[str, float] = defaultdict(float)
                for turn, batch in enumerate(micro):
                    seed = seed_of(options.seed, "train", step, turn)
                    torch.manual_seed(seed_of(seed, part, fabric.global_rank))
                    with fabric.autocast():
                        losses = model.losses(part, batch, Draw(seed, options.batch_size, rows, device), step)
                    fabric.backward(losses["loss"] / options.accumulate)
                    for key, value in _means(fabric, losses).items():
                        totals[key] += value / options.accumulate
                _share_gradients(fabric, module)
                norm: Any = fabric.clip_gradients(module, optimiser, max_norm=options.clip, error_if_nonfinite=False)
                if not math.isfinite(totals["loss"]) or (scaler is None and not math.isfinite(norm)):
                    drawn = range(step * options.accumulate, (step + 1) * options.accumulate)
                    taken = [b * options.batch_size + i for b in drawn for i in range(options.batch_size)]
                    raise UserError(_not_finite(name, step, [scans[stream.row(p)] for p in taken], state))
                for group in optimiser.param_groups:
                    group["lr"] = rate
                optimiser.step()
                prefix = "" if part == model.averaged else f"{part}_"
                shown |= {prefix + key: value for key, value in totals.items()}
            ema.update(model.modules[model.averaged], step + 1)

            # 5. What is known after it: curves, samples, checkpoints.
            done = step + 1
            last = done == options.steps
            record.add(shown)
            record.seconds = earlier + progress.seconds
            if first:
                progress.line(done, shown["loss"])
            validated = len(validation) > 0 and (done % options.validate_every == 0 or last)
            if validated or done % every == 0 or last:
                measured = _validate(fabric, model, ema.module, validation, options) if validated else {}
                row = record.close(done, done * options.batch_size * options.accumulate, rate, measured)
                if writer is not None:
                    for key, value in row.items():
                        writer.add_scalar(key.replace("_", "/", 1), value, done)
            if done in keep_averages_at and first:
                save_weights(ema.module, state / "averages" / f"step-{done:08d}.safetensors")
            if options.samples_every and done % options.samples_every == 0 and not last:
                strip(done)
            stop = _any(fabric, interrupts.received)
            best = validated and record.best_step == done
            if stop or best or last or exhausted(done) or done % options.checkpoint_every == 0:
                checkpoint(done)
            if stop and not last:
                log.warning("%s: signal %d: checkpoint at step %d written, leaving", name, stop, done)
                raise SystemExit(128 + stop)

        # 6. The best of a training that stopped early, the last strip, and what the caller writes.
        if options.patience and record.best_step:
            ema.module.load_state_dict(_under(load_step(state, record.best_step), "average/"))
        steps = int(record.history[-1]["step"])
        strip(record.best_step if options.patience and record.best_step else steps)
    if writer is not None:
        writer.close()
    strips = {}
    reference = model.reference()
    if reference is not None:
        strips["wanted"] = pictures(reference)
    if first:
        for path in sorted((state / "strips").glob("step-*.npy")):
            strips[f"step {int(path.stem.removeprefix('step-'))}"] = np.load(path)
    return Trained(ema.module, record.frame(), strips, steps, record.best_step, state)


def write_progress(folder: Path, trained: Trained, title: str) -> None:
    """history.csv, loss.png, strip.png and TensorBoard events into an output folder."""
    trained.history.to_csv(folder / "history.csv", index=False)
    draw_loss(trained.history, title, folder / "loss.png")
    draw_strip(trained.strips, title, folder / "strip.png")
    shutil.copytree(trained.state / "tensorboard", folder / "tensorboard")


class _Record:
    """What the curves are made of; plain values, so that it goes into the manifest as it is."""

    def __init__(
        self,
        history: list[dict[str, float]] | None = None,
        pending: dict[str, list[float]] | None = None,
        best_loss: float | None = None,
        best_step: int = 0,
        seconds: float = 0.0,
    ) -> None:
        self.history, self.pending = history or [], pending or {}
        self.best_loss, self.best_step, self.seconds = best_loss, best_step, seconds

    def add(self, shown: Mapping[str, float]) -> None:
        for key, value in shown.items():
            total, count = self.pending.get(key, [0.0, 0])
            self.pending[key] = [total + value, count + 1]

    def close(self, step: int, seen: int, rate: float, measured: Mapping[str, float]) -> Mapping[str, float]:
        """Means since the last row become a row."""
        row: dict[str, float] = {"step": step, "images": seen, "lr": rate, "seconds": round(self.seconds, 3)}
        row |= {f"train_{key}": total / count for key, (total, count) in self.pending.items()}
        row |= {f"validation_{key}": value for key, value in measured.items()}
        if measured and (self.best_loss is None or measured["loss"] < self.best_loss):
            self.best_loss, self.best_step = measured["loss"], step
        self.history.append(row)
        self.pending = {}
        return row

    def frame(self) -> pd.DataFrame:
        """The history as a table, its columns in the same order after any resumption."""
        table = pd.DataFrame(self.history)
        first = [name for name in HISTORY if name in table]
        return table[[*first, *sorted(str(name) for name in table if name not in first)]]


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _means(fabric: Fabric, scalars: Mapping[str, Tensor]) -> dict[str, float]:
    """Scalars averaged over the processes; one transfer from the device."""
    stacked = torch.stack([value.detach().float() for value in scalars.values()])
    if fabric.world_size > 1:
        stacked = cast(Tensor, fabric.all_reduce(stacked, reduce_op="mean"))
    return dict(zip(scalars, stacked.tolist(), strict=True))


def _share_gradients(fabric: Fabric, module: nn.Module) -> None:
    """Average the gradients over the processes, in one message."""
    if fabric.world_size == 1:
        return
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in module.parameters()]
    flat = cast(Tensor, fabric.all_reduce(torch.cat([g.flatten() for g in gradients]), reduce_op="mean"))
    parts = flat.split([g.numel() for g in gradients])
    for parameter, part in zip(module.parameters(), parts, strict=True):
        parameter.grad = part.view_as(parameter)


def _any(fabric: Fabric, received: int) -> int:
    """The signal that any process got; 0 if none did."""
    if fabric.world_size == 1:
        return received
    signals = cast(Tensor, fabric.all_gather(torch.tensor(received, device=fabric.device)))
    return int(signals.max())


def _validate(
    fabric: Fabric, model: Step, module: nn.Module, validation: PackedArrays, options: TrainingOptions
) -> dict[str, float]:
    """Mean scalars over the validation images; their noise and timesteps are the same each time.

    The batches are those of a single process, dealt out in turn, so that neither depends on how many there are.
    """
    count = min(len(validation), VALIDATION_IMAGES)
    chosen = np.unique(np.linspace(0, len(validation) - 1, count).round().astype(int)).tolist()
    size = options.batch_size
    sums: dict[str, Tensor] = {}
    starts = list(range(0, count, size))
    # Every process takes as many turns as any other; in a turn without images its weight is zero.
    for turn in range(math.ceil(len(starts) / fabric.world_size)):
        number = turn * fabric.world_size + fabric.global_rank
        weight = 1.0 if number < len(starts) else 0.0
        begin = starts[number] if weight else 0
        batch: Batch = fabric.to_device(validation.batch(chosen[begin : begin + size]))
        images = len(batch["condition"])
        draw = Draw(seed_of(options.seed, "validation", begin), images, slice(0, images), fabric.device)
        with torch.no_grad(), fabric.autocast():
            scalars = model.validate(module, batch, draw)
        for key, value in scalars.items():
            sums[key] = sums.get(key, torch.zeros((), device=fabric.device)) + weight * images * value.float()
    means = _means(fabric, sums)
    return {key: value * fabric.world_size / count for key, value in means.items()}


def _not_finite(name: str, step: int, scans: Sequence[str], state: Path) -> str:
    kept = sorted(state.glob("step-*.json"))
    good = f"the last good checkpoint is {kept[-1].with_suffix('.safetensors')}" if kept else "no checkpoint yet"
    named = list(dict.fromkeys(scans))
    shown = ", ".join(named[:8]) + (f" and {len(named) - 8} more" if len(named) > 8 else "")
    return (
        f"{name}: loss or gradient is not finite at step {step + 1} (batch of {shown}); {good}: "
        "lower training.learning_rate or use float32, and look at these scans"
    )


@contextmanager
def _short_of_memory(name: str, options: TrainingOptions) -> Iterator[None]:
    """Turns a failed allocation into one line that says what to lower."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        short = not isinstance(error, RuntimeError) or isinstance(error, torch.OutOfMemoryError)
        if not short and "can't allocate memory" not in str(error):
            raise
        raise UserError(
            f"{name}: out of memory with training.batch_size {options.batch_size}; lower it and raise "
            f"training.accumulate (now {options.accumulate}) by as much, or make the network smaller"
        ) from error
