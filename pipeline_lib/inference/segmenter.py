"""Brain and lateral ventricles of slices and volumes, by a segmenter's bundle: the same ruler for real and generated images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline_lib.bundle_plan import stated
from pipeline_lib.bundles.bundle import load_bundle
from pipeline_lib.dataset.index import read_index
from pipeline_lib.dataset.people import refuse_trained_people
from pipeline_lib.dataset.prepared import differences, prepared_of
from pipeline_lib.errors import UserError
from pipeline_lib.inference.denoise import device
from pipeline_lib.models.segmentation import ROLE, logits

BATCH = 32
MAY_DIFFER = ("preprocess.brain_extraction", "preprocess.quality", "data.size", "data.dimensions", "data.fit")
"""How a brain was found, and which part of it an image shows, change no voxel's look."""


@dataclass(frozen=True)
class Segmenter:
    """A network that finds structures in axial slices; volumes are cut into such."""

    module: torch.nn.Module
    info: Mapping[str, Any]

    @property
    def structures(self) -> tuple[str, ...]:
        """Their names, in the order of the masks."""
        return tuple(self.info["structures"])

    @property
    def figures(self) -> str:
        """What its bundle says of its accuracy on people it has not seen."""
        return "; ".join(f"{row['name']} {row['value']:.3g}" for row in stated(self.info))

    @torch.inference_mode()
    def masks(self, images: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Masks ``(N, structures, *spatial)`` of images ``(N, 1, *spatial)`` in [-1, 1], laid out as `dataset.grids` says."""
        if images.ndim == 5:
            return np.stack([self._of_volume(volume[0]) for volume in images])
        target = next(self.module.parameters()).device
        slices = torch.from_numpy(np.asarray(images, np.float32))
        found: Tensor = torch.cat([(logits(self.module, part.to(target)) > 0).cpu() for part in slices.split(BATCH)])
        masks: NDArray[np.bool_] = found.numpy()
        return masks

    def _of_volume(self, volume: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Of a volume ``(x, y, z)`` in RAS order: each axial slice with the front up and left on the left, and back."""
        slices = np.ascontiguousarray(volume.transpose(2, 1, 0)[:, ::-1])[:, None]
        found = self.masks(slices)[:, :, ::-1]
        return np.ascontiguousarray(found.transpose(1, 3, 2, 0))

    def shares(self, images: NDArray[np.floating]) -> NDArray[np.float64]:
        """Ventricles over brain, ``(N,)``, of images as `masks` takes them; NaN where no brain is found."""
        shares = []
        for first in range(0, len(images), BATCH):
            masks = self.masks(images[first : first + BATCH])
            voxels = masks.sum(axis=tuple(range(2, masks.ndim))).astype(float)
            with np.errstate(invalid="ignore", divide="ignore"):
                shares.append(np.where(voxels[:, 0] > 0, voxels[:, 1] / voxels[:, 0], np.nan))
        return np.concatenate(shares) if shares else np.empty(0)


def load_segmenter(
    bundle: str, chunks: Sequence[Path], *, allow_trained: bool = False, option: str = "segmenter"
) -> Segmenter:
    """A segmenter for images like those of the chunks.

    Args:
        bundle: its folder, or the name of one that ships.
        chunks: packed chunks of the images that it is to measure.
        allow_trained: measure people whom it learned from too.
        option: of ``evaluation`` that names it.

    Raises:
        UserError: the bundle is none of a segmenter, or learned from images that were prepared otherwise, or from these people.
    """
    module, info = load_bundle(bundle)
    if info.get("role") != ROLE:
        raise UserError(f"evaluation.{option}: {bundle} is no segmenter but {info.get('role', info['kind'])}")
    here = prepared_of(chunks)
    different = [each for each in differences(info["prepared"], here) if not each.startswith(MAY_DIFFER)]
    if different:
        raise UserError(
            f"evaluation.{option}: {bundle} learned from images that were prepared otherwise: {'; '.join(different)}; "
            f"prepare the scans likewise, train a segmenter on these, or leave evaluation.{option} out"
        )
    seen = [
        scan for chunk in chunks for scan in refuse_trained_people(read_index(chunk), info, allow=True).attrs["refused"]
    ]
    if seen and not allow_trained:
        raise UserError(
            f"evaluation.{option}: {bundle} learned from {len(seen)} of these held-out scans (first: {seen[0]}), which it marks "
            "better than any sample; name a segmenter that has not, or set sampling.allow_trained_people"
        )
    return Segmenter(module.to(device()), info)
