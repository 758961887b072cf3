"""Train a segmenter of brain and lateral ventricles, by which real and generated slices are measured alike.

    python -m pipeline_lib.training.segmenter --preprocessed results/ixi/preprocess --labels ixi_t1_2mm_rawhead/dlmuse \
        --licence "..." --notice LICENSE.NiChart_SBIA --out bundle --state state/segmenter

It learns from axial slices of the training chunks with maps of labels drawn on the scans as they came; validation chunks give
its curve and test chunks the Dice that its ``model.json`` states. Contrast, blur and noise are changed beyond what scans
show, since what a model generates is smoother or noisier than what it learned from.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pipeline_lib.bundles.bundle import describe, save_bundle
from pipeline_lib.config.schema import AugmentOptions, DataOptions, TrainingOptions
from pipeline_lib.dataset.augment import augmentation
from pipeline_lib.dataset.labels import write_labels
from pipeline_lib.dataset.pack import pack_chunk
from pipeline_lib.dataset.packed import PackedDataset
from pipeline_lib.errors import UserError
from pipeline_lib.files import atomic_directory
from pipeline_lib.metrics.bootstrap import bootstrap_mean
from pipeline_lib.models.segmentation import ROLE, STRUCTURES, logits
from pipeline_lib.models.unet import UNet
from pipeline_lib.training.data import shown_rows
from pipeline_lib.training.owner import owner
from pipeline_lib.training.steps import Batch, Draw, Step
from pipeline_lib.training.trainer import launch, train, write_progress

log = logging.getLogger("pipeline")
DLMUSE_VENTRICLES = (49, 50, 51, 52)
"""DLMUSE's labels of the lateral ventricles and their inferior horns, right and left."""
ARCHITECTURE: Mapping[str, Any] = {
    "dimensions": 2,
    "in_channels": 1,
    "out_channels": len(STRUCTURES),
    "fold": 4,
    "channels": [32, 64, 96],
    "blocks": 1,
    "attention": [False, False, False],
    "detail": 16,
}
AUGMENT = AugmentOptions(flip=True, rotate=10, scale=0.1, shift=0.05, gamma=0.5)
NOISE = 0.1
"""Largest standard deviation of the noise that training images get, in [-1, 1]."""
BLURRED = 0.4
"""Share of training images that are blurred by 3 x 3 voxels."""
RESAMPLES = 4000
"""Of people, for the intervals of its figures."""


class SegmenterStep(Step):
    """Binary cross-entropy plus 1 - soft Dice of each structure, over the batch.

    Args:
        module: a channel a structure.
        shown: a few images with their ``label``.
        structures: their names.
    """

    averaged = "segmenter"

    def __init__(self, module: UNet, shown: Batch, structures: Sequence[str] = STRUCTURES) -> None:
        self.modules = {self.averaged: module}
        self.shown, self.structures = shown, structures

    def order(self, step: int) -> Sequence[str]:
        return [self.averaged]

    def losses(self, name: str, batch: Batch, draw: Draw, step: int) -> dict[str, Tensor]:
        return self._losses(self.modules[name], _disturbed(batch["image"], draw), batch["label"])

    def validate(self, module: nn.Module, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        """``loss``, and the Dice of each structure over the batch."""
        return self._losses(module, batch["image"], batch["label"])

    def _losses(self, module: nn.Module, image: Tensor, label: Tensor) -> dict[str, Tensor]:
        found = logits(module, image).float()
        probability = found.sigmoid()
        axes = (0, 2, 3)
        overlap = (2 * (probability * label).sum(axes) + 1) / (probability.sum(axes) + label.sum(axes) + 1)
        loss = functional.binary_cross_entropy_with_logits(found, label) + (1 - overlap).mean()
        hard = dice((found > 0).float(), label)
        return {"loss": loss} | {
            f"dice_{name.split()[-1]}": value for name, value in zip(self.structures, hard, strict=True)
        }

    @torch.no_grad()
    def strip(self, module: nn.Module) -> Tensor:
        """The images, brighter where the last structure is found."""
        image = self.shown["image"].to(next(module.parameters()).device)
        return _marked(image, (logits(module, image)[:, -1:] > 0).float())

    def reference(self) -> Tensor:
        return _marked(self.shown["image"], self.shown["label"][:, -1:])


def dice(found: Tensor, label: Tensor) -> Tensor:
    """Dice of each structure, (S,), of masks (N, S, H, W) taken as one volume; 1 where both are empty."""
    axes = (0, 2, 3)
    total = found.sum(axes) + label.sum(axes)
    return torch.where(total > 0, 2 * (found * label).sum(axes) / total.clamp(min=1), torch.ones_like(total))


def _disturbed(image: Tensor, draw: Draw) -> Tensor:
    blurred = functional.avg_pool2d(functional.pad(image, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    chosen = (draw.uniform("blurred") < BLURRED).to(image.dtype)[:, None, None, None]
    noise = draw.normal("noise", image.shape) * NOISE * draw.uniform("noise of an image")[:, None, None, None]
    inside = (image > -1).to(image.dtype)
    return (torch.lerp(image, blurred, chosen) + noise * inside).clamp(-1, 1)


def _marked(image: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask > 0, torch.ones_like(image), image * 0.7 - 0.3)


def train_segmenter(
    preprocessed: Path,
    labels: Path,
    pattern: str,
    ventricles: Sequence[int],
    out: Path,
    state: Path,
    *,
    steps: int = 3000,
    batch_size: int = 16,
    licence: str = "",
    notice: Path | None = None,
    data: DataOptions | None = None,
) -> None:
    """Pack the slices and their labels, train, measure on test people, and write a bundle.

    Args:
        preprocessed: folder of the preprocessed chunks, whose names say their splits.
        labels: folder of the maps.
        pattern: path of a scan's map below it; ``{source}`` (name of the scan's file), ``{participant}``, ``{session}`` and
            ``{scan}`` are filled in.
        ventricles: their label values; the brain is every value above 0.
        out: folder of the bundle, complete or not at all; ``dice.tsv`` has a row a held-out person.
        state: folder of packed slices and training progress.
        licence: terms of scans and labels, kept with the model.
        notice: file that the licence requires to go with the model.
        data: which slices; by default 112 x 96 at the scans' voxels, axial, -50 to 70 mm.

    Raises:
        UserError: no chunk of a split, or no map of labels.
    """
    data = data or DataOptions.model_validate(
        {"size": [112, 96], "slices": {"from_mm": -50, "to_mm": 70, "every_mm": 2}}
    )
    chunks = [
        _packed(chunk, labels, pattern, ventricles, state / "packed", data)
        for chunk in sorted(preprocessed.glob("*-anat-*"))
        if (chunk / "status.tsv").is_file()
    ]
    split = {
        name: [chunk for chunk in chunks if chunk.name.startswith(name)] for name in ("train", "validation", "test")
    }
    if empty := [name for name, own in split.items() if not own]:
        raise UserError(f"{preprocessed}: no finished chunk of {' and '.join(empty)}; preprocess a cohort first")
    training = TrainingOptions.model_validate(
        {
            "steps": steps, "batch_size": batch_size, "learning_rate": 2e-3, "betas": (0.9, 0.99), "warmup": min(100, steps // 4 + 1),
            "validate_every": max(1, steps // 2), "checkpoint_every": 100, "augment": AUGMENT.model_dump(),
        }
    )  # fmt: skip
    with owner(state / "progress"):
        fabric = launch(training, 2)
        images = PackedDataset(split["train"], augment=augmentation(training.augment, training.seed))
        validation = PackedDataset(split["validation"])
        middle = [row for row in shown_rows(validation, 200) if float(validation.index["slice"].iloc[row]) in (10, 20)]
        step = SegmenterStep(UNet(**ARCHITECTURE), validation.batch(middle[:8] or shown_rows(validation)))
        scans = images.index["scan"].tolist()
        trained = train(fabric, "train_segmenter", step, images, scans, validation, training, state / "progress")
        table, figures = _held_out(trained.module, PackedDataset(split["test"]))
        info = describe(
            images, trained.best_step, trained.steps, licence,
            role=ROLE, structures=list(STRUCTURES), data=data.model_dump(), conditions=[],
        ) | {"figures": figures}  # fmt: skip
        with atomic_directory(out) as folder:
            save_bundle(folder, trained.module, kind="unet", architecture=ARCHITECTURE, info=info)
            write_progress(folder, trained, f"Segmenter: {trained.steps} steps")
            table.to_csv(folder / "dice.tsv", sep="\t", index=False)
            if notice is not None:
                shutil.copyfile(notice, folder / notice.name)
    for figure in figures:
        log.info("%s: %s", figure["name"], figure["value"])


def _packed(chunk: Path, labels: Path, pattern: str, ventricles: Sequence[int], out: Path, data: DataOptions) -> Path:
    """A chunk of slices with their labels; kept between runs."""
    packed = out / chunk.name
    if (packed / "label.npy").is_file():
        return packed

    def path_of(row: Mapping[str, str]) -> Path:
        source = Path(row["source"]).name.removesuffix(".gz").removesuffix(".nii")
        names = {name: row[name] for name in ("participant", "session", "scan")}
        return labels / pattern.format(source=source, **names)

    pack_chunk(chunk, data, packed)
    write_labels(packed, chunk, path_of, [[], ventricles])
    return packed


@torch.inference_mode()
def _held_out(module: nn.Module, images: PackedDataset) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Dice and ventricle share of each test person over all their slices, and the means as a bundle states them."""
    index = images.index
    rows = []
    for person, own in index.groupby("participant"):
        batch = images.batch(own.index.tolist())
        found = torch.cat([(logits(module.cpu(), part) > 0).float() for part in batch["image"].split(16)])
        both = dice(found, batch["label"]).tolist()
        shares = [float(masks[:, 1].sum() / masks[:, 0].sum()) for masks in (found, batch["label"])]
        rows.append([person, own["age"].iloc[0], own["group"].iloc[0], *both, *shares])
    columns = ["participant", "age", "group", *(f"dice {name}" for name in STRUCTURES), "share found", "share labelled"]
    table = pd.DataFrame(rows, columns=columns)
    measured = {f"Dice of the {name}": table[f"dice {name}"] for name in STRUCTURES}
    error = (table["share found"] - table["share labelled"]).abs() / table["share labelled"]
    measured["relative error of the ventricles' share of the brain"] = error
    return table, [_figure(name, values.to_numpy(dtype=float)) for name, values in measured.items()]


def _figure(name: str, of_people: NDArray[np.float64]) -> dict[str, Any]:
    """A mean over test people, as a bundle states it."""
    mean = bootstrap_mean(of_people, resamples=RESAMPLES, seed=0)
    said = {"name": name, "part": "", "unit": "", "role": "result", "method": ROLE, "against": ""}
    return {**said, **asdict(mean), "people": len(of_people)}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train a segmenter of brain and lateral ventricles.")
    parser.add_argument("--preprocessed", type=Path, required=True, help="folder of preprocessed chunks")
    parser.add_argument(
        "--labels", type=Path, required=True, help="folder of maps of labels, on the scans as they came"
    )
    parser.add_argument("--pattern", default="{source}_DLMUSE.nii.gz", help="path of a scan's map below it")
    parser.add_argument("--ventricles", type=int, nargs="+", default=list(DLMUSE_VENTRICLES), help="their labels")
    parser.add_argument("--steps", type=int, default=3000, help="optimiser steps")
    parser.add_argument("--batch-size", type=int, default=16, help="slices a step")
    parser.add_argument("--licence", default="", help="terms of scans and labels")
    parser.add_argument("--notice", type=Path, help="file that the licence requires to go with the model")
    parser.add_argument("--out", type=Path, required=True, help="folder of the bundle")
    parser.add_argument("--state", type=Path, required=True, help="folder of packed slices and progress")
    options = vars(parser.parse_args())
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        train_segmenter(**options)
    except UserError as error:
        print(f"ERROR {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
