"""The metrics of a finished run as Markdown tables, and its pictures side by side.

python benchmarks/results.py results > docs/results_demo.md
python benchmarks/results.py results --picture docs/images/demo.png
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from collections import defaultdict
from pathlib import Path

from PIL import Image

from pipeline_lib.inference.pictures import save
from pipeline_lib.report.figures import figures_of

WIDTH = 1400
ORDER = ("anomaly", "synthesis", "generation", "translation")


def table(recipe: Path) -> str:
    """One table: metric, split, group, method, value with its interval, people, images."""
    rows = json.loads((recipe / "evaluation" / "metrics.json").read_text())
    lines = [
        "| metric | split | group | method | value | 95% CI | people | images |",
        "|---|---|---|---|---:|---|---:|---:|",
    ]
    for row in rows:
        if row["value"] is None:
            continue
        interval = "" if row["low"] is None else f"{number(row['low'])} to {number(row['high'])}"
        name = ", ".join(text for text in (row["name"], row["part"]) if text)
        name = f"{name} ({row['unit']})" if row["unit"] else name
        method = row["method"] if row["role"] == "result" else f"{row['role']}: {row['method']}"
        method += f", step {row['step']}" if row["step"] is not None else ""
        method += f" minus {row['against']}" if row["against"] else ""
        cells = [name, row["split"], row["group"], method, number(row["value"]), interval]
        lines.append("| " + " | ".join([*cells, str(row["people"] or ""), str(row["images"] or "")]) + " |")
    return "\n".join(lines)


def cost(results: Path) -> str:
    """One table: jobs of each rule, their seconds together, and the largest memory of any in MB."""
    jobs: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for path in sorted((results / "benchmarks").rglob("*.tsv")):
        with open(path, newline="") as file:
            row = next(csv.DictReader(file, delimiter="\t"))
        memory = float(row["max_rss"]) if row["max_rss"] not in ("-", "NA") else 0.0
        jobs[path.relative_to(results / "benchmarks").parts[0].removesuffix(".tsv")].append((float(row["s"]), memory))
    lines = ["| rule | jobs | seconds, all jobs | largest memory, MB |", "|---|---:|---:|---:|"]
    for rule, rows in jobs.items():
        seconds, memory = sum(s for s, _ in rows), max(m for _, m in rows)
        lines.append(f"| {rule} | {len(rows)} | {seconds:.0f} | {memory:.0f} |")
    return "\n".join(lines)


def number(value: float | None) -> str:
    """Three significant digits; a dash for what is not known."""
    return "-" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def picture(results: Path, out: Path) -> None:
    """The recipes' pictures in two columns, each below the shorter one."""
    recipes = {path.parent.parent.name for path in results.glob("*/*/provenance.json")}
    ordered = [name for name in ORDER if name in recipes] + sorted(recipes - set(ORDER))
    shown = [image for name in ordered if (image := _shown(results / name)) is not None]
    images = [image.convert("RGB") for image in shown]
    columns = min(2, len(images))
    width = WIDTH // max(1, columns)
    scaled = [image.resize((width, round(image.height * width / image.width))) for image in images]
    heights = [0] * columns
    places = []
    for image in scaled:
        column = heights.index(min(heights))
        places.append((column * width, heights[column]))
        heights[column] += image.height
    sheet = Image.new("RGB", (WIDTH, max(heights)), "white")
    for image, place in zip(scaled, places, strict=True):
        sheet.paste(image, place)
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(192).save(out, optimize=True)


def _shown(recipe: Path) -> Image.Image | None:
    """The samples of a recipe, or else the examples of its evaluation."""
    grid = recipe / "samples" / "grid.png"
    if grid.is_file():
        return Image.open(grid)
    if not (recipe / "evaluation").is_dir():
        return None
    figure = dict(figures_of(recipe / "evaluation")).get("examples")
    if figure is None:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        save(figure, Path(scratch) / "examples.png")
        with Image.open(Path(scratch) / "examples.png") as image:
            return image.copy()


def main() -> None:
    """Print the tables, or draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    if arguments.picture:
        picture(arguments.results, arguments.picture)
        return
    for path in sorted(arguments.results.glob("*/evaluation/metrics.json")):
        recipe = path.parent.parent
        print(f"## {recipe.name}\n\n{table(recipe)}\n")
    print(f"## Cost\n\n{cost(arguments.results)}")


if __name__ == "__main__":
    main()
