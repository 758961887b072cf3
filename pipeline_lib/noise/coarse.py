"""Gaussian noise drawn on a coarse grid and interpolated (Kascenas et al., MIDL 2022): smooth at one scale.

That work draws at 1/8 of the image's resolution, interpolates linearly and moves the field by a random offset.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


class CoarseNoise:
    """Independent standard normal values `spacing` voxels apart, linearly interpolated, of unit variance at every voxel.

    Between the values an interpolated field would vary less; each voxel is divided by the standard deviation that its
    weights leave. The grid has an own random offset for every sample, so that no voxel is special.

    Args:
        spacing: distance of the independent values along each axis, voxels.
    """

    def __init__(self, spacing: int = 8) -> None:
        if spacing < 1:
            raise ValueError(f"spacing is {spacing}; at least 1 voxel is needed")
        self.spacing = spacing

    def __call__(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
        rows: slice = slice(None),
    ) -> Tensor:
        """`rows` of fields of `shape` (N, C, *spatial), drawn where the generator lives; computed in float32, or in
        float64 for float64."""
        n, c, *spatial = shape
        source = device if generator is None else generator.device
        exact = torch.float64 if dtype == torch.float64 else torch.float32
        offsets = torch.rand((n, len(spatial)), generator=generator, device=source, dtype=exact)
        coarse = [math.ceil(length / self.spacing) + 1 for length in spatial]
        field = torch.randn((n, c, *coarse), generator=generator, device=source, dtype=exact)[rows].to(device)
        for axis, length in enumerate(spatial):  # the first spatial axis is used up, a finer one appended
            field = torch.einsum("nck...,nlk->nc...l", field, self._weights(length, offsets[rows, axis].to(device)))
        return field.to(dtype)

    def _weights(self, length: int, offsets: Tensor) -> Tensor:
        """(N, length, K): the weights of the K coarse values at every voxel, the sum of their squares 1."""
        places = torch.arange(length, device=offsets.device) / self.spacing + offsets[:, None]
        nodes = torch.arange(math.ceil(length / self.spacing) + 1, device=offsets.device)
        weights = (1 - (places[..., None] - nodes).abs()).clamp(min=0)
        return weights / weights.norm(dim=-1, keepdim=True)
