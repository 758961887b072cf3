"""Slices that come as PNG or JPEG instead of NIfTI."""

from __future__ import annotations

import glob
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pipeline_lib.errors import UserError


def find_slices(root: Path, pattern: str, where: str) -> list[Path]:
    """The files a path of the sheet stands for, slice 2 before slice 10.

    Raises:
        UserError: when there are none.
    """
    full = root / pattern
    paths = [full] if full.is_file() else [root / found for found in glob.glob(pattern, root_dir=root)]
    if not paths:
        raise UserError(f"{where}: no file matches; correct the path in the sheet, or cohort.root")
    return sorted(paths, key=_natural)


def read_slices(paths: list[Path], where: str) -> NDArray[np.uint8]:
    """One person's slices (S, H, W, C), C 1 (grey) or 3 (RGB), all of the size of the first.

    Grey levels of more than 8 bits are scaled so that the range of all the person's slices becomes 0 to 255.

    Raises:
        UserError: a file that is no image, is constant, or differs in size.
    """
    slices = [_read(path, where) for path in paths]
    first = slices[0].shape[:2]
    for path, pixels in zip(paths, slices, strict=True):
        if pixels.shape[:2] != first:
            raise UserError(
                f"{where}: {path.name} is {pixels.shape[1]} x {pixels.shape[0]} pixels but {paths[0].name} is "
                f"{first[1]} x {first[0]}; a person's slices must have one size"
            )
    low, high = min(pixels.min() for pixels in slices), max(pixels.max() for pixels in slices)
    if low == high:
        raise UserError(f"{where}: every pixel is the same, the image is empty; export it again")
    if any(pixels.dtype != np.uint8 for pixels in slices):
        slices = [
            np.round((pixels.astype(np.float64) - low) * (255 / (high - low))).astype(np.uint8) for pixels in slices
        ]
    channels = max(pixels.shape[2] for pixels in slices)
    return np.stack([np.repeat(p, channels, 2) if p.shape[2] < channels else p for p in slices])


def _read(path: Path, where: str) -> NDArray[Any]:
    if path.is_dir():
        raise UserError(f"{where}: {path.name} is a folder; name PNG or JPEG files, and convert DICOM with dcm2niix")
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                return np.asarray(image)[..., None]
            pixels = np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise UserError(f"{where}: {path.name} cannot be read as an image ({error}); export it again") from None
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    grey = pixels.shape[2] == 3 and (pixels == pixels[..., :1]).all()
    return np.ascontiguousarray(pixels[..., :1] if grey else pixels, dtype=np.uint8)


def _natural(path: Path) -> list[tuple[int, int | str]]:
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"([0-9]+)", path.name)]
