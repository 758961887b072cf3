"""One self-contained HTML page: templates, embedded pictures, numbers and tables as a person reads them."""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import math
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image, ImageOps, ImageSequence

import pipeline_lib
from pipeline_lib.files import write_text
from pipeline_lib.report.records import read_record
from pipeline_lib.report.tables import Download
from pipeline_lib.stage import sidecar_of

PICTURE_WIDTH = 1600
ANIMATION_WIDTH = 512
THUMBNAIL_WIDTH = 480
PICTURE_LIMIT, ANIMATION_LIMIT = 500_000, 2_000_000
"""Bytes of a picture; a larger one is compressed harder, then made smaller."""
QUALITIES = (90, 75, 60)
TEMPLATES = Path(__file__).parent / "templates"
VENDOR = Path(__file__).parent / "vendor"
"""Files of others, unchanged, with their licences."""
PICTURES = "pictures.html"
"""The page of a chunk of pictures, which have none each."""
MISSING = "n/a"


@dataclass(frozen=True)
class Picture:
    """An image as it stands in a page; ``problem`` says why there is none, ``table`` has its data."""

    name: str
    alt: str
    caption: str
    source: str = ""
    still: str = ""
    width: int = 0
    height: int = 0
    problem: str = ""
    table: Download | None = None


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


def write_page(
    path: Path, template: str, *, scripts: Sequence[str] = (), beside: Sequence[str] = (), **values: Any
) -> None:
    """Render a template of this package and write it atomically.

    The page's content security policy allows its own style and ``scripts`` by their hashes, pictures that are embedded,
    and nothing else. The page of a scan loads the scripts at the addresses ``beside``: such a page allows scripts that lie
    where it lies, by name only, since no browser checks the hash of a file on disk.
    """
    style, *sources = [(TEMPLATES / name).read_text(encoding="utf-8") for name in ("style.css", *scripts)]
    page = _environment().get_template(template)
    text = page.render(
        version=pipeline_lib.__version__,
        style=Markup(style),
        scripts=[Markup(source) for source in sources],
        policy=_policy(style, sources, beside),
        beside=beside,
        **values,
    )
    write_text(path, text)


def svg_of(chart: object) -> str:
    """A line plot (`plots.Plot`) as a file of its own, in the colours of paper."""
    style = (TEMPLATES / "plot.css").read_text(encoding="utf-8")
    return _environment().get_template("plot.svg").render(chart=chart, style=Markup(style))


def _policy(style: str, scripts: Sequence[str], beside: Sequence[str]) -> str:
    def hashes(texts: Sequence[str]) -> str:
        found = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]
        return " ".join(f"'sha256-{digest}'" for digest in found) or "'none'"

    allowed = f"{hashes(scripts)} 'self' file:" if beside else hashes(scripts)
    return (
        f"default-src 'none'; img-src data: blob:; style-src {hashes([style])}; script-src {allowed}; "
        "base-uri 'none'; form-action 'none'"
    )


def load_picture(path: Path, *, alt: str, caption: str = "", width: int = PICTURE_WIDTH) -> Picture:
    """Embed an image at most ``width`` pixels wide; one that cannot be read is named in its place.

    It becomes WebP, without loss where that takes no more than `PICTURE_LIMIT`. An animation keeps its frames and
    brings its last one as a still picture, for print and for readers who asked their system for reduced motion.
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
    return picture_of(small, path.name, alt=alt, caption=caption)


def picture_of(image: Image.Image, name: str, *, alt: str, caption: str = "", limit: int = PICTURE_LIMIT) -> Picture:
    """An image in memory, as `load_picture` embeds one."""
    return Picture(name, alt, caption, _data_uri(_encode([image], limit)), "", image.width, image.height)


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
    made = read_record(sidecar)
    return Provenance(
        label=label,
        code=str(made.get("code", ""))[:16],
        options=str(made.get("options_sha256", ""))[:16],
        seed=", ".join(f"{name} {value}" for name, value in (made.get("seed") or {}).items()),
        inputs=len(made.get("inputs", [])),
        python=str(made.get("python", "")),
        versions=", ".join(
            f"{name} {version}" for name, version in sorted(made.get("versions", {}).items()) if version
        ),
    )


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["link"] = functools.partial(urllib.parse.quote, safe="/#")
    return environment


def _limit_width(image: Image.Image, width: int) -> Image.Image:
    if image.width <= width:
        return image.copy()
    colours = image.convert("RGBA" if "transparency" in image.info else "RGB") if image.mode in ("P", "1") else image
    return colours.resize((width, max(1, round(image.height * width / image.width))), Image.Resampling.LANCZOS)


def _encode(frames: Sequence[Image.Image], limit: int, durations: Sequence[int] = ()) -> bytes:
    """WebP of at most ``limit`` bytes: without loss, else with more and more of it, else smaller."""
    frames = [frame.convert("RGBA" if "A" in frame.mode or "transparency" in frame.info else "RGB") for frame in frames]
    moving = (
        {"save_all": True, "append_images": frames[1:], "duration": list(durations), "loop": 0} if durations else {}
    )
    ways: list[dict[str, Any]] = [{"lossless": True}, *({"quality": quality} for quality in QUALITIES)]
    for how in ways:
        data = io.BytesIO()
        frames[0].save(data, "WEBP", **how, **moving)
        if data.tell() <= limit:
            return data.getvalue()
    return _encode([_limit_width(frame, max(1, frame.width * 3 // 4)) for frame in frames], limit, durations)


def _animation(name: str, image: Image.Image, alt: str, caption: str) -> Picture:
    durations = [frame.info.get("duration", 100) for frame in ImageSequence.Iterator(image)]
    frames = [_limit_width(frame.convert("RGB"), ANIMATION_WIDTH) for frame in ImageSequence.Iterator(image)]
    moving, still = _encode(frames, ANIMATION_LIMIT, durations), _encode(frames[-1:], PICTURE_LIMIT)
    return Picture(name, alt, caption, _data_uri(moving), _data_uri(still), frames[0].width, frames[0].height)


def _data_uri(data: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(data).decode()}"
