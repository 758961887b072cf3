"""A trained denoiser with its forward process and sampler, ready to be asked for images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from pipeline_lib.bundles.bundle import load_bundle
from pipeline_lib.config.schema import RecipeOptions, SamplingOptions
from pipeline_lib.dataset.conditions import Conditions
from pipeline_lib.diffusion.guidance import guided
from pipeline_lib.diffusion.process import DiffusionProcess, make_process
from pipeline_lib.diffusion.samplers import Callback, ddim, ddim_invert, ddpm, dpm_solver_pp, timestep_pairs
from pipeline_lib.noise.base import Noise
from pipeline_lib.noise.make import make_noise


def device() -> torch.device:
    """The accelerator where there is one. Random numbers are drawn on the CPU: the same on either."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class OwnStreams:
    """Noise in which every image of a batch has its own random stream: batches may be cut anywhere."""

    noise: Noise
    generators: Sequence[torch.Generator]

    @classmethod
    def of(cls, noise: Noise, seeds: Sequence[int]) -> OwnStreams:
        """Streams that start from one seed an image."""
        return cls(noise, [torch.Generator().manual_seed(seed) for seed in seeds])

    def __call__(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
        rows: slice = slice(None),
    ) -> Tensor:
        """The next field of each stream, ``shape`` ``(N, C, *spatial)``; ``generator`` is not used."""
        fields = [self.noise((1, *shape[1:]), generator=own, dtype=dtype) for own in self.generators]
        return torch.cat(fields)[rows].to(device)


@dataclass(frozen=True)
class Denoiser:
    """A network with what it was trained to undo; ``clip`` limits x0 to [-1, 1], for images only."""

    network: torch.nn.Module
    info: Mapping[str, Any]
    process: DiffusionProcess
    noise: Noise
    sampling: SamplingOptions
    clip: bool

    @property
    def conditions(self) -> Conditions:
        """What the network is told, as it was trained."""
        return Conditions.of(self.info)

    def told(self, index: pd.DataFrame) -> Tensor | None:
        """Conditions ``(N, K)`` of real images, from the rows of their index; None for a model without."""
        return self.conditions.encode(index) if self.conditions else None

    def streams(self, seeds: Sequence[int]) -> OwnStreams:
        """Noise of the recipe's kind, one stream an image; give the same to the start and to `denoise`."""
        return OwnStreams.of(self.noise, seeds)

    @property
    def marks(self) -> bool:
        """Whether the network has a channel more, the logit of a lesion (`training.restoration`)."""
        options = self.info.get("options", {})
        return options.get("synthetic_lesions") is not None

    def _predict(self, condition: Tensor | None, concat: Tensor | None = None) -> Callable[[Tensor, Tensor], Tensor]:
        """The network's output under the guidance of the recipe, as a function of x and t."""
        return guided(self.network, condition, 1.0 if condition is None else self.sampling.guidance, concat)

    @torch.inference_mode()
    def restore_once(self, x: Tensor, t: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """x0 from noisy images ``(N, C, *spatial)`` in one step, and logits of a lesion ``(N, 1, *spatial)`` if it marks any."""
        target = next(self.network.parameters()).device
        condition = None if condition is None else condition.to(target)
        output = self._predict(condition)(x.to(target), t.to(target)).cpu()
        channels = x.shape[1]
        x0 = self.process.to_x0(x, output[:, :channels], t)
        return (x0.clamp(-1, 1) if self.clip else x0), output[:, channels:] if self.marks else None

    @torch.inference_mode()
    def denoise(
        self,
        x: Tensor,
        *,
        start: int | None = None,
        condition: Tensor | None = None,
        concat: Tensor | None = None,
        streams: OwnStreams,
        callback: Callback | None = None,
    ) -> Tensor:
        """Clean ``(N, C, *spatial)`` samples from noise, or from images noised by ``start`` timesteps.

        Args:
            x: the noisy samples, on any device.
            start: how many timesteps are undone; None: all.
            condition: ``(N, K)`` from ``conditions``, under the guidance of the recipe; None for a model without.
            concat: ``(N, C', *spatial)``, seen by the network beside ``x``.
            streams: of the noise that a stochastic sampler adds.
            callback: told after each step.
        """
        target = next(self.network.parameters()).device
        condition = None if condition is None else condition.to(target)
        concat = None if concat is None else concat.to(target)
        predict = self._predict(condition, concat)

        def model(noisy: Tensor, t: Tensor) -> Tensor:
            return predict(noisy, t)[:, : x.shape[1]]

        undone = self.process.timesteps if start is None else start
        pairs = timestep_pairs(self.process.timesteps, min(self.sampling.steps, undone), undone)
        x = x.to(target)
        match self.sampling.sampler:
            case "ddim":
                clean = ddim(
                    model,
                    x,
                    pairs,
                    self.process,
                    eta=self.sampling.eta,
                    clip=self.clip,
                    noise=streams,
                    callback=callback,
                )
            case "ddpm":
                clean = ddpm(
                    model,
                    x,
                    pairs,
                    self.process,
                    clip=self.clip,
                    noise=streams,
                    callback=callback,
                )
            case "dpm_solver":
                clean = dpm_solver_pp(model, x, pairs, self.process, clip=self.clip, callback=callback)
        return clean.cpu()

    @torch.inference_mode()
    def invert(self, x: Tensor, condition: Tensor | None, *, corrections: int = 0) -> Tensor:
        """The noise from which deterministic DDIM of ``sampling.steps`` steps makes ``x`` (N, C, *spatial) under ``condition``.

        See `diffusion.samplers.ddim_invert`; guidance should be 1 and nothing clipped, in both directions.
        """
        target = next(self.network.parameters()).device
        condition = None if condition is None else condition.to(target)
        pairs = timestep_pairs(self.process.timesteps, self.sampling.steps)
        model = self._predict(condition)
        return ddim_invert(model, x.to(target), pairs, self.process, corrections=corrections).cpu()


def load_denoiser(recipe: RecipeOptions, weights: Path) -> Denoiser:
    """The denoiser of a recipe from a model folder or one of its checkpoint files."""
    network, info = load_bundle(weights)
    return Denoiser(
        network=network.to(device()).eval(),
        info=info,
        process=make_process(**info["process"]),
        noise=make_noise(**recipe.diffusion.noise.model_dump()),
        sampling=recipe.sampling,
        clip=recipe.autoencoder is None and recipe.data.target is None,
    )
