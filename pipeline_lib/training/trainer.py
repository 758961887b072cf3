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

from pipeline_lib.bundles.bundle import save_tensors
from pipeline_lib.config.schema import TrainingOptions
from pipeline_lib.dataset.packed import PackedArrays
from pipeline_lib.errors import UserError
from pipeline_lib.training.checkpoint import Checkpoints, OptimiserState, Stateful
from pipeline_lib.training.ema import EMA
from pipeline_lib.training.interrupt import Interrupts
from pipeline_lib.training.progress import Shown, draw_loss, draw_strip
from pipeline_lib.training.record import Record
from pipeline_lib.training.steps import Batch, Draw, Step, seed_of
from pipeline_lib.training.stream import Drawable, Positions, Stream, batches

log = logging.getLogger("pipeline")

PRECISION: Mapping[str, Any] = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}
VALIDATION_IMAGES = 512
"""At most so many images, evenly spread, make a point of the validation curve."""
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


def in_steps(options: TrainingOptions, images: int, name: str) -> TrainingOptions:
    """``options`` with ``steps``, where ``epochs`` of so many ``images`` were asked for."""
    if options.epochs is None:
        return options
    steps = max(1, math.ceil(options.epochs * images / (options.batch_size * options.accumulate)))
    log.info("%s: %g epochs of %d images are %d steps", name, options.epochs, images, steps)
    return options.model_copy(update={"steps": steps})


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
        options: with ``steps`` counted, see `in_steps`.
        state: folder for progress, held by `owner`; the key of data, configuration and code is in its name.
        keep_averages_at: steps whose averaged weights are kept as ``averages/step-00000100.safetensors``.

    Raises:
        UserError: a loss or gradient is not finite, memory is short, or a checkpoint cannot be written.
        SystemExit: SIGTERM or SIGUSR1 came; the checkpoint is written.
    """
    # 1. Networks, their moving average, their optimisers.
    for module in model.modules.values():
        module.to(fabric.device).train()
    ema = EMA(model.modules[model.averaged], options.ema)
    optimisers = {
        part: AdamW(
            _groups(module, model.rates, options.learning_rate),
            lr=options.learning_rate,
            betas=options.betas or model.betas,
            weight_decay=options.weight_decay,
        )
        for part, module in model.modules.items()
    }
    prepared: dict[str, Any] = {part: fabric.setup_optimizers(each) for part, each in optimisers.items()}
    scaler = getattr(fabric.strategy.precision, "scaler", None)
    record = Record()

    # 2. All that a checkpoint holds, one line a thing. Where did we stop?
    things: dict[str, Stateful] = {
        "average": ema.module,
        **{f"module/{part}": module for part, module in model.modules.items()},
        **{f"optimiser/{part}": OptimiserState(optimisers[part], module) for part, module in model.modules.items()},
        **({"scaler": scaler} if scaler is not None else {}),
        "record": record,
    }
    checkpoints = Checkpoints(state, things, options.keep)
    start = checkpoints.resume()
    if start:
        log.info("%s: resumed at step %d/%d", name, start, options.steps)
    fabric.barrier()

    # 3. This process's part of every batch.
    share = options.batch_size // fabric.world_size
    rows = slice(fabric.global_rank * share, (fabric.global_rank + 1) * share)
    stream = Stream(images, options.seed)
    positions = Positions(start, options.steps, options.accumulate, options.batch_size, rows)
    loaded = batches(stream, positions, workers=options.workers, pin=fabric.device.type == "cuda")

    record_every = max(1, min(options.validate_every, options.steps // CURVE_POINTS))
    show = Shown(name, state, start, options.steps, leads=fabric.is_global_zero)
    earlier = record.seconds
    with show, Interrupts() as interrupts, _short_of_memory(name, options):
        for step in range(start, options.steps):
            if _exhausted(record, step, options):
                log.info("%s: no better validation loss since step %d: stopped early", name, record.best_step)
                break

            # 4. One optimiser step: every module in its order, over the accumulated batches.
            batch = [fabric.to_device(next(loaded)) for _ in range(options.accumulate)]
            rate = learning_rate(step, options)
            try:
                losses = _update(fabric, model, prepared, batch, step, rate, options, rows)
            except FloatingPointError:
                taken = stream.rows(step, options.batch_size * options.accumulate)
                raise UserError(_not_finite(name, step, [scans[row] for row in taken], state)) from None
            ema.update(model.modules[model.averaged], step + 1)

            # 5. What is known after it.
            done = step + 1
            last = done == options.steps
            record.add(losses)
            record.seconds = earlier + show.seconds
            show.line(done, losses["loss"])
            validated = len(validation) > 0 and (done % options.validate_every == 0 or last)
            if validated or done % record_every == 0 or last:
                measured = _validate(fabric, model, ema.module, validation, options) if validated else {}
                show.curves(record.close(done, done * options.batch_size * options.accumulate, rate, measured))

            # 6. What is kept: averages, samples, the checkpoint; and whether to leave.
            if done in keep_averages_at and fabric.is_global_zero:
                save_tensors(ema.module.state_dict(), state / "averages" / f"step-{done:08d}.safetensors")
            if options.samples_every and done % options.samples_every == 0 and not last:
                show.strip(done, model, ema.module)
            signal = _any(fabric, interrupts.received)
            best = validated and record.best_step == done
            due = done % options.checkpoint_every == 0
            if due or signal or best or last or _exhausted(record, done, options):
                if fabric.is_global_zero:
                    checkpoints.save(done, record.best_step)
                fabric.barrier()
            if signal and not last:
                log.warning("%s: signal %d: checkpoint at step %d written, leaving", name, signal, done)
                raise SystemExit(128 + signal)

        # 7. The best of a training that may stop early, and its samples.
        steps = int(record.history[-1]["step"])
        if options.patience and record.best_step:
            checkpoints.restore("average", record.best_step)
            show.strip(record.best_step, model, ema.module)
        else:
            show.strip(steps, model, ema.module)
    return Trained(ema.module, record.table(), show.strips(model), steps, record.best_step, state)


def _groups(module: nn.Module, rates: Mapping[str, float], rate: float) -> list[dict[str, Any]]:
    """A module's parameters by the highest rate they are trained at."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        highest = next((own for start, own in rates.items() if name.startswith(start)), rate)
        groups.setdefault(highest, []).append(parameter)
    return [{"params": parameters, "highest": highest} for highest, parameters in groups.items()]


def _update(
    fabric: Fabric,
    model: Step,
    optimisers: Mapping[str, Any],
    batch: Sequence[Batch],
    step: int,
    rate: float,
    options: TrainingOptions,
    rows: slice,
) -> dict[str, float]:
    """One optimiser step of every module in turn, over the accumulated parts of ``batch``; the losses shown.

    Raises:
        FloatingPointError: a loss or gradient is not finite. The gradient scaler of float16 skips such gradients itself.
    """
    shown: dict[str, float] = {}
    scaled = getattr(fabric.strategy.precision, "scaler", None) is not None
    for part in model.order(step):
        module, optimiser = model.modules[part], optimisers[part]
        optimiser.zero_grad(set_to_none=True)
        totals: dict[str, float] = defaultdict(float)
        for turn, images in enumerate(batch):
            seed = seed_of(options.seed, "train", step, turn)
            torch.manual_seed(seed_of(seed, part, fabric.global_rank))
            with fabric.autocast():
                losses = model.losses(part, images, Draw(seed, options.batch_size, rows, fabric.device), step)
            fabric.backward(losses["loss"] / options.accumulate)
            for key, value in _means(fabric, losses).items():
                totals[key] += value / options.accumulate
        _share_gradients(fabric, module)
        norm: Any = fabric.clip_gradients(module, optimiser, max_norm=options.clip, error_if_nonfinite=False)
        if not math.isfinite(totals["loss"]) or not (scaled or math.isfinite(norm)):
            raise FloatingPointError
        for group in optimiser.param_groups:
            group["lr"] = rate * group["highest"] / options.learning_rate
        optimiser.step()
        prefix = "" if part == model.averaged else f"{part}_"
        shown |= {prefix + key: value for key, value in totals.items()}
    return shown


def _exhausted(record: Record, step: int, options: TrainingOptions) -> bool:
    """Whether the validation loss has not fallen for as long as there is patience."""
    return 0 < options.patience * options.validate_every <= record.steps_without_better(step)


def write_progress(folder: Path, trained: Trained, title: str) -> None:
    """history.csv, loss.png, strip.png and TensorBoard events into an output folder."""
    trained.history.to_csv(folder / "history.csv", index=False)
    draw_loss(trained.history, title, folder / "loss.png")
    draw_strip(trained.strips, title, folder / "strip.png")
    shutil.copytree(trained.state / "tensorboard", folder / "tensorboard")


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
