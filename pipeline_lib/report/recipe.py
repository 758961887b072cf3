"""One page per recipe: pictures first, then numbers beside their baselines, training, people, methods."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline_lib.config.schema import CohortOptions, RecipeOptions
from pipeline_lib.dataset.conditions import Conditions
from pipeline_lib.dataset.grids import MOST_OUTSIDE
from pipeline_lib.evaluation.metric import Metric, Role, best, read_metrics
from pipeline_lib.files import read_json
from pipeline_lib.inference.pictures import save
from pipeline_lib.report.captions import CAPTIONS
from pipeline_lib.report.charts import Interval, intervals
from pipeline_lib.report.figures import figures_of
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
    part: str
    unit: str
    group: str
    rows: tuple[tuple[Metric, Interval], ...]


@dataclass(frozen=True)
class Compared:
    """The finished model minus another method, and which way the whole interval points."""

    metric: Metric
    verdict: str


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
    metrics = [row for folder in results.values() for row in read_metrics(folder)]
    judged = _judged(metrics)
    headline = _headline(task.headline, judged)
    trained = [_trained(task, key, folder) for key, folder in networks.items()]
    made = [read_provenance(stage_title(task, key), folder) for key, folder in folders.items()]
    with _pictures_of(task, results) as pictures, _pictures_of(task, networks) as of_networks:
        write_page(
            out,
            "recipe.html",
            title=name,
            home="index.html",
            cohort=cohort,
            name=name,
            recipe=recipe,
            task=task,
            galleries=_galleries(task, pictures, results),
            headline=headline,
            judged=judged,
            compared=_compared(metrics),
            missing=_missing(metrics),
            curves=_galleries(task, of_networks, networks),
            trained=trained,
            limits=[*task.limits, *_own_limits(task, trained, metrics), *_cut_brains(networks)],
            methods=recipe_methods(recipe),
            provenance=[item for item in made if item],
            card=asdict(_card(name, task, headline, pictures, _missing(metrics))),
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


@contextmanager
def _pictures_of(task: Task, folders: Mapping[str, Path]) -> Iterator[dict[str, list[Path]]]:
    """The pictures of each stage in the order shown: those it wrote, and the figures drawn from its tables."""
    with tempfile.TemporaryDirectory() as scratch:
        pictures = {}
        for key, folder in sorted(folders.items(), key=lambda item: _order(task, item[0])):
            drawn = []
            for stem, figure in figures_of(folder):
                drawn.append(Path(scratch) / key.replace("/", "-") / f"{stem}.png")
                save(figure, drawn[-1])
            pictures[key] = _in_order([*_picture_files(folder), *drawn])
        yield pictures


def _picture_files(folder: Path) -> list[Path]:
    return [
        path
        for place in (folder, folder / "figures")
        if place.is_dir()
        for path in place.iterdir()
        if path.suffix.lower() in PICTURE_SUFFIXES
    ]


def _in_order(files: Sequence[Path]) -> list[Path]:
    known = list(CAPTIONS)
    return sorted(files, key=lambda path: (known.index(path.stem) if path.stem in known else len(known), path.name))


def _galleries(task: Task, pictures: Mapping[str, Sequence[Path]], folders: Mapping[str, Path]) -> list[Gallery]:
    return [
        Gallery(
            stage_title(task, key),
            tuple(_picture(path) for path in files[:MOST_PICTURES]),
            max(0, len(files) - MOST_PICTURES),
            folders[key].name,
        )
        for key, files in pictures.items()
        if files
    ]


def _picture(path: Path, **size: int) -> Picture:
    if path.stem in CAPTIONS:
        caption, alt = CAPTIONS[path.stem]
        caption = f"Animation. {caption}" if path.suffix.lower() == ".gif" else caption
    else:
        words = path.stem.replace("_", " ").replace("-", " ")
        caption, alt = f"File {path.name}.", f"Picture of the result: {words}."
    return load_picture(path, alt=alt, caption=caption, **size)


RANK: dict[Role, int] = {"result": 0, "baseline": 1, "floor": 1, "ceiling": 1, "reference": 1, "checkpoint": 2}
"""The finished model, then what it is held against, then its checkpoints."""


def _judged(metrics: Sequence[Metric]) -> list[Judged]:
    """Metrics with at least one value; what a method is held against shares its axis."""
    together: dict[tuple[str, str, str, str], list[Metric]] = {}
    for row in metrics:
        if not row.against:
            together.setdefault((row.name, row.part, row.unit, row.group), []).append(row)
    judged = []
    for key, rows in together.items():
        if any(row.value is not None for row in rows):
            rows = sorted(rows, key=lambda row: RANK[row.role])
            judged.append(Judged(*key, tuple(zip(rows, intervals([_triple(row) for row in rows]), strict=True))))
    return judged


def _compared(metrics: Sequence[Metric]) -> list[Compared]:
    """Differences of the finished model to what it is held against, over all groups."""
    rows = [row for row in metrics if row.against and row.value is not None and row.group == "all"]
    return [Compared(row, _verdict(row)) for row in rows]


def _verdict(row: Metric) -> str:
    """Better or worse where the whole interval lies on one side of 0, undecided elsewhere."""
    if row.low is None or row.high is None or row.low <= 0 <= row.high or row.direction == "neither":
        return "undecided"
    return "better" if (row.low > 0) == (row.direction == "higher") else "worse"


def _missing(metrics: Sequence[Metric]) -> list[str]:
    """What could not be computed for any method, and why: a line for each reason, the people in brackets."""
    valued = {(row.name, row.part, row.group) for row in metrics if row.value is not None}
    missing = {(row.name, row.part, row.group): row.note or "no reason given" for row in metrics}
    reasons: dict[str, dict[str, None]] = {}
    for (name, part, group), reason in missing.items():
        if (name, part, group) in valued or (group != "all" and missing.get((name, part, "all")) == reason):
            continue
        about = ", ".join(text for text in (part, "" if group == "all" else group) if text)
        reasons.setdefault(reason, {})[f"{name} ({about})" if about else name] = None
    return [f"{', '.join(names)}: {reason}" for reason, names in reasons.items()]


def _triple(row: Metric) -> tuple[float, float, float]:
    value, low, high = (math.nan if end is None else float(end) for end in (row.value, row.low, row.high))
    return value, low, high


def _headline(preferred: Sequence[str], judged: Sequence[Judged]) -> Judged | None:
    """The task's own metric, over all groups where possible; None where it could not be computed."""
    wanted = [name.lower() for name in preferred]
    ranked = [
        ((wanted.index(item.name.lower()), item.group != "all"), item)
        for item in judged
        if item.name.lower() in wanted and item.rows[0][0].value is not None
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


def _own_limits(task: Task, trained: Sequence[Trained], metrics: Sequence[Metric]) -> list[str]:
    limits = []
    people = [row.people for row in metrics if row.split == "test" and row.people]
    if people and min(people) < FEW_PEOPLE:
        limits.append(
            f"At least one number rests on {min(people)} people only. Its interval is wide and a bootstrap over so few "
            "understates it."
        )
    steps = min((each.steps for each in trained if each.title == stage_title(task, "diffusion")), default=FEW_STEPS)
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


def _crossed_bounds(metrics: Sequence[Metric]) -> list[str]:
    """Metrics, over all groups, whose ceiling is worse than their floor."""
    crossed = []
    for item in _judged([row for row in metrics if row.group == "all"]):
        rows = [row for row, _ in item.rows]
        floor, ceiling = (best(row for row in rows if row.role == role) for role in ("floor", "ceiling"))
        if floor is not None and ceiling is not None and floor.better(ceiling):
            crossed.append(f"{item.name}, {item.part}" if item.part else item.name)
    return crossed


def _card(
    name: str, task: Task, headline: Judged | None, pictures: Mapping[str, Sequence[Path]], missing: Sequence[str]
) -> Card:
    files = [path for of_stage in pictures.values() for path in of_stage]
    first = next((path for stem in TELLING for path in files if path.stem == stem), files[0] if files else None)
    thumbnail = _picture(first, width=THUMBNAIL_WIDTH) if first else None
    rows = [row for row, _ in headline.rows] if headline else []
    return Card(
        name=name,
        task=task.name,
        question=task.question,
        headline=headline_title(headline) if headline else "",
        value=number(rows[0].value) if rows else "",
        interval=_interval_text(rows[0]) if rows else "",
        baselines=tuple(f"{row.role}, {row.method}: {number(row.value)}" for row in rows if RANK[row.role] == 1),
        note="" if headline else next(iter(missing), "No metric was written."),
        thumbnail=(thumbnail.still or thumbnail.source) if thumbnail else "",
        alt=thumbnail.alt if thumbnail else "",
    )


def headline_title(item: Judged) -> str:
    """``PSNR, ICVF (dB)``, and the group where it is of one."""
    named = ", ".join(text for text in (item.name, item.part, "" if item.group == "all" else item.group) if text)
    return f"{named} ({item.unit})" if item.unit else named


def _interval_text(row: Metric) -> str:
    if row.low is None or row.high is None:
        return ""
    people = f", {row.people} people" if row.people else ""
    return f"95% CI {number(row.low)} to {number(row.high)}{people}"
