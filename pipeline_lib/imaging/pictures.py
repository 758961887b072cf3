"""Slices and photographs that come as PNG or JPEG instead of NIfTI."""

from __future__ import annotations

import glob
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from skimage import transform  # loaded when it is first used

from pipeline_lib.errors import UserError


def find_slices(root: Path, pattern: str, where: str) -> list[Path]:
    """The files a path of the sheet stands for, slice 2 before slice 10.

    Raises:
        UserError: when there are none.
    """
    full = root / pattern
    if full.is_file():
        return [full]
    paths = [root / found for found in glob.glob(pattern, root_dir=root)]
    if not paths:
        raise UserError(f"{where}: no file matches; correct the path in the sheet, or cohort.root")
    for path in paths:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise UserError(f"{where}: {path.name} is a pipe or a device, not a picture; leave it out")
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


def read_marks(paths: list[Path], where: str, like: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Masks (S, H, W, 1) of 0 and 1 that belong to the slices ``like`` (S, H, W, C): what is brighter than half is marked.

    Of a mask whose marked pixels are its brightest, such as 0 and 1, whatever its range: half of the whole person's.

    Raises:
        UserError: a file that is no image, or another number or size than the slices.
    """
    marks = [_read(path, where).max(-1, keepdims=True) for path in paths]
    if len(marks) != len(like):
        raise UserError(f"{where}: {len(marks)} masks for {len(like)} slices; give one a slice")
    for path, mark in zip(paths, marks, strict=True):
        if mark.shape[:2] != like.shape[1:3]:
            raise UserError(
                f"{where}: {path.name} is {mark.shape[1]} x {mark.shape[0]} pixels for a slice of "
                f"{like.shape[2]} x {like.shape[1]}; give a mask on the slice's own pixels"
            )
    stack = np.stack(marks).astype(np.float64)
    marked: NDArray[np.uint8] = (stack > stack.max() / 2).astype(np.uint8)
    return marked


def fit_picture(pixels: NDArray[Any], size: tuple[int, ...], how: Literal["pad", "crop", "stretch"]) -> NDArray[Any]:
    """A picture (H, W, C) in [0, 1] on a canvas of ``size`` (rows, columns), interpolated linearly, with antialiasing.

    ``pad`` and ``crop`` keep its aspect ratio: it fits into the canvas, whose rest takes the median colour of the
    picture's border, or it covers the canvas, and what sticks out on both sides is cut. ``stretch`` fills the canvas.
    """
    if how == "stretch":
        return _resized(pixels, size)
    scales = [wanted / length for wanted, length in zip(size, pixels.shape[:2], strict=True)]
    scale = min(scales) if how == "pad" else max(scales)
    inner = tuple(max(1, round(length * scale)) for length in pixels.shape[:2])
    small = _resized(pixels, inner)
    if how == "crop":
        top, left = ((length - wanted) // 2 for length, wanted in zip(inner, size, strict=True))
        return small[top : top + size[0], left : left + size[1]]
    canvas = np.broadcast_to(_border_colour(pixels), (*size, pixels.shape[2])).copy()
    top, left = ((wanted - length) // 2 for length, wanted in zip(inner, size, strict=True))
    canvas[top : top + inner[0], left : left + inner[1]] = small
    return canvas


def _resized(pixels: NDArray[Any], size: tuple[int, ...]) -> NDArray[Any]:
    resized: NDArray[Any] = transform.resize(pixels, size, order=1, mode="edge", anti_aliasing=True)
    return resized


def _border_colour(pixels: NDArray[Any]) -> NDArray[Any]:
    """Median colour (C,) of the outermost pixels."""
    border = [pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]
    colour: NDArray[Any] = np.median(np.concatenate(border), axis=0)
    return colour


def _read(path: Path, where: str) -> NDArray[Any]:
    """One picture (H, W, C): uint8 of one channel where all its pixels are grey, or of three; more bits as they are."""
    if path.is_dir():
        raise UserError(f"{where}: {path.name} is a folder; name PNG or JPEG files, and convert DICOM with dcm2niix")
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                return np.asarray(image)[..., None]
            pixels = _opaque(image)
    except Image.DecompressionBombError:
        raise UserError(f"{where}: {path.name} has more pixels than a picture; give it smaller") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{where}: {path.name} cannot be read as an image ({error}); export it again") from None
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    grey = pixels.shape[2] == 3 and not _has_colour(pixels)
    return np.ascontiguousarray(pixels[..., :1] if grey else pixels, dtype=np.uint8)


def _opaque(image: Image.Image) -> NDArray[np.uint8]:
    """Grey (H, W) or RGB (H, W, 3); what is transparent lies on white where the picture has colours, on black where it is grey, as scans are."""
    if not image.has_transparency_data:
        return np.asarray(_in_mode(image, "L" if image.mode in ("1", "L") else "RGB"))
    layers = _in_mode(image, "RGBA")
    background = 255 if _has_colour(np.asarray(layers)) else 0
    canvas = Image.new("RGB", image.size, (background,) * 3)
    canvas.paste(layers, mask=layers)
    return np.asarray(canvas)


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)


def _has_colour(pixels: NDArray[np.uint8]) -> bool:
    """Whether a pixel (H, W, RGB or RGBA) that is not quite transparent has one; the middle row shows it nearly always."""
    return any(_coloured(rows).any() for rows in (pixels[len(pixels) // 2], pixels))


def _coloured(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    green = pixels[..., 1]
    coloured: NDArray[np.bool_] = (pixels[..., 0] != green) | (green != pixels[..., 2])
    return coloured & (pixels[..., 3] > 0) if pixels.shape[-1] == 4 else coloured


def _natural(path: Path) -> list[tuple[int, int | str]]:
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"([0-9]+)", path.name)]
