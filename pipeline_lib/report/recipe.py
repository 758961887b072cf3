"""One page per recipe: the verdict, pictures, numbers beside what they have to beat, training, people, methods."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from pipeline_lib.config.schema import CohortOptions, RecipeOptions
from pipeline_lib.dataset.conditions import Conditions
from pipeline_lib.dataset.image import MOST_OUTSIDE
from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.metric import REMARKS, Metric, best
from pipeline_lib.files import read_table
from pipeline_lib.inference.pictures import save
from pipeline_lib.report.captions import CAPTIONS, caption_of
from pipeline_lib.report.cases import Cases, cases_of, scan_pages
from pipeline_lib.report.curves import HISTORY, plots_of
from pipeline_lib.report.figures import data_of, figures_of
from pipeline_lib.report.film import films_of
from pipeline_lib.report.flow import Step, recipe_flow
from pipeline_lib.report.methods import recipe_methods
from pipeline_lib.report.page import THUMBNAIL_WIDTH, Picture, load_picture, number, read_provenance, write_page
from pipeline_lib.report.plots import Plot
from pipeline_lib.report.records import again, read_list, read_record
from pipeline_lib.report.run import as_yaml, seeds
from pipeline_lib.report.tables import download, packed, tsv
from pipeline_lib.report.verdict import (
    FEW_PEOPLE,
    RANK,
    Judged,
    Verdict,
    compared,
    headline,
    judged,
    metrics_of,
    verdict,
)
from pipeline_lib.state import without_run_time
from pipeline_lib.tasks import TASKS
from pipeline_lib.tasks.task import Task

PICTURE_SUFFIXES = {".png", ".gif", ".jpg", ".jpeg", ".webp"}
MOST_PICTURES = 12
MOST_ROWS = 1000
"""Of a table that a page carries beside a picture."""
TELLING = ("examples", "grid")
FEW_STEPS = 5_000
T = TypeVar("T")


@dataclass(frozen=True)
class Gallery:
    """The pictures and plots of one stage."""

    title: str
    pictures: tuple[Picture, ...]
    plots: tuple[Plot, ...]
    left_out: int
    folder: str


@dataclass(frozen=True)
class Embedding:
    """Points that the reader colours: names of the spaces and of the columns, and the table, see `packed`."""

    spaces: tuple[str, ...]
    columns: tuple[str, ...]
    points: int
    packed: str


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


MODEL = ("train_people", "train_scans", "train_images", "steps", "best_step")
"""What a page says of a trained network, from its ``model.json``."""


def read_model(folder: Path) -> dict[str, Any]:
    """``model.json`` of a trained network.

    Raises:
        UserError: it is damaged.
    """
    return read_record(folder / "model.json", MODEL)


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
    outcome: str
    verdict: str
    detail: str
    flow: tuple[Step, ...]
    seeds: tuple[tuple[str, int], ...]
    thumbnail: str
    alt: str


def write_recipe_page(
    name: str,
    recipe: RecipeOptions,
    cohort: CohortOptions,
    folders: Mapping[str, Path],
    out: Path,
    datasets: Sequence[Path] = (),
    from_nothing: Path | None = None,
) -> None:
    """Write the page of a recipe to the file ``out``.

    The page links to ``index.html`` in its own folder, and to pages of scans in ``scans/``.

    Args:
        name: the recipe's name in the configuration.
        recipe: its options, from which the methods text is written.
        cohort: name and note shown on the page.
        folders: the stage folders by name, for instance ``evaluation``, ``samples``, ``inference/test-anat-0000``,
            ``embedding``, ``diffusion``, ``autoencoder/image``. A folder with ``model.json`` is a trained network;
            PNG and GIF files of the others (also in their ``figures/``) are the pictures of the result.
        out: the HTML file.
        datasets: the recipe's packed chunks, which say who is in and who was left out.
        from_nothing: evaluation of the same recipe that did not start from a bundle, whose results stand beside these.
    """
    task = TASKS[recipe.task]
    networks = {key: folder for key, folder in folders.items() if (folder / "model.json").is_file()}
    results = {key: folder for key, folder in folders.items() if key not in networks}
    metrics = [row for folder in results.values() for row in metrics_of(folder)]
    metrics += _started_from_nothing(from_nothing)
    found = judged(metrics)
    chosen = headline(task.headline, found)
    missing = _missing(metrics)
    said = verdict(task, metrics, chosen, missing)
    remarks = [line for folder in results.values() for line in _remarks(folder)]
    trained = {key: _trained(task, key, folder) for key, folder in networks.items()}
    options = without_run_time(recipe.model_dump(mode="json"))
    flow = _flow(datasets, networks, frozen=recipe.weights is not None)
    made = [read_provenance(stage_title(task, key), folder) for key, folder in folders.items()]
    with _pictures_of(task, results) as pictures, _pictures_of(task, networks) as of_networks:
        write_page(
            out,
            "recipe.html",
            scripts=["shared.js", "page.js"],
            title=name,
            home="index.html",
            cohort=cohort,
            name=name,
            recipe=recipe,
            task=task,
            verdict=said,
            remarks=remarks,
            galleries=_galleries(task, pictures, results),
            films=films_of(results),
            embedding=_embedding(results),
            headline=chosen,
            judged=found,
            compared=compared(metrics),
            numbers=download(f"{name}_metrics.tsv", pd.DataFrame([asdict(row) for row in metrics]))
            if metrics
            else None,
            missing=missing,
            cases=_cases(results, chosen, datasets),
            curves=_galleries(task, of_networks, networks),
            trained=list(trained.values()),
            flow=flow,
            limits=[*task.limits, *_own_limits(_last(trained), metrics), *_cut_brains(networks)],
            methods=recipe_methods(recipe, _versions(recipe, networks)),
            configuration=as_yaml({"recipes": {name: options}}),
            seeds=seeds(options),
            provenance=[item for item in made if item],
            card=asdict(_card(name, task, chosen, said, remarks, pictures, flow, seeds(options))),
        )


def _started_from_nothing(evaluation: Path | None) -> list[Metric]:
    """Results of the same recipe from nothing at equal steps, as a reference."""
    rows = metrics_of(evaluation) if evaluation else []
    method = "the same from nothing, as many steps"
    return [replace(row, role="reference", method=method) for row in rows if row.role == "result" and not row.against]


def _remarks(folder: Path) -> list[str]:
    """What an evaluation says in plain words."""
    path = folder / REMARKS
    if not path.is_file():
        return []
    return [str(line) for line in read_list(path)]


def _versions(recipe: RecipeOptions, networks: Mapping[str, Path]) -> Mapping[str, str]:
    """With which versions the model was made: by the sidecar of its job, or, where it was only copied, by its plan."""
    name = "provenance.json" if recipe.weights is None else "model.json"
    folder = _last(networks)
    sidecar = folder / name if folder else None
    versions: dict[str, str] = read_record(sidecar).get("versions", {}) if sidecar and sidecar.is_file() else {}
    return versions


def _flow(datasets: Sequence[Path], networks: Mapping[str, Path], *, frozen: bool) -> list[Step]:
    """Who came from the cohort into the training of the model."""
    if not datasets:
        return []
    folder = _last(networks)
    return recipe_flow(datasets, read_model(folder) if folder else None, frozen=frozen)


def _last(networks: Mapping[str, T]) -> T | None:
    """The network that results come from: the denoiser, or the regression of a translation that draws nothing."""
    return networks.get("diffusion", networks.get("regression"))


def _cases(results: Mapping[str, Path], chosen: Judged | None, datasets: Sequence[Path]) -> Cases | None:
    folder = results.get("evaluation")
    return cases_of(folder, chosen, scan_pages(datasets)) if folder else None


def _embedding(results: Mapping[str, Path]) -> Embedding | None:
    """The points of the embedding stage; None where there is none.

    Raises:
        UserError: a point has no place.
    """
    folder = results.get("embedding")
    if folder is None or not (folder / "embedding.tsv").is_file():
        return None
    path = folder / "embedding.tsv"
    rows = read_table(path)
    names = list(rows[0]) if rows else []
    spaces = tuple(name.removesuffix("_x") for name in names if name.endswith("_x"))
    places = [f"{space}_{axis}" for space in spaces for axis in "xy"]
    rows = [row | _places(path, line, row, places) for line, row in enumerate(rows, start=2)]
    untold = {"scan", "participant", *places}
    told = [name for name in names if name not in untold and len({row[name] for row in rows}) > 1]
    return Embedding(spaces, tuple(told or ["split"]), len(rows), packed(tsv(names, rows)))


def _places(path: Path, line: int, row: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """The coordinates of a point, shortened."""
    found = {}
    for name in names:
        try:
            value = float(row[name])
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise UserError(
                f"{path}: line {line} ({row.get('scan') or 'no scan'}): {name} is {row[name] or 'blank'}, not a number; "
                f"{again(path)}"
            )
        found[name] = f"{value:.4g}"
    return found


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
            pictures[key] = _in_order([*picture_files(folder), *drawn])
        yield pictures


def picture_files(folder: Path) -> list[Path]:
    """The pictures that a stage wrote."""
    return [
        path
        for place in (folder, folder / "figures")
        if place.is_dir()
        for path in place.iterdir()
        if path.suffix.lower() in PICTURE_SUFFIXES
        and not (path.stem == "loss" and (folder / HISTORY).is_file())  # drawn from the table, which is sharper
    ]


def _in_order(files: Sequence[Path]) -> list[Path]:
    known = list(CAPTIONS)
    keys = {path: caption_of(path.stem) for path in files}
    return sorted(files, key=lambda path: (known.index(keys[path]) if keys[path] else len(known), path.name))


def _galleries(task: Task, pictures: Mapping[str, Sequence[Path]], folders: Mapping[str, Path]) -> list[Gallery]:
    galleries = []
    for key, files in pictures.items():
        plots = plots_of(folders[key], key.replace("/", "_"))
        if files or plots:
            shown = tuple(
                _with_table(_picture(path), folders[key], f"{key.replace('/', '_')}_{path.stem}")
                for path in files[:MOST_PICTURES]
            )
            more = max(0, len(files) - MOST_PICTURES)
            galleries.append(Gallery(stage_title(task, key), shown, tuple(plots), more, folders[key].name))
    return galleries


def _with_table(picture: Picture, folder: Path, name: str) -> Picture:
    """A picture with its data; a longer table is a file among the figures only."""
    table = data_of(folder, Path(picture.name).stem)
    return (
        replace(picture, table=download(f"{name}.tsv", table))
        if table is not None and len(table) <= MOST_ROWS
        else picture
    )


def _picture(path: Path, **size: int) -> Picture:
    if key := caption_of(path.stem):
        caption, alt = CAPTIONS[key]
        caption = f"Animation. {caption}" if path.suffix.lower() == ".gif" else caption
    else:
        words = path.stem.replace("_", " ").replace("-", " ")
        caption, alt = f"File {path.name}.", f"Picture of the result: {words}."
    return load_picture(path, alt=alt, caption=caption, **size)


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


def _trained(task: Task, key: str, folder: Path) -> Trained:
    model = read_model(folder)
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
    shares = [read_model(folder).get("brain_outside") or 0 for folder in networks.values()]
    if max(shares, default=0) <= MOST_OUTSIDE:
        return []
    return [
        f"The images leave out {max(shares):.1%} of the brain, the mean over training scans; nothing is learned or said "
        "of it. The log of the dataset stage names the data.size that holds all of it."
    ]


def _own_limits(last: Trained | None, metrics: Sequence[Metric]) -> list[str]:
    limits = []
    people = [row.people for row in metrics if row.split == "test" and row.people]
    if people and min(people) < FEW_PEOPLE:
        limits.append(
            f"At least one number rests on {min(people)} people only. Its interval is wide and a bootstrap over so few "
            "understates it."
        )
    if last and last.steps < FEW_STEPS:
        limits.append(
            f"The {last.title.lower()} was trained for {last.steps:,} steps only. This shows that the workflow "
            "runs; it does not show what the method can do."
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
    for item in judged([row for row in metrics if row.group == "all"]):
        rows = [row for row, _ in item.rows]
        floor, ceiling = (best(row for row in rows if row.role == role) for role in ("floor", "ceiling"))
        if floor is not None and ceiling is not None and floor.better(ceiling):
            crossed.append(f"{item.name}, {item.part}" if item.part else item.name)
    return crossed


def _card(
    name: str,
    task: Task,
    chosen: Judged | None,
    said: Verdict,
    remarks: Sequence[str],
    pictures: Mapping[str, Sequence[Path]],
    flow: Sequence[Step],
    seeded: Sequence[tuple[str, int]],
) -> Card:
    files = [path for of_stage in pictures.values() for path in of_stage]
    first = next((path for stem in TELLING for path in files if path.stem == stem), files[0] if files else None)
    thumbnail = _picture(first, width=THUMBNAIL_WIDTH) if first else None
    rows = [row for row, _ in chosen.rows] if chosen else []
    return Card(
        name=name,
        task=task.name,
        question=task.question,
        headline=chosen.title if chosen else "",
        value=number(rows[0].value) if rows else "",
        interval=_interval_text(rows[0]) if rows else "",
        baselines=tuple(f"{row.role}, {row.method}: {number(row.value)}" for row in rows if RANK[row.role] == 1),
        outcome=said.outcome,
        verdict=said.sentence,
        detail=" ".join(text for text in (said.detail, *remarks) if text),
        flow=tuple(flow),
        seeds=tuple(seeded),
        thumbnail=(thumbnail.still or thumbnail.source) if thumbnail else "",
        alt=thumbnail.alt if thumbnail else "",
    )


def _interval_text(row: Metric) -> str:
    if row.low is None or row.high is None:
        return ""
    people = f", {row.people} people" if row.people else ""
    return f"95% CI {number(row.low)} to {number(row.high)}{people}"
