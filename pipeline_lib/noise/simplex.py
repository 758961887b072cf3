"""Multi-octave simplex noise, the corruption of AnoDDPM (Wyatt et al., CVPR Workshops 2022).

A field is a sum of `octaves` copies of OpenSimplex noise, each of twice the frequency and `decay` times the
amplitude of the one before. 2D fields are plane slices of the 3D noise, as in that work.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline_lib.noise.compiled import permutations
from pipeline_lib.noise.opensimplex import expected_std, opensimplex

# A cube of 6 lattice units holds whole cells only, so a uniform point of it is uniform within its cell. The cube
# starts at 6 because around 0 two octaves would see the same vertices and be correlated.
_ORIGIN = 6.0
_TOGETHER = 2**23
"""Points of several octaves that are evaluated by one call, which costs a GPU's host much the same for few as for many."""


class SimplexNoise:
    """Simplex noise with an own seed and an own random origin for every sample and channel.

    The random origin makes mean and variance the same at every voxel: OpenSimplex is 0 at its lattice's
    vertices, and with a fixed origin these would lie at the same voxels in every field.

    Args:
        octaves: number of summed frequencies, at least 1.
        decay: amplitude of an octave relative to the one before it, in (0, 1].
        frequency: of the first octave, in lattice units per voxel.
        raw: keep the published amplitude (standard deviation near 0.5 by default) instead of unit variance.
    """

    def __init__(self, octaves: int = 6, decay: float = 0.8, frequency: float = 1 / 64, raw: bool = False) -> None:
        if octaves < 1 or int(octaves) != octaves:
            raise ValueError(f"octaves is {octaves}; a whole number of at least 1 is needed")
        if not 0 < decay <= 1:
            raise ValueError(f"decay is {decay}; it must be above 0 and at most 1")
        if not 0 < frequency < math.inf:
            raise ValueError(f"frequency is {frequency}; it must be above 0 and finite")
        self.octaves, self.decay, self.frequency, self.raw = octaves, decay, frequency, raw

    @property
    def raw_std(self) -> float:
        """Expected standard deviation of the plain sum of octaves.

        Octaves are uncorrelated over random origins, so their variances add.
        """
        return expected_std() * math.sqrt(sum(self.decay ** (2 * k) for k in range(self.octaves)))

    def __call__(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
        rows: slice = slice(None),
    ) -> Tensor:
        """`rows` of fields of `shape` (N, C, H, W) or (N, C, D, H, W); computed in float32, or in float64 for float64."""
        if len(shape) not in (4, 5) or min(shape) < 1:
            raise ValueError(f"simplex noise of shape {tuple(shape)}; (N, C, *spatial) of 2 or 3 dimensions is needed")
        n, c, *spatial = shape
        source = generator.device if generator is not None else torch.device("cpu")
        seeds = torch.randint(2**63 - 1, (n * c,), generator=generator, device=source)
        origins = torch.rand((n * c, 3), generator=generator, device=source, dtype=torch.float64)
        origins = _ORIGIN * (1 + origins)
        fields = self.fields(
            spatial,
            seeds.reshape(n, c)[rows].flatten(),
            origins.reshape(n, c, 3)[rows].flatten(0, 1),
            device=source if device is None else device,
            dtype=dtype,
        )
        return fields.reshape(-1, c, *spatial)

    def fields(
        self,
        spatial: Sequence[int],
        seeds: Tensor,
        origins: Tensor,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """The fields (B, *spatial) of given seeds, (B,) int64, and origins, (B, 3) float64 in lattice units.

        The last spatial axis is x; a 2D field lies in the plane z = origin z.
        """
        if not dtype.is_floating_point:
            raise ValueError(f"simplex noise of dtype {dtype}; a floating-point one is needed")
        if len(spatial) not in (2, 3):
            raise ValueError(f"simplex noise of spatial shape {tuple(spatial)}: 2 or 3 dimensions are supported")
        if seeds.ndim != 1 or origins.shape != (len(seeds), 3):
            raise ValueError(
                f"seeds have shape {tuple(seeds.shape)} and origins {tuple(origins.shape)}; (B,) and (B, 3) are needed"
            )
        exact = torch.float64 if dtype == torch.float64 else torch.float32
        shuffled = torch.from_numpy(permutations(seeds.cpu().numpy())).to(device, non_blocking=True)
        lengths = (*([1] * (3 - len(spatial))), *spatial)
        steps = [torch.arange(n, dtype=torch.float64) * self.frequency for n in reversed(lengths)]
        axes = [
            (origin[:, None] + step).to(device, exact, non_blocking=True)
            for origin, step in zip(origins.cpu().T, steps, strict=True)
        ]
        total = torch.zeros((len(seeds), *lengths), dtype=exact, device=device)
        together = max(1, _TOGETHER // max(1, total.numel()))
        for first in range(0, self.octaves, together):
            octaves = range(first, min(first + together, self.octaves))
            x, y, z = (torch.cat([axis * 2**k for k in octaves]) for axis in axes)
            grid = torch.broadcast_tensors(x[:, None, None, :], y[:, None, :, None], z[:, :, None, None])
            values = opensimplex(torch.stack(grid, dim=-1), shuffled.repeat(len(octaves), 1))
            for k, octave in zip(octaves, values.split(len(seeds)), strict=True):
                total.add_(octave, alpha=self.decay**k)
        if not self.raw:
            total /= self.raw_std
        return total.reshape(len(seeds), *spatial).to(dtype)
