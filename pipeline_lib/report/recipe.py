"""One page per recipe: pictures first, then numbers beside their baselines, training, people, methods."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline_lib.config.schema import CohortOptions, RecipeOptions
from pipeline_lib.files import read_json
from pipeline_lib.report.captions import CAPTIONS, STAGES, TASKS
from pipeline_lib.report.charts import Interval, intervals
from pipeline_lib.report.methods import recipe_methods
from pipeline_lib.report.page import THUMBNAIL_WIDTH, Picture, load_picture, number, read_provenance, write_page

PICTURE_SUFFIXES = {".png", ".gif", ".jpg", ".jpeg", ".webp"}
MOST_PICTURES = 12
FEW_PEOPLE = 20
FEW_STEPS = 5_000


@dataclass(frozen=True)
class Gallery:
    """The pictures of one stage."""

    title: str
    pictures: tuple[Picture, ...]
    left_out: int
    folder: str


@dataclass(frozen=True)
class Judged:
    """One metric: a line for each method, on one axis."""

    name: str
    unit: str
    group: str
    split: str
    rows: tuple[tuple[Mapping[str, Any], Interval], ...]


@dataclass(frozen=True)
class Trained:
    """A network and who it was trained on."""

    title: str
    people: int
    scans: int
    groups: str
    steps: str
    parameters: str


@dataclass(frozen=True)
class Card:
    """What the index shows of a recipe; kept inside the recipe's page as JSON."""

    name: str
    task: str
    question: str
    headline: str
    value: str
    interval: str
    baselines: tuple[str, ...]
    thumbnail: str
    alt: str


def write_recipe_page(
    name: str, recipe: RecipeOptions, cohort: CohortOptions, folders: Mapping[str, Path], out: Path
) -> None:
    """Write the page of a recipe to the file ``out``.

    The page links to ``index.html`` in its own folder.

    Args:
        name: the recipe's name in the configuration.
        recipe: its options, from which the methods text is written.
        cohort: name and note shown on the page.
        folders: the stage folders by name, for instance ``evaluation``, ``samples``, ``inference/test-anat-0000``,
            ``embedding``, ``diffusion``, ``autoencoder/image``. A folder with ``model.json`` is a trained network;
            PNG and GIF files of the others (also in their ``figures/``) are the pictures of the result.
        out: the HTML file.
    """
    task = TASKS[recipe.task]
    networks = {key: folder for key, folder in folders.items() if (folder / "model.json").is_file()}
    results = {key: folder for key, folder in folders.items() if key not in networks}
    galleries = [_gallery(key, folder) for key, folder in sorted(results.items(), key=lambda item: _order(item[0]))]
    galleries = [gallery for gallery in galleries if gallery.pictures]
    curves = [_gallery(key, folder) for key, folder in sorted(networks.items(), key=lambda item: _order(item[0]))]
    metrics = [row for folder in results.values() for row in _metrics(folder)]
    judged = _judged(metrics)
    trained = [_trained(key, folder) for key, folder in networks.items()]
    made = [read_provenance(stage_title(key), folder) for key, folder in folders.items()]
    write_page(
        out,
        "recipe.html",
        title=name,
        home="index.html",
        cohort=cohort,
        name=name,
        recipe=recipe,
        task=task,
        galleries=galleries,
        headline=_headline(task.headline, judged),
        judged=judged,
        curves=[gallery for gallery in curves if gallery.pictures],
        trained=trained,
        limits=[*task.limits, *_own_limits(recipe, metrics)],
        methods=recipe_methods(recipe),
        provenance=[item for item in made if item],
        card=asdict(_card(name, recipe, _headline(task.headline, judged), results)),
    )


def stage_title(key: str) -> str:
    """``autoencoder/image`` as a person reads it."""
    stage, _, rest = key.partition("/")
    title = STAGES.get(stage, stage.replace("_", " ").capitalize())
    return f"{title}, {rest}" if rest else title


def _order(key: str) -> tuple[int, str]:
    stages = list(STAGES)
    stage = key.partition("/")[0]
    return (stages.index(stage) if stage in stages else len(stages), key)


def _picture_files(folder: Path) -> list[Path]:
    found = [
        path
        for place in (folder, folder / "figures")
        if place.is_dir()
        for path in place.iterdir()
        if path.suffix.lower() in PICTURE_SUFFIXES
    ]
    known = list(CAPTIONS)
    return sorted(found, key=lambda path: (known.index(path.stem) if path.stem in known else len(known), path.name))


def _gallery(key: str, folder: Path) -> Gallery:
    files = _picture_files(folder)
    pictures = tuple(_picture(path) for path in files[:MOST_PICTURES])
    return Gallery(stage_title(key), pictures, max(0, len(files) - MOST_PICTURES), folder.name)


def _picture(path: Path, **size: int) -> Picture:
    if path.stem in CAPTIONS:
        caption, alt = CAPTIONS[path.stem]
    else:
        words = path.stem.replace("_", " ").replace("-", " ")
        caption, alt = f"File {path.name}.", f"Picture of the result: {words}."
    return load_picture(path, alt=alt, caption=caption, **size)


def _metrics(folder: Path) -> list[Mapping[str, Any]]:
    path = folder / "metrics.json"
    return list(read_json(path)) if path.is_file() else []


def _judged(metrics: Sequence[Mapping[str, Any]]) -> list[Judged]:
    together: dict[tuple[str, str, str, str], list[Mapping[str, Any]]] = {}
    for row in metrics:
        key = (row["name"], row["unit"] or "", row["group"] or "all", row["split"] or "")
        together.setdefault(key, []).append(row)
    return [
        Judged(*key, tuple(zip(rows, intervals([_triple(row) for row in rows]), strict=True)))
        for key, rows in together.items()
    ]


def _triple(row: Mapping[str, Any]) -> tuple[float, float, float]:
    value, low, high = (math.nan if row[name] is None else float(row[name]) for name in ("value", "low", "high"))
    return value, low, high


def _headline(preferred: Sequence[str], judged: Sequence[Judged]) -> Judged | None:
    """The first metric with a value among the task's own, over all groups on test people where possible."""

    def rank(item: Judged) -> tuple[int, bool, bool]:
        name = item.name.lower().replace(" ", "_")
        place = next((i for i, wanted in enumerate(preferred) if wanted in name), len(preferred))
        return (place, item.split != "test", item.group != "all")

    usable = [item for item in judged if item.rows[0][0]["value"] is not None]
    return min(usable, key=rank, default=None)


def _trained(key: str, folder: Path) -> Trained:
    model = read_json(folder / "model.json")
    info = model.get("info", model)
    groups = info.get("groups") or []
    return Trained(
        title=stage_title(key),
        people=len(info.get("people", [])),
        scans=len(info.get("scans", [])),
        groups=", ".join(str(group) for group in groups) or "all",
        steps=number(info.get("steps")),
        parameters=number(info.get("parameters")),
    )


def _own_limits(recipe: RecipeOptions, metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    limits = []
    people = [int(row["n_subjects"]) for row in metrics if row["split"] == "test" and row["n_subjects"]]
    if people and min(people) < FEW_PEOPLE:
        limits.append(
            f"At least one number rests on {min(people)} people only. Its interval is wide and a bootstrap over so few "
            "understates it."
        )
    steps = recipe.denoiser.training.steps
    if steps < FEW_STEPS:
        limits.append(
            f"The denoiser was trained for {steps:,} steps only. This shows that the workflow runs; it does not show what "
            "the method can do."
        )
    notes = {str(row["note"]) for row in metrics if row["note"] and row["value"] is None}
    return limits + [f"A number could not be computed: {note}" for note in sorted(notes)]


def _card(name: str, recipe: RecipeOptions, headline: Judged | None, results: Mapping[str, Path]) -> Card:
    ordered = sorted(results, key=_order)
    first = next((files[0] for key in ordered if (files := _picture_files(results[key]))), None)
    thumbnail = _picture(first, width=THUMBNAIL_WIDTH) if first else None
    rows = [row for row, _ in headline.rows] if headline else []
    return Card(
        name=name,
        task=recipe.task,
        question=TASKS[recipe.task].question,
        headline=headline_title(headline) if headline else "",
        value=number(rows[0]["value"]) if rows else "",
        interval=_interval_text(rows[0]) if rows else "",
        baselines=tuple(f"{row['method']}: {number(row['value'])}" for row in rows[1:4] if row["method"]),
        thumbnail=(thumbnail.still or thumbnail.source) if thumbnail else "",
        alt=thumbnail.alt if thumbnail else "",
    )


def headline_title(item: Judged) -> str:
    """``AUPRC, test, all people``."""
    people = "" if item.group == "all" else f", {item.group}"
    return f"{item.name}{f' ({item.unit})' if item.unit else ''}{people}"


def _interval_text(row: Mapping[str, Any]) -> str:
    if row["low"] is None or row["high"] is None:
        return ""
    people = f", {row['n_subjects']} people" if row["n_subjects"] else ""
    return f"95% CI {number(row['low'])} to {number(row['high'])}{people}"
