"""Brain extraction: one name, several methods, a mask on the scan's own grid.

``learned``     the small 3D U-Net that ships with this library (docs/preprocessing.md)
``given``       the mask named in the sheet, which wins over any other method where there is one
``synthstrip``  FreeSurfer's SynthStrip, where installed (Hoopes et al. 2022, doi:10.1016/j.neuroimage.2022.119474)
``hd-bet``      HD-BET, where installed (Isensee et al. 2019, doi:10.1002/hbm.24750)
``none``        the scan is stripped already: its foreground is the brain
"""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional

from pipeline_lib.errors import UserError
from pipeline_lib.imaging.nifti import Volume, read_volume, write_volume

WEIGHTS = Path(__file__).with_name("brain_extraction.safetensors")
GRID_MM = 2.0
MULTIPLE = 16
BOX = (96, 112, 96)
"""Voxels at 2 mm that the network is trained on and looks at."""
CENTRE_MM = 30.0
NOT_BRAIN = -20.0
SMALLEST_MM = 40.0
STRIPPED_ML = (600.0, 2200.0)
MOST_STRIPPED = 0.6
"""Share of its volume that a stripped brain may fill: a box that just holds it is half full."""
MOST_CUT = 0.2
"""Share of a face of the volume that a stripped brain may fill: a slab of a head is cut across."""


class BrainNetwork(nn.Module):
    """A U-Net that sees the head at 2 mm but computes at 4 mm and coarser.

    Blocks of 2 x 2 x 2 voxels become channels on the way in and voxels again on the way out
    (space to depth, Shi et al. 2016, arXiv:1609.05158): eight times fewer voxels to convolve
    at the resolution of the finest level.

    ``forward``: intensities in [0, 1], ``(N, 1, X, Y, Z)`` with X, Y, Z multiples of 16 ->
    logits of being brain, same shape.
    """

    def __init__(self, channels: tuple[int, ...] = (16, 32, 64, 64)) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            _block(8 if level == 0 else channels[level - 1], width) for level, width in enumerate(channels)
        )
        self.up = nn.ModuleList(
            _block(channels[level + 1] + channels[level], channels[level])
            for level in reversed(range(len(channels) - 1))
        )
        self.last = nn.Conv3d(channels[0], 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = _space_to_depth(x)
        kept: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(functional.max_pool3d(x, 2) if level else x)
            kept.append(x)
        kept.pop()
        for block in self.up:
            x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
            x = block(torch.cat([x, kept.pop()], dim=1))
        return _depth_to_space(self.last(x))


def _block(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(inside, outside, 3, padding=1, bias=False),
        nn.InstanceNorm3d(outside, affine=True),
        nn.LeakyReLU(0.1, inplace=True),
        nn.Conv3d(outside, outside, 3, padding=1, bias=False),
        nn.InstanceNorm3d(outside, affine=True),
        nn.LeakyReLU(0.1, inplace=True),
    )


def _space_to_depth(x: Tensor) -> Tensor:
    n, _, i, j, k = x.shape
    x = x.reshape(n, i // 2, 2, j // 2, 2, k // 2, 2)
    return x.permute(0, 2, 4, 6, 1, 3, 5).reshape(n, 8, i // 2, j // 2, k // 2)


def _depth_to_space(x: Tensor) -> Tensor:
    n, _, i, j, k = x.shape
    x = x.reshape(n, 2, 2, 2, i, j, k)
    return x.permute(0, 4, 1, 5, 2, 6, 3).reshape(n, 1, 2 * i, 2 * j, 2 * k)


@functools.lru_cache(maxsize=1)
def load_network(weights: Path = WEIGHTS) -> BrainNetwork:
    """The trained network, in evaluation mode."""
    if not weights.is_file():
        raise UserError(
            f"{weights.name} is missing beside pipeline_lib/imaging/brain.py: reinstall, or train it with "
            "python -m pipeline_lib.imaging.train_brain_extraction"
        )
    network = BrainNetwork()
    network.load_state_dict({name: value.float() for name, value in load_file(weights).items()})
    return network.eval()


def normalise(x: Tensor) -> Tensor:
    """Clip to the 0.5th and 99.5th percentile of the voxels that are not background, scale to [0, 1]."""
    some = x.numpy().ravel()[:: max(1, x.numel() // 200_000)]
    values = some[some != some.min()]
    if values.size < 2:
        return torch.zeros_like(x)
    low, high = np.percentile(values, [0.5, 99.5]).tolist()
    low = min(low, float(np.median(some)))
    return ((x - low) / (high - low or 1.0)).clamp(0, 1)


def to_grid(data: NDArray[np.float32], zooms: tuple[float, ...]) -> Tensor:
    """Resample ``(X, Y, Z)`` with voxels of ``zooms`` mm to 2 mm, ``(1, 1, X', Y', Z')``.

    Axes with finer voxels are smoothed first (sigma 0.5 x sqrt(factor^2 - 1) voxels), so nothing aliases.
    """
    sigmas = [0.5 * float(np.sqrt(max((GRID_MM / zoom) ** 2 - 1, 0.0))) for zoom in zooms]
    smooth = ndimage.gaussian_filter(data, sigmas, truncate=2.0) if max(sigmas) > 0.1 else data
    size = [max(2, round(n * zoom / GRID_MM)) for n, zoom in zip(data.shape, zooms, strict=True)]
    x = torch.from_numpy(np.ascontiguousarray(smooth))[None, None]
    return functional.interpolate(x, size=size, mode="trilinear", align_corners=False)


def brain_probability(data: NDArray[np.float32], zooms: tuple[float, ...]) -> NDArray[np.float32]:
    """Probability of brain at each voxel of a RAS+ volume ``(X, Y, Z)`` with voxels of ``zooms`` mm.

    Twice: over the whole field of view to find where the brain is, then within a box of the size the
    network was trained on around it, as it is and mirrored, whose mean is less noisy. A neck or a tongue
    far below the brain is like nothing it was trained on; the second look does not see them.
    """
    network = load_network()
    with torch.inference_mode():
        x = normalise(to_grid(data, zooms))
        box = _box_around_brain(_logits(network, x).sigmoid())
        logits = torch.full_like(x, NOT_BRAIN)
        inside = normalise(x[box])
        logits[box] = (_logits(network, inside) + _logits(network, inside.flip(2)).flip(2)) / 2
        logits = functional.interpolate(logits, size=data.shape, mode="trilinear", align_corners=False)
        return logits.sigmoid()[0, 0].numpy()


def _logits(network: BrainNetwork, x: Tensor) -> Tensor:
    """The network on ``(1, 1, X, Y, Z)`` of any size, padded with 0 to multiples of 16 and cut again."""
    shape = x.shape[2:]
    before = [(-n % MULTIPLE) // 2 for n in shape]
    after = [(-n % MULTIPLE) - b for n, b in zip(shape, before, strict=True)]
    padding = [p for pair in reversed(list(zip(before, after, strict=True))) for p in pair]
    logits: Tensor = network(functional.pad(x, padding))
    i, j, k = (slice(b, b + n) for b, n in zip(before, shape, strict=True))
    return logits[:, :, i, j, k]


def _box_around_brain(probability: Tensor) -> tuple[slice, ...]:
    """A box of at most ``BOX`` voxels around the place with most brain within some centimetres."""
    smooth = ndimage.gaussian_filter(probability[0, 0].numpy(), CENTRE_MM / GRID_MM, mode="constant", truncate=2.0)
    centre = np.unravel_index(int(smooth.argmax()), smooth.shape)
    starts = [
        int(np.clip(middle - size // 2, 0, max(0, n - size)))
        for middle, size, n in zip(centre, BOX, smooth.shape, strict=True)
    ]
    return (slice(None), slice(None), *(slice(a, a + size) for a, size in zip(starts, BOX, strict=True)))


def largest_component(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], int]:
    """The largest 6-connected component with its holes filled, and how many components there were."""
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask, 0
    boxes = ndimage.find_objects(labels)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    label = int(sizes.argmax())
    box = boxes[label - 1]
    out = np.zeros_like(mask)
    out[box] = ndimage.binary_fill_holes(labels[box] == label)
    return out, count


@dataclass(frozen=True)
class Brain:
    """A brain mask ``(X, Y, Z)``, the components it had before the largest was kept, how it was made."""

    mask: NDArray[np.bool_]
    components: int
    method: str


def foreground(volume: Volume) -> NDArray[np.bool_]:
    """Voxels that differ from the background, the commonest value on the volume's six faces."""
    values, counts = np.unique(np.concatenate([face.ravel() for face in _faces(volume.data)]), return_counts=True)
    return volume.data != values[counts.argmax()]


def _faces(data: NDArray[Any]) -> list[NDArray[Any]]:
    """The six outermost planes of ``(X, Y, Z)``."""
    return [data.take(index, axis=axis) for axis in range(3) for index in (0, -1)]


def already_stripped(volume: Volume) -> NDArray[np.bool_] | None:
    """The brain mask of a scan that holds nothing but a brain, or None.

    It holds nothing else when at least half the volume is one constant value and what is left is
    one body of 600 to 2200 mL that no face of the volume cuts across: whole heads are larger, and slabs
    of heads are cut.
    """
    outside = foreground(volume)
    if outside.mean() > 0.5 or max(face.mean() for face in _faces(outside)) > MOST_CUT:
        return None
    body, _ = largest_component(ndimage.binary_opening(outside))
    millilitres = body.sum() * volume.voxel_ml
    rest = outside.sum() * volume.voxel_ml - millilitres
    if not STRIPPED_ML[0] <= millilitres <= STRIPPED_ML[1] or rest > 0.1 * millilitres:
        return None
    return largest_component(outside)[0]


def extract_brain(volume: Volume, method: str, given: NDArray[np.bool_] | None = None) -> Brain:
    """Brain mask of a RAS+ ``volume``: the one that was ``given``, whatever the method, or what the method finds.

    Raises:
        UserError: no mask in the sheet for ``given``, an external program that is not installed or
            fails, or no brain found.
    """
    if given is not None:
        return Brain(given, int(ndimage.label(given)[1]), "given")
    if method == "given":
        raise UserError(
            "brain_extraction is 'given' but the sheet names no mask for this scan: "
            "fill the mask column or choose another method"
        )
    if method == "none":
        outside = foreground(volume)
        mask, components = largest_component(outside)
        millilitres = outside.sum() * volume.voxel_ml
        if outside.mean() > MOST_STRIPPED or millilitres > STRIPPED_ML[1]:
            raise UserError(
                f"brain_extraction is 'none', but this scan is not stripped: {outside.mean():.0%} of it "
                f"({millilitres:.0f} mL) is not background; choose 'learned'"
            )
        brain = Brain(mask, components, "none")
    elif method == "learned":
        stripped = already_stripped(volume)
        if stripped is not None:
            brain = Brain(stripped, 1, "already stripped")
        else:
            extent = [n * zoom for n, zoom in zip(volume.data.shape, volume.zooms, strict=True)]
            if min(extent) < SMALLEST_MM:
                size = " x ".join(f"{mm:.0f}" for mm in extent)
                raise UserError(f"the scan covers {size} mm, too little for a head; give a whole head, or a mask")
            mask, components = largest_component(brain_probability(volume.data, volume.zooms) > 0.5)
            brain = Brain(mask, components, "learned")
    else:
        mask, components = largest_component(_external(volume, method))
        brain = Brain(mask, components, method)
    if not brain.mask.any():
        raise UserError(f"brain extraction ({brain.method}) found no brain: look at the scan, or give a mask")
    return brain


COMMANDS = {
    "synthstrip": ("mri_synthstrip", "-i", "{image}", "-m", "{mask}"),
    "hd-bet": ("hd-bet", "-i", "{image}", "-o", "{out}", "-device", "cpu", "--disable_tta", "--save_bet_mask"),
}


def _external(volume: Volume, method: str) -> NDArray[np.bool_]:
    command = COMMANDS[method]
    if shutil.which(command[0]) is None:
        raise UserError(
            f"brain_extraction is '{method}' but the program {command[0]} is not on PATH: "
            "install it, or choose 'learned'"
        )
    with tempfile.TemporaryDirectory() as folder:
        places = {
            "image": f"{folder}/image.nii.gz",
            "mask": f"{folder}/mask.nii.gz",
            "out": f"{folder}/out.nii.gz",
        }
        write_volume(Path(places["image"]), volume)
        done = subprocess.run([word.format(**places) for word in command], capture_output=True, text=True, check=False)
        masks = [Path(places["mask"]), Path(folder, "out_bet.nii.gz"), Path(folder, "out_mask.nii.gz")]
        found = next((path for path in masks if path.is_file()), None)
        if done.returncode != 0 or found is None:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no message"]
            raise UserError(f"{command[0]} failed with exit code {done.returncode}: {last[0]}")
        return read_volume(found).data > 0.5
