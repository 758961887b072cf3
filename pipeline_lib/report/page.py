"""One self-contained HTML page: templates, embedded pictures, numbers and tables as a person reads them."""

from __future__ import annotations

import base64
import functools
import io
import math
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image, ImageOps, ImageSequence

import pipeline_lib
from pipeline_lib.files import read_json, write_text
from pipeline_lib.stage import sidecar_of

PICTURE_WIDTH = 1600
ANIMATION_WIDTH = 512
THUMBNAIL_WIDTH = 480
PNG_LIMIT = 500_000
MISSING = "n/a"


@dataclass(frozen=True)
class Picture:
    """An image as it stands in a page; ``problem`` says why there is none."""

    name: str
    alt: str
    caption: str
    source: str = ""
    still: str = ""
    width: int = 0
    height: int = 0
    problem: str = ""


@dataclass(frozen=True)
class Provenance:
    """What made one folder, from its sidecar."""

    label: str
    code: str
    options: str
    seed: str
    inputs: int
    python: str
    versions: str


def write_page(path: Path, template: str, **values: Any) -> None:
    """Render a template of this package and write it atomically."""
    write_text(path, _environment().get_template(template).render(version=pipeline_lib.__version__, **values))


def load_picture(path: Path, *, alt: str, caption: str = "", width: int = PICTURE_WIDTH) -> Picture:
    """Embed an image at most ``width`` pixels wide; one that cannot be read is named in its place.

    PNG is kept up to half a megabyte, larger images become WebP. A GIF keeps its frames and brings its
    last one as a still picture for readers who asked their system for reduced motion.
    """
    try:
        with Image.open(path) as image:
            if getattr(image, "n_frames", 1) > 1:
                return _animation(path.name, image, alt, caption)
            upright = ImageOps.exif_transpose(image)
            small = _limit_width(
                upright if upright.mode in ("L", "RGB", "RGBA", "P", "1") else upright.convert("RGB"), width
            )
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else "not a readable image"
        return Picture(path.name, alt, caption, problem=f"{path.name}: {reason}")
    data, kind = _encode(small)
    return Picture(path.name, alt, caption, _data_uri(data, kind), "", small.width, small.height)


def number(value: object) -> str:
    """A number with three significant digits, thousands grouped; what is absent is `n/a`."""
    if value is None or value == "":
        return MISSING
    try:
        real = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return str(value)
    if not math.isfinite(real):
        return MISSING
    if real == int(real) and abs(real) < 1e15:
        return f"{int(real):,}"
    if abs(real) >= 1000:
        return f"{real:,.0f}"
    if abs(real) < 0.001:
        return f"{real:.2e}"
    return f"{real:.{max(0, 2 - math.floor(math.log10(abs(real))))}f}"


def read_provenance(label: str, out: Path) -> Provenance | None:
    """The sidecar of a stage's folder or file, shortened for a table; None where it has none."""
    sidecar = sidecar_of(out)
    if not sidecar.is_file():
        return None
    made = read_json(sidecar)
    return Provenance(
        label=label,
        code=str(made.get("code", ""))[:16],
        options=str(made.get("options_sha256", ""))[:16],
        seed=", ".join(f"{name} {value}" for name, value in (made.get("seed") or {}).items()),
        inputs=len(made.get("inputs", [])),
        python=str(made.get("python", "")),
        versions=", ".join(f"{name} {version}" for name, version in sorted(made.get("versions", {}).items())),
    )


@functools.cache
def _environment() -> Environment:
    folder = Path(__file__).parent / "templates"
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["link"] = urllib.parse.quote
    return environment


def _limit_width(image: Image.Image, width: int) -> Image.Image:
    if image.width <= width:
        return image.copy()
    colours = image.convert("RGBA" if "transparency" in image.info else "RGB") if image.mode in ("P", "1") else image
    return colours.resize((width, max(1, round(image.height * width / image.width))), Image.Resampling.LANCZOS)


def _encode(image: Image.Image) -> tuple[bytes, str]:
    data = io.BytesIO()
    image.save(data, "PNG", optimize=True)
    if data.tell() <= PNG_LIMIT:
        return data.getvalue(), "png"
    data = io.BytesIO()
    image.convert("RGBA" if image.mode == "RGBA" else "RGB").save(data, "WEBP", quality=88)
    return data.getvalue(), "webp"


def _animation(name: str, image: Image.Image, alt: str, caption: str) -> Picture:
    durations = [frame.info.get("duration", 100) for frame in ImageSequence.Iterator(image)]
    frames = [_limit_width(frame.convert("RGB"), ANIMATION_WIDTH) for frame in ImageSequence.Iterator(image)]
    data = io.BytesIO()
    frames[0].save(data, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
    still, kind = _encode(frames[-1])
    return Picture(
        name, alt, caption, _data_uri(data.getvalue(), "gif"), _data_uri(still, kind), frames[0].width, frames[0].height
    )


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
