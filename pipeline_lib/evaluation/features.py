"""The networks by which sets of images are compared, chosen in the configuration, each with a name that says which."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pipeline_lib.errors import UserError
from pipeline_lib.files import sha256_file
from pipeline_lib.inference.embedding import pooled
from pipeline_lib.inference.latent import LatentSpace, load_latent_space
from pipeline_lib.metrics.distribution import FeatureNetwork, RandomConvFeatures

RANDOM = "random"
HASH_DIGITS = 12
CELLS = 8


@dataclass(frozen=True)
class EncoderFeatures:
    """The latent means of a trained autoencoder, averaged down to at most 8 cells an axis."""

    name: str
    space: LatentSpace
    standardise: bool = True

    def __call__(self, images: Tensor) -> Tensor:
        """Features ``(N, D)`` of images ``(N, C, *spatial)`` in [-1, 1]."""
        return torch.from_numpy(pooled(self.space.encode(images), CELLS))


@dataclass(frozen=True)
class ScriptedFeatures:
    """A TorchScript module from images ``(N, C, *spatial)`` in [-1, 1] to features."""

    name: str
    module: torch.jit.ScriptModule
    standardise: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        """Features ``(N, D)``.

        Raises:
            UserError: the module does not take such images.
        """
        try:
            features: Tensor = self.module(images)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise UserError(
                f"evaluation.features: {self.name} does not take images of shape {tuple(images.shape)} ({reason}); "
                "wrap it in a module that scales and resizes them, and save that with torch.jit.save"
            ) from None
        return features.flatten(1)


def feature_network(choice: str, *, dimensions: int, channels: int) -> FeatureNetwork:
    """The network that ``evaluation.features`` names.

    Args:
        choice: ``random``; the folder of a trained autoencoder (``model.json`` and ``model.safetensors``), or its
            safetensors file; or a TorchScript file.
        dimensions: 2 or 3.
        channels: of the images.

    Raises:
        UserError: there is no such file, or it is no network.
    """
    if choice == RANDOM:
        return RandomConvFeatures(dimensions=dimensions, channels=channels)
    path = Path(choice)
    if path.suffix == ".safetensors":
        path = path.parent
    if (path / "model.json").is_file():
        space = load_latent_space(path)
        made_for = int(space.info["architecture"]["dimensions"])
        if made_for != dimensions:
            raise UserError(
                f"evaluation.features: {choice} encodes {made_for}D images and the recipe's are {dimensions}D"
            )
        return EncoderFeatures(f"encoder {path.name} {_digits(path / 'model.safetensors')}", space)
    if not path.is_file():
        raise UserError(
            f"evaluation.features: {choice}: not found; give {RANDOM}, the folder of a trained autoencoder, or a "
            "TorchScript file"
        )
    try:
        module = torch.jit.load(path, map_location="cpu").eval()
    except RuntimeError:
        raise UserError(f"evaluation.features: {choice} is no TorchScript file; save one with torch.jit.save") from None
    return ScriptedFeatures(f"{path.stem} {_digits(path)}", module)


def _digits(path: Path) -> str:
    return f"(sha256 {sha256_file(path)[:HASH_DIGITS]})"
