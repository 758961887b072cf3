"""Which implanted lesions an anomaly recipe finds on people who have none: by size, contrast and sign, as Markdown.

    python benchmarks/implanted.py config/ixi.yaml results/ixi anomaly WORK --write docs/results_anomaly.md --picture docs/images/implanted.png

Every validation and test person gets one lesion, the same place and shape in all of a size: an ellipsoid with a soft border, flat, without
texture, unlike those drawn in training. The floors are told whether lesions are dark or bright, the model is not. WORK
keeps chunks and metrics of each cell of the table: what is there is not made again.
"""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline_lib.config.load import read_config
from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.dataset.index import read_index
from pipeline_lib.evaluation.anomaly import evaluate_anomaly
from pipeline_lib.files import read_json, write_text
from pipeline_lib.inference.anomaly import infer_anomaly
from pipeline_lib.inference.geometry import voxel_size
from pipeline_lib.inference.standards import measure_standards

START, END = "<!-- implanted: start -->", "<!-- implanted: end -->"
RADII_MM = (4.0, 7.0, 11.0)
CONTRASTS = (0.2, 0.4)
"""Of the range of intensities that an image has, which is 2."""
COLOURS = ("#7a9ec2", "#b3401f")
"""Of each contrast in the picture."""
BORDER_MM = 1.0
STRETCH = 0.3
"""Largest change of the log of an axis."""


@dataclass(frozen=True)
class Lesions:
    """What is put in: sign, radius in mm, and contrast."""

    bright: bool
    radius: float
    contrast: float

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{'bright' if self.bright else 'dark'}-{self.radius:g}mm-{self.contrast:g}"

    def into(
        self, images: NDArray[np.float32], brain: NDArray[np.bool_], voxel: NDArray[np.float64], seed: int
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """A person's slices ``(Z, H, W)`` with a lesion within the brain, and its mask."""
        random = np.random.default_rng([seed, round(10 * self.radius)])
        inside = np.argwhere(brain)
        axes = self.radius * np.exp(random.uniform(-STRETCH, STRETCH, 3))
        places = (np.indices(brain.shape) * voxel[:, None, None, None]).astype(np.float32)
        while True:
            centre = inside[random.integers(len(inside))] * voxel
            away = np.sqrt(sum(((places[n] - centre[n]) / axes[n]) ** 2 for n in range(3)))
            lesion = away < 1
            if brain[lesion].mean() > 0.95:
                break
        weight = 1 / (1 + np.exp((away - 1) * self.radius / BORDER_MM))
        change = (1 if self.bright else -1) * 2 * self.contrast * weight * brain
        return np.clip(images + change, -1, 1).astype(np.float32), lesion & brain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("results", type=Path, help="cohort.results of that configuration")
    parser.add_argument("recipe")
    parser.add_argument("work", type=Path)
    parser.add_argument("--every", type=int, default=3, help="take each so manieth slice of a person")
    parser.add_argument("--write", type=Path, help="the page whose table is replaced")
    parser.add_argument("--picture", type=Path, help="the table as curves over the radius")
    arguments = parser.parse_args()
    recipe = read_config(arguments.config).recipes[arguments.recipe]
    folder = arguments.results / arguments.recipe
    cells = [
        Lesions(bright, radius, contrast) for bright in (False, True) for radius in RADII_MM for contrast in CONTRASTS
    ]
    text = table([cell(recipe, folder, lesions, arguments.work, arguments.every) for lesions in cells])
    print(text)
    if arguments.write:
        page = arguments.write.read_text(encoding="utf-8")
        pattern = f"{re.escape(START)}.*?{re.escape(END)}"
        write_text(arguments.write, re.sub(pattern, lambda _: f"{START}\n{text}{END}", page, flags=re.DOTALL))
    if arguments.picture:
        curves(arguments.work).savefig(arguments.picture, dpi=110)


def cell(recipe: RecipeOptions, folder: Path, lesions: Lesions, work: Path, every: int) -> dict[str, str]:
    """One row of the table: what the recipe reaches on these lesions, and its floors."""
    signed = with_sign(recipe, "bright" if lesions.bright else "dark")
    standards = work / ("bright" if lesions.bright else "dark")
    train = sorted(path for path in (folder / "dataset").glob("train-*") if path.is_dir())
    if not standards.is_dir():
        measure_standards(signed, folder / "diffusion", train, standards)
    here = work / lesions.name
    if not (here / "evaluation").is_dir():
        shutil.rmtree(here, ignore_errors=True)
        for chunk in sorted((folder / "dataset").glob("*")):
            if chunk.is_dir() and chunk.name.startswith(("validation-", "test-")):
                implant(chunk, here / "dataset" / chunk.name, lesions, every)
                infer_anomaly(
                    signed,
                    folder / "diffusion",
                    standards,
                    here / "dataset" / chunk.name,
                    here / "inference" / chunk.name,
                )
        evaluate_anomaly(
            signed,
            folder / "diffusion",
            sorted((here / "inference").iterdir()),
            sorted((here / "dataset").iterdir()),
            standards,
            here / "evaluation",
        )
    return {
        "lesion": "bright" if lesions.bright else "dark",
        "radius (mm)": f"{lesions.radius:g}",
        "contrast": f"{lesions.contrast:g}",
        **dict(figures(here / "evaluation")),
    }


def with_sign(recipe: RecipeOptions, lesions: str) -> RecipeOptions:
    """The recipe, whose floors look for bright or for dark lesions."""
    values = recipe.model_dump(exclude_unset=True)
    evaluation = values.get("evaluation", {})
    values["evaluation"] = evaluation | {"score": evaluation.get("score", {}) | {"lesions": lesions}}
    return RecipeOptions.model_validate(values)


def implant(chunk: Path, out: Path, lesions: Lesions, every: int) -> None:
    """Write a packed chunk with each so manieth slice and a lesion in each person."""
    index = read_index(chunk).reset_index(drop=True)
    data, mask = np.load(chunk / "data.npy"), np.load(chunk / "mask.npy")
    lesion = np.zeros_like(mask)
    for person, rows in index.groupby("scan").groups.items():
        at = np.asarray(rows)
        between = abs(float(index["slice"].iloc[at[1]]) - float(index["slice"].iloc[at[0]]))
        voxel = np.array([between, *[voxel_size(index.iloc[at])] * 2])
        data[at, 0], lesion[at, 0] = lesions.into(data[at, 0], mask[at, 0] > 0, voxel, crc32(str(person).encode()))
    kept = np.flatnonzero(index.groupby("scan").cumcount().to_numpy() % every == 0)
    out.mkdir(parents=True)
    for name in ("layout.json", "prepared.json"):
        shutil.copyfile(chunk / name, out / name)
    for name, array in (("data", data), ("mask", mask), ("lesion", lesion)):
        np.save(out / f"{name}.npy", array[kept])
    index = index.iloc[kept].assign(lesion="mask", has_lesion=[bool(lesion[row].any()) for row in kept])
    index.to_csv(out / "index.tsv", sep="\t", index=False)


def figures(evaluation: Path) -> Iterator[tuple[str, str]]:
    """Pixel AP of the recipe and of each floor, and its difference to the best floor with its interval."""
    found = precisions(evaluation)
    levels = {row["method"]: row for row in found if not row["against"]}
    for row in levels.values():
        yield row["method"], f"{row['value']:.3f}"
    best = best_floor(found)
    (paired,) = [row for row in found if row["against"] == best["method"]]
    yield "minus the best floor", f"{paired['value']:+.3f} [{paired['low']:.3f}, {paired['high']:.3f}]"


def precisions(evaluation: Path) -> list[dict[str, Any]]:
    """Rows of the pixel AP of all people: levels and paired differences."""
    wanted = ("pixel AP", "all", "")
    return [row for row in read_json(evaluation / "metrics.json") if (row["name"], row["group"], row["part"]) == wanted]


def best_floor(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The row of the floor of the highest AP."""
    return max((row for row in found if row["role"] == "floor"), key=lambda row: row["value"])


def curves(work: Path) -> Figure:
    """Pixel AP of the recipe with its interval, and of the best floor, over the radius: a panel a sign, a colour a contrast."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    for axis, bright in zip(figure.subplots(1, 2, sharey=True), (False, True), strict=True):
        for contrast, colour in zip(CONTRASTS, COLOURS, strict=True):
            found = [precisions(work / Lesions(bright, radius, contrast).name / "evaluation") for radius in RADII_MM]
            results = [next(row for row in rows if row["role"] == "result" and not row["against"]) for rows in found]
            value, low, high = (np.array([row[key] for row in results]) for key in ("value", "low", "high"))
            axis.plot(RADII_MM, value, "o-", color=colour, label=f"network, contrast {contrast:g}")
            axis.vlines(RADII_MM, low, high, color=colour, linewidth=1)
            floors = [best_floor(rows)["value"] for rows in found]
            axis.plot(RADII_MM, floors, "s--", color=colour, label=f"best floor, contrast {contrast:g}", markersize=4)
        axis.set(title=f"{'bright' if bright else 'dark'} lesions", xlabel="radius (mm)", xticks=RADII_MM, ylim=(0, 1))
        axis.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("AP over pixels")
    lines, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(lines, names, frameon=False, loc="outside lower center", ncols=4, fontsize=8)
    return figure


def table(rows: list[dict[str, str]]) -> str:
    """As Markdown."""
    return f"{pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)}\n"


if __name__ == "__main__":
    main()
