"""How well a denoiser does at each level of noise: a mean over all timesteps hides what it has not learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from pipeline_lib.dataset.packed import PackedArrays
from pipeline_lib.diffusion.whiteness import whiteness
from pipeline_lib.training.steps import Draw, seed_of

if TYPE_CHECKING:
    from pipeline_lib.training.denoiser_step import DenoiserStep

LEVELS = 10
"""Equal parts of the timesteps."""
IMAGES = 32
"""At most so many validation images, evenly spread, are denoised at each level."""
TESTED = 16
"""Of how many of them the predicted noise is tested."""


@torch.no_grad()
def noise_levels(
    step: DenoiserStep, module: nn.Module, validation: PackedArrays, batch_size: int, seed: int
) -> pd.DataFrame:
    """The averaged ``module`` on validation images, a row a level from the least noise to the most.

    Columns: ``first_t`` and ``last_t`` (inclusive); ``log_snr``, log(abar / (1 - abar)) in the middle; ``images``;
    ``loss`` as in training; ``x0_mse`` and ``eps_mse``, unweighted squared errors of the clean sample and of the noise
    that the output stands for; ``x0_mse_linear``, that of the best linear function of a noisy voxel alone, which is what
    a network that has learned nothing of images can reach. Of that noise, over the first images: ``eps_mean``, ``eps_variance``,
    ``eps_autocorrelation``, the largest at any lag, ``eps_limit``, beyond which it is not that of white noise, and ``eps_white``, the
    outcome of `diffusion.whiteness`; what of the image is left in it, or missing, shows there.
    """
    device = next(module.parameters()).device
    process = step.process
    rows = np.unique(np.linspace(0, len(validation) - 1, min(len(validation), IMAGES)).round().astype(int)).tolist()
    edges = np.unique(np.linspace(0, process.timesteps, LEVELS + 1).round().astype(int)).tolist()
    table = []
    for first, end in zip(edges, edges[1:], strict=False):
        sums: dict[str, Tensor] = {}
        noises: list[Tensor] = []
        for begin in range(0, len(rows), batch_size):
            chosen = rows[begin : begin + batch_size]
            batch = {key: value.to(device) for key, value in validation.batch(chosen).items()}
            draw = Draw(seed_of(seed, "noise levels", first, begin), len(chosen), slice(0, len(chosen)), device)
            found = step.at_level(module, batch, draw, first, end)
            noises.append(found.pop("eps")[: max(0, TESTED - begin)])
            for key, value in found.items():
                sums[key] = sums.get(key, torch.zeros((), device=device)) + len(chosen) * value.float()
        means = {key: float(total) / len(rows) for key, total in sums.items()}
        abar = process.schedule.exact[first:end]
        # The clean voxels' variance v in noise of variance 1 - abar: Wiener's v (1 - abar) / (abar v + 1 - abar).
        variance = means.pop("x0_square") - means.pop("x0_mean") ** 2
        linear = float((variance * (1 - abar) / (abar * variance + 1 - abar)).mean())
        noise = whiteness(torch.cat(noises))
        middle = process.schedule.exact[(first + end - 1) // 2]
        table.append(
            {"first_t": first, "last_t": end - 1, "log_snr": float(middle.logit()), "images": len(rows)}
            | means
            | {"x0_mse_linear": linear, "eps_mean": noise.mean, "eps_variance": noise.variance}
            | {"eps_autocorrelation": noise.largest, "eps_limit": noise.limit, "eps_white": noise.white}
        )
    return pd.DataFrame(table)
