"""Images of a chunk encoded once; the posterior's mean and spread are kept, to be sampled at each use."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from pipeline_lib.bundles.bundle import load_bundle
from pipeline_lib.dataset.packed import PackedDataset
from pipeline_lib.dataset.prepared import PREPARED, refuse_prepared_otherwise
from pipeline_lib.files import atomic_directory
from pipeline_lib.training.data import ARRAYS

PREFIX = {"image": "", "source": "", "target": "target_"}
"""Role of an autoencoder -> what its latents' file names start with."""
VOXELS_AT_ONCE = 2**20
"""Images are encoded in batches of about so many voxels."""


@torch.no_grad()
def encode_chunk(autoencoders: Mapping[str, Path], dataset: Path, out: Path) -> None:
    """Write ``[target_]mean.npy`` and ``[target_]std.npy`` float32 (N, C, *latent), ``index.tsv`` and ``prepared.json``.

    Latents are as the network gives them, not yet multiplied by its ``scale``.

    Args:
        autoencoders: folder of the trained model by role.
        dataset: a packed chunk; it may hold no image.
        out: folder to write, complete or not at all.

    Raises:
        UserError: the chunk was prepared otherwise than what an autoencoder learned from.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images = PackedDataset([dataset])
    with atomic_directory(out) as folder:
        for role, model in autoencoders.items():
            module, info = load_bundle(model)
            refuse_prepared_otherwise(model, info, dataset)
            module.to(device)
            size = module.latent_size(info["data"]["size"])  # type: ignore[operator]
            shape = (len(images), info["architecture"]["latent_channels"], *size)
            files = [folder / f"{PREFIX[role]}{name}.npy" for name in ("mean", "std")]
            arrays = [np.lib.format.open_memmap(file, "w+", np.float32, shape) for file in files]
            batch = max(1, VOXELS_AT_ONCE // int(np.prod(info["data"]["size"])))
            for start in range(0, len(images), batch):
                rows = range(start, min(start + batch, len(images)))
                encoded = module.encode(images.batch(rows)[ARRAYS[role]].to(device))  # type: ignore[operator]
                for array, values in zip(arrays, encoded, strict=True):
                    array[start : rows.stop] = values.float().cpu().numpy()
            for array in arrays:
                array.flush()
        for name in ("index.tsv", PREPARED):
            shutil.copyfile(dataset / name, folder / name)
