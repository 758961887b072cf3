"""A denoiser that also takes synthetic lesions out of healthy images, and says where they were."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline_lib.config.schema import SyntheticLesionOptions
from pipeline_lib.training.denoiser_step import STRIP_SEED, DenoiserStep
from pipeline_lib.training.steps import Batch, Draw
from pipeline_lib.training.synthetic_lesions import put_lesions


class RestorationStep(DenoiserStep):
    """x0 of the healthy image from a noisy image with lesions, and the logit of a lesion as one channel more.

    An image is noised to a timestep below ``noise`` of them, most to a low one: t grows with the square of a uniform
    number, since scans come without noise and lesions must not drown in it.
    """

    def __init__(self, *arguments: Any, lesions: SyntheticLesionOptions) -> None:
        super().__init__(*arguments)
        self.lesions = lesions

    def losses(self, name: str, batch: Batch, draw: Draw, step: int) -> dict[str, Tensor]:
        return self._restored(self.modules[name], batch, self._told(batch, draw), draw)

    def validate(self, module: nn.Module, batch: Batch, draw: Draw) -> dict[str, Tensor]:
        return self._restored(module, batch, self._condition(batch), draw)

    def _restored(self, module: nn.Module, batch: Batch, condition: Tensor | None, draw: Draw) -> dict[str, Tensor]:
        x0, noise, _ = self._drawn(batch, draw, 0, 1)
        lesioned, marked = put_lesions(x0, batch["mask"], self.lesions, draw)
        count = max(1, round(self.lesions.noise * self.process.timesteps))
        t = (draw.timesteps("timesteps", count).square() // count).clamp(max=count - 1)
        output = module(self.process.forward_diffusion(lesioned, noise, t), t, condition)
        channels = x0.shape[1]
        restored = self._distance(output[:, :channels], x0, noise, t)
        brain = (batch["mask"] > 0.5).float()
        each = F.binary_cross_entropy_with_logits(output[:, channels:].float(), marked, weight=brain, reduction="sum")
        segmented = each / brain.sum().clamp(min=1)
        return {"loss": restored + self.lesions.weight * segmented, "restoration": restored, "segmentation": segmented}

    @torch.no_grad()
    def strip(self, module: nn.Module) -> Tensor:
        """Shown images with synthetic lesions, restored from a tenth of the noise allowed; the same each time."""
        device = next(module.parameters()).device
        shown = {key: value.to(device) for key, value in self.shown.items()}
        x0 = shown["image"]
        draw = Draw(STRIP_SEED, len(x0), slice(0, len(x0)), device)
        lesioned, _ = put_lesions(x0, shown["mask"], self.lesions, draw)
        t = torch.full((len(x0),), int(0.1 * self.lesions.noise * self.process.timesteps), device=device)
        noisy = self.process.forward_diffusion(lesioned, draw.noise("noise", self.noise, x0.shape), t)
        restored: Tensor = module(noisy, t, self._condition(shown))[:, : x0.shape[1]]
        return restored.clamp(-1, 1)
