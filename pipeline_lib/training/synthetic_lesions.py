"""Lesions that nobody has: shapes, textures and signs drawn at random and put into healthy images.

A network that has learned to take them out again has been told what is unlike a healthy brain without ever seeing a
real lesion (DRAEM, Zavrtanik 2021; DISYRE, Naval Marimont 2024). What they look like is a prior, and is declared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline_lib.config.schema import SyntheticLesionOptions
from pipeline_lib.noise.coarse import CoarseNoise
from pipeline_lib.training.steps import Draw

MOST = 3
"""Lesions in an image, at most."""
ANOTHER = 0.35
"""Chance of each one after the first."""
OUTLINE, DETAIL, TEXTURE = CoarseNoise(12), CoarseNoise(5), CoarseNoise(3)
"""Noise that bends the outline, finer bends, and texture; their spacings are in voxels."""
ROUGHNESS = (0.1, 0.7)
"""How far the outline leaves the ellipsoid it starts from, in radii."""
STRETCH = 0.5
"""Largest change of the log of an ellipsoid's axis."""
SOFTNESS = (0.03, 0.3)
"""Width of the border, in radii."""
FLATNESS = 0.7
"""Largest share of the anatomy that a lesion wipes out."""
UNEVENNESS = 0.5
"""Largest standard deviation of a lesion's texture, in its contrast."""


def put_lesions(images: Tensor, brain: Tensor, options: SyntheticLesionOptions, draw: Draw) -> tuple[Tensor, Tensor]:
    """Images with lesions, and where they are.

    Args:
        images: ``(N, C, *spatial)`` in [-1, 1], healthy.
        brain: ``(N, 1, *spatial)``, lesions lie where it is over .5.
        options: how many images get any, how large, how strong and how often bright they are.
        draw: fixes everything.

    Returns:
        Images of the same shape, and a mask ``(N, 1, *spatial)`` of 0 and 1.
    """
    inside = brain > 0.5
    result, marked = images, torch.zeros_like(images[:, :1])
    present = draw.uniform("lesion 0 present") < options.share
    for number in range(MOST):
        if number:
            present = present & (draw.uniform(f"lesion {number} present") < ANOTHER)
        own = f"lesion {number}"
        depth, border = _shape(inside, options.size, draw, own)
        weight = torch.sigmoid(depth / border) * (inside & _spread(present, depth))
        result = result + weight * _change(result, inside, options, draw, own)
        marked = torch.maximum(marked, ((depth > 0) & inside & _spread(present, depth)).float())
    return result.clamp(-1, 1), marked


def _shape(inside: Tensor, size: tuple[float, float], draw: Draw, own: str) -> tuple[Tensor, Tensor]:
    """How far within a lesion each voxel lies, in radii, ``(N, 1, *spatial)``, and the width of its border."""
    shape, spatial = inside.shape, inside.shape[2:]
    chance = draw.normal(f"{own} centre", shape).masked_fill(~inside, -math.inf)
    centre = torch.stack(torch.unravel_index(chance.flatten(1).argmax(1), spatial), dim=1).float()
    radius = _between(size, draw.uniform(f"{own} radius"), log=True) * (math.prod(spatial) ** (1 / len(spatial)))
    places = torch.stack(
        torch.meshgrid(*(torch.arange(length, device=inside.device) for length in spatial), indexing="ij"), dim=-1
    ).flatten(0, -2)
    away = places[None] - centre[:, None]
    axes, _ = torch.linalg.qr(draw.normal(f"{own} axes", (len(inside), len(spatial), len(spatial))))
    lengths = torch.stack([draw.uniform(f"{own} axis {axis}") for axis in range(len(spatial))], dim=1)
    turned = torch.einsum("npk,nkj->npj", away, axes) * torch.exp((lengths * 2 - 1) * STRETCH)[:, None]
    distance = turned.norm(dim=-1).reshape(shape) / _spread(radius, inside)
    bends = 0.8 * draw.noise(f"{own} outline", OUTLINE, shape) + 0.6 * draw.noise(f"{own} detail", DETAIL, shape)
    rough = _spread(_between(ROUGHNESS, draw.uniform(f"{own} roughness")), inside)
    return 1 - distance + rough * bends, _spread(_between(SOFTNESS, draw.uniform(f"{own} softness")), inside)


def _change(images: Tensor, inside: Tensor, options: SyntheticLesionOptions, draw: Draw, own: str) -> Tensor:
    """What a lesion adds to each voxel: contrast with texture, and what brings the anatomy nearer to its mean."""
    contrast = _between(options.contrast, draw.uniform(f"{own} contrast"))
    sign = torch.where(draw.uniform(f"{own} sign") < options.bright, 1.0, -1.0)
    uneven = contrast * UNEVENNESS * draw.uniform(f"{own} unevenness")
    texture = draw.noise(f"{own} texture", TEXTURE, inside.shape)
    axes = tuple(range(2, images.ndim))
    mean = (images * inside).sum(axes, keepdim=True) / inside.sum(axes, keepdim=True).clamp(min=1)
    flat = _spread(FLATNESS * draw.uniform(f"{own} flatness"), images)
    return flat * (mean - images) + _spread(sign * contrast, images) + _spread(uneven, images) * texture


def _between(limits: Sequence[float], share: Tensor, *, log: bool = False) -> Tensor:
    low, high = (math.log(limit) for limit in limits) if log else limits
    value = low + share * (high - low)
    return value.exp() if log else value


def _spread(values: Tensor, like: Tensor) -> Tensor:
    """A value an image ``(N,)``, to be used with images."""
    return values.reshape(-1, *[1] * (like.ndim - 1))
