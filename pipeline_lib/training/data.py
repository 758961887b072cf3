"""What both sides of a training read: the images trained on and those of the validation curve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from pipeline_lib.config.schema import DataOptions
from pipeline_lib.dataset.packed import PackedArrays
from pipeline_lib.errors import UserError

Images = TypeVar("Images", bound=PackedArrays)

ARRAYS = {"image": "image", "source": "image", "target": "target"}
"""Which array of a batch an autoencoder of each role encodes."""
SHOWN = 8
"""Images in a row of a strip."""


def refuse_empty(images: Images, what: str, folders: Sequence[Path], data: DataOptions) -> Images:
    """Return ``images``.

    Raises:
        UserError: there are none; it says which recipe, which groups and what to look at.
    """
    if len(images):
        return images
    groups = f" of groups {', '.join(data.train_groups)}" if data.train_groups else ""
    modality = data.modality if data.target is None else f"{data.modality} with {data.target}"
    raise UserError(
        f"{what}: no training image{groups} among {len(folders)} train chunks: look in their left_out.tsv and "
        f"status.tsv, and check data.modality ({modality}), data.slices, data.train_groups and the split"
    )


def shown_rows(images: PackedArrays, count: int = SHOWN) -> list[int]:
    """Rows spread evenly over the images, the same ones each time; each once."""
    chosen: list[int] = np.unique(np.linspace(0, len(images) - 1, count).round().astype(int)).tolist()
    return chosen


def shown_images(images: PackedArrays, name: str) -> Tensor:
    """A few images (N, C, *spatial), of different people where there are as many."""
    return torch.stack([images[row][name] for row in shown_rows(images)])
