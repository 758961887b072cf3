"""One page per recipe: pictures first, then numbers beside their baselines, training, people, methods."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline_lib.config.schema import CohortOptions, RecipeOptions
from pipeline_lib.dataset.conditions import Conditions
from pipeline_lib.dataset.grids import MOST_OUTSIDE
from pipeline_lib.files import read_json
from pipeline_lib.report.captions import CAPTIONS
from pipeline_lib.report.charts import Interval, intervals
from pipeline_lib.report.methods import recipe_methods
from pipeline_lib.report.page import THUMBNAIL_WIDTH, Picture, load_picture, number, read_provenance, write_page
from pipeline_lib.tasks import TASKS
from pipeline_lib.tasks.task import Task

PICTURE_SUFFIXES = {".png", ".gif", ".jpg", ".jpeg", ".webp"}
MOST_PICTURES = 12
FEW_PEOPLE = 20
TELLING = ("examples", "grid")
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
    """One metric of one group: a line for each method, on one axis, the finished model first."""

    name: str
    unit: str
    group: str
    rows: tuple[tuple[Mapping[str, Any], Interval], ...]


@dataclass(frozen=True)
class Trained:
    """A network and who it was trained on."""

    title: str
    people: int
    scans: int
    images: int
    told: str
    steps: int
    best_step: int


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
    note: str
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
    galleries = [
        _gallery(task, key, folder) for key, folder in sorted(results.items(), key=lambda item: _order(task, item[0]))
    ]
    galleries = [gallery for gallery in galleries if gallery.pictures]
    curves = [
        _gallery(task, key, folder) for key, folder in sorted(networks.items(), key=lambda item: _order(task, item[0]))
    ]
    metrics = [row for folder in results.values() for row in _metrics(folder)]
    judged = _judged(metrics)
    trained = [_trained(task, key, folder) for key, folder in networks.items()]
    made = [read_provenance(stage_title(task, key), folder) for key, folder in folders.items()]
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
        missing=_missing(metrics),
        curves=[gallery for gallery in curves if gallery.pictures],
        trained=trained,
        limits=[*task.limits, *_own_limits(recipe, metrics), *_cut_brains(networks)],
        methods=recipe_methods(recipe),
        provenance=[item for item in made if item],
        card=asdict(_card(name, task, _headline(task.headline, judged), results, _missing(metrics))),
    )


def stage_title(task: Task, key: str) -> str:
    """``autoencoder/image`` as a person reads it."""
    folder, _, rest = key.partition("/")
    title = {stage.folder: stage.title for stage in task.stages}.get(folder, folder.replace("_", " ").capitalize())
    return f"{title}, {rest}" if rest else title


def _order(task: Task, key: str) -> tuple[int, str]:
    """Results first: the order of the stages, turned round."""
    folders = [stage.folder for stage in reversed(task.stages)]
    folder = key.partition("/")[0]
    return (folders.index(folder) if folder in folders else len(folders), key)


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


def _gallery(task: Task, key: str, folder: Path) -> Gallery:
    files = _picture_files(folder)
    pictures = tuple(_picture(path) for path in files[:MOST_PICTURES])
    return Gallery(stage_title(task, key), pictures, max(0, len(files) - MOST_PICTURES), folder.name)


def _picture(path: Path, **size: int) -> Picture:
    if path.stem in CAPTIONS:
        caption, alt = CAPTIONS[path.stem]
        caption = f"Animation. {caption}" if path.suffix.lower() == ".gif" else caption
    else:
        words = path.stem.replace("_", " ").replace("-", " ")
        caption, alt = f"File {path.name}.", f"Picture of the result: {words}."
    return load_picture(path, alt=alt, caption=caption, **size)


def _metrics(folder: Path) -> list[Mapping[str, Any]]:
    path = folder / "metrics.json"
    return list(read_json(path)) if path.is_file() else []


def _judged(metrics: Sequence[Mapping[str, Any]]) -> list[Judged]:
    """Metrics with at least one value; baselines, floors and ceilings share the axis of what they are beside."""
    together: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in metrics:
        together.setdefault((row["name"], row["unit"] or "", row["group"] or "all"), []).append(row)
    judged = []
    for key, rows in together.items():
        if any(row["value"] is not None for row in rows):
            rows = sorted(rows, key=_reference)
            judged.append(Judged(*key, tuple(zip(rows, intervals([_triple(row) for row in rows]), strict=True))))
    return judged


def _reference(row: Mapping[str, Any]) -> int:
    """0 for the finished model, 1 for what it is held against, 2 for one of its checkpoints."""
    if ", step " in row["method"]:
        return 2
    return int(row["method"].startswith(("baseline:", "floor:", "ceiling:")))


def _missing(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    """What could not be computed for any method, and why: a line for each reason, the people in brackets."""
    valued = {(row["name"], row["group"]) for row in metrics if row["value"] is not None}
    missing = {(row["name"], row["group"]): row["note"] or "no reason given" for row in metrics}
    reasons: dict[str, dict[str, None]] = {}
    for (name, group), reason in missing.items():
        if (name, group) in valued or (group != "all" and missing.get((name, "all")) == reason):
            continue
        reasons.setdefault(reason, {})[name if group in ("", "all") else f"{name} ({group})"] = None
    return [f"{', '.join(names)}: {reason}" for reason, names in reasons.items()]


def _triple(row: Mapping[str, Any]) -> tuple[float, float, float]:
    value, low, high = (math.nan if row[name] is None else float(row[name]) for name in ("value", "low", "high"))
    return value, low, high


def _headline(preferred: Sequence[str], judged: Sequence[Judged]) -> Judged | None:
    """The task's own metric, over all groups where possible; None where it could not be computed."""
    ranked = [
        ((place, item.group != "all"), item)
        for item in judged
        for place, wanted in enumerate(preferred)
        if item.name.lower().startswith(wanted) and item.rows[0][0]["value"] is not None
    ]
    return min(ranked, key=lambda pair: pair[0])[1] if ranked else None


def _trained(task: Task, key: str, folder: Path) -> Trained:
    model = read_json(folder / "model.json")
    return Trained(
        title=stage_title(task, key),
        people=model["train_people"],
        scans=model["train_scans"],
        images=model["train_images"],
        told="; ".join(str(condition) for condition in Conditions.of(model)) or "nothing",
        steps=model["steps"],
        best_step=model["best_step"],
    )


def _cut_brains(networks: Mapping[str, Path]) -> list[str]:
    """That the images a network was trained on leave out some of the brain, and how much."""
    shares = [read_json(folder / "model.json").get("brain_outside") or 0 for folder in networks.values()]
    if max(shares, default=0) <= MOST_OUTSIDE:
        return []
    return [
        f"The images leave out {max(shares):.1%} of the brain, the mean over training scans; nothing is learned or said "
        "of it. The log of the dataset stage names the data.size that holds all of it."
    ]


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
    crossed = _crossed_bounds(metrics)
    if crossed:
        limits.append(
            f"For {', '.join(crossed)} the ceiling is below the floor: the target autoencoder loses more than the source "
            "lacks, so nothing in its latent space can win. Train the autoencoder for longer, or let it compress less, "
            "before judging the diffusion."
        )
    return limits


def _crossed_bounds(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the similarities (higher is better) whose ceiling lies below their floor."""
    bounds: dict[str, dict[str, float]] = {}
    for row in metrics:
        if row["group"] in ("", "all") and row["name"].startswith(("PSNR", "SSIM")) and row["value"] is not None:
            bounds.setdefault(row["name"], {})[row["method"].partition(":")[0]] = row["value"]
    return [name for name, of in bounds.items() if of.get("ceiling", math.inf) < of.get("floor", -math.inf)]


def _card(name: str, task: Task, headline: Judged | None, results: Mapping[str, Path], missing: Sequence[str]) -> Card:
    ordered = sorted(results, key=lambda key: _order(task, key))
    files = [path for key in ordered for path in _picture_files(results[key])]
    first = next((path for stem in TELLING for path in files if path.stem == stem), files[0] if files else None)
    thumbnail = _picture(first, width=THUMBNAIL_WIDTH) if first else None
    rows = [row for row, _ in headline.rows] if headline else []
    return Card(
        name=name,
        task=task.name,
        question=task.question,
        headline=headline_title(headline) if headline else "",
        value=number(rows[0]["value"]) if rows else "",
        interval=_interval_text(rows[0]) if rows else "",
        baselines=tuple(f"{row['method']}: {number(row['value'])}" for row in rows if _reference(row) == 1),
        note="" if headline else next(iter(missing), "No metric was written."),
        thumbnail=(thumbnail.still or thumbnail.source) if thumbnail else "",
        alt=thumbnail.alt if thumbnail else "",
    )


def headline_title(item: Judged) -> str:
    """``PSNR, ICVF (dB)``, and the group where it is of one."""
    people = "" if item.group == "all" else f", {item.group}"
    return f"{item.name}{f' ({item.unit})' if item.unit else ''}{people}"


def _interval_text(row: Mapping[str, Any]) -> str:
    if row["low"] is None or row["high"] is None:
        return ""
    people = f", {row['n_subjects']} people" if row["n_subjects"] else ""
    return f"95% CI {number(row['low'])} to {number(row['high'])}{people}"
