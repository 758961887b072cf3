"""The networks by which sets of images are compared, chosen in the configuration, each with a name that says which."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline_lib.bundle_plan import find_bundle, shipped
from pipeline_lib.bundles.bundle import load_bundle
from pipeline_lib.errors import UserError
from pipeline_lib.files import read_json, sha256_file
from pipeline_lib.inference.denoise import device
from pipeline_lib.inference.embedding import pooled
from pipeline_lib.inference.latent import LatentSpace, load_latent_space
from pipeline_lib.metrics.distribution import FeatureNetwork, RandomConvFeatures
from pipeline_lib.models.segmentation import ROLE, no_noise

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
class SegmenterFeatures:
    """The bottleneck of a U-Net that finds structures in slices: mean and standard deviation of each of its maps.

    It was trained to know anatomy, which random convolutions do not see.
    """

    name: str
    module: nn.Module
    standardise: bool = True

    def __call__(self, images: Tensor) -> Tensor:
        """Features ``(N, D)`` of slices ``(N, 1, H, W)`` in [-1, 1]."""
        where = next(self.module.parameters()).device
        found: Tensor = self.module.bottleneck(images.to(where), no_noise(images).to(where))  # type: ignore[operator]
        maps = found.flatten(2).cpu()
        return torch.cat([maps.mean(dim=2), maps.std(dim=2, correction=0)], dim=1)


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
        choice: ``random``; the folder of a trained autoencoder or segmenter (``model.json`` and ``model.safetensors``), its
            safetensors file, or the name of one that ships; or a TorchScript file.
        dimensions: 2 or 3.
        channels: of the images.

    Raises:
        UserError: there is no such file, or it is no network.
    """
    if choice == RANDOM:
        return RandomConvFeatures(dimensions=dimensions, channels=channels)
    path = find_bundle(choice) if choice in shipped() else Path(choice)
    if path.suffix == ".safetensors":
        path = path.parent
    if (path / "model.json").is_file():
        info = read_json(path / "model.json")
        if info.get("role") != ROLE and info.get("kind") not in ("autoencoder", "vqgan"):
            raise UserError(
                f"evaluation.features: {choice} is a {info.get('role', info.get('kind'))}; give an autoencoder or a segmenter"
            )
        made_for = int(info["architecture"]["dimensions"])
        if made_for != dimensions:
            raise UserError(
                f"evaluation.features: {choice} encodes {made_for}D images and the recipe's are {dimensions}D"
            )
        name = f"{path.name} {_digits(path / 'model.safetensors')}"
        if info.get("role") == ROLE:
            if channels != 1:
                raise UserError(
                    f"evaluation.features: {choice} reads images of one channel and the recipe's have {channels}"
                )
            return SegmenterFeatures(f"segmenter {name}", load_bundle(path)[0].to(device()))
        return EncoderFeatures(f"encoder {name}", load_latent_space(path))
    if not path.is_file():
        raise UserError(
            f"evaluation.features: {choice}: not found; give {RANDOM}, the folder of a trained autoencoder or segmenter, "
            "the name of one that ships, or a TorchScript file"
        )
    try:
        module = torch.jit.load(path, map_location="cpu").eval()
    except RuntimeError:
        raise UserError(f"evaluation.features: {choice} is no TorchScript file; save one with torch.jit.save") from None
    return ScriptedFeatures(f"{path.stem} {_digits(path)}", module)


def _digits(path: Path) -> str:
    return f"(sha256 {sha256_file(path)[:HASH_DIGITS]})"
