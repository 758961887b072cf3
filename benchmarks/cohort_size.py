"""KID of a generator over the number of people it learned from, from nothing and from a bundle, at equal steps.

python benchmarks/cohort_size.py results/ixi/generation/dataset --people 10 20 40 68 --steps 700 --out size
python benchmarks/cohort_size.py results/ixi/generation/dataset --people 5 10 15 --steps 700 --start generator-t1 --out size

Learns from people of the training and validation chunks, in an order drawn once, so that the fewer are among the more; judges
128 samples of the averaged network beside the test people, whom nobody has learned from. People whom the bundle has seen are left out
of its runs, and of a run from nothing with ``--unlike BUNDLE``, so that both can be had on the same people. Network and training are
those of `generation` in config/ixi.yaml. A training that was stopped goes on; a row that is there is not made again. Writes
``kid.tsv`` and ``kid.png`` and prints the table.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline_lib.bundle_plan import content_of, find_bundle, read_plan, starting_place
from pipeline_lib.config.fine_tuning import fine_tuned
from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.dataset.people import refuse_trained_people
from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.generation import evaluate_generation
from pipeline_lib.files import atomic_directory, read_json
from pipeline_lib.inference.generation import sample_generation
from pipeline_lib.training.denoiser import train_denoiser

CHECKOUT = Path(__file__).resolve().parents[1]
SAMPLES = 128
FEATURES = "ventricles-t1"
"""By which sets are compared: random convolutions hardly tell anatomy from texture."""
SHOWN = ("KID", "FID", "precision", "recall", "share of suspected copies")


def recipe_of(steps: int, start: str) -> RecipeOptions:
    """`generation` of config/ixi.yaml for so many steps; from a bundle with the rate and warm-up that this has."""
    written: dict[str, Any] = yaml.safe_load((CHECKOUT / "config" / "ixi.yaml").read_text())["recipes"]["generation"]
    denoiser = dict(written["denoiser"])
    training = {**denoiser["training"], "steps": steps, "validate_every": steps, "checkpoint_every": 100}
    if start:
        training = {key: value for key, value in training.items() if key not in ("learning_rate", "warmup")}
        denoiser["start_from"] = start
    sampling = {**written["sampling"], "count": SAMPLES, "checkpoints": 1}
    judged = {**written.get("evaluation", {}), "features": FEATURES}
    recipe = {**written, "denoiser": {**denoiser, "training": training}, "sampling": sampling, "evaluation": judged}
    filled = fine_tuned({"generation": recipe})["generation"]
    if start:
        filled["denoiser"]["start_from"] = content_of(starting_place(start, "denoiser"))
    return RecipeOptions.model_validate(filled)


def pool_of(chunks: Sequence[Path], unlike: str) -> list[str]:
    """Who may be learned from, in the order in which they join: nobody whom the bundle ``unlike`` has seen."""
    index = pd.concat(
        [pd.read_csv(chunk / "index.tsv", sep="\t", dtype=str, keep_default_na=False) for chunk in chunks]
    )
    if unlike:
        index = refuse_trained_people(index.reset_index(drop=True), read_plan(find_bundle(unlike)))
    people = sorted(set(index["participant"]))
    return [str(name) for name in np.random.default_rng(0).permutation(people)]


def subset(chunks: Sequence[Path], people: Sequence[str], out: Path) -> None:
    """A packed chunk with the images of these people."""
    if out.is_dir():
        return
    indices = [pd.read_csv(chunk / "index.tsv", sep="\t", dtype=str, keep_default_na=False) for chunk in chunks]
    rows = [index["participant"].isin(list(people)).to_numpy() for index in indices]
    with atomic_directory(out) as folder:
        for name in ("data", "mask"):
            parts: list[NDArray[Any]] = [
                np.load(chunk / f"{name}.npy", mmap_mode="r")[own] for chunk, own in zip(chunks, rows, strict=True)
            ]
            np.save(folder / f"{name}.npy", np.concatenate(parts))
        kept = pd.concat([index[own] for index, own in zip(indices, rows, strict=True)])
        kept.to_csv(folder / "index.tsv", sep="\t", index=False)
        for name in ("layout.json", "prepared.json"):
            shutil.copyfile(chunks[0] / name, folder / name)


def measured(dataset: Path, people: int, steps: int, start: str, unlike: str, out: Path) -> dict[str, Any]:
    """A row of the table: train on so many people, sample, judge."""
    learned, held_out = (sorted(path for split in splits for path in dataset.glob(f"{split}-anat-*")) for splits in (
        ("train", "validation"), ("test",)))  # fmt: skip
    names = pool_of(learned, start or unlike)
    if people > len(names):
        raise UserError(f"{dataset}: {people} people are asked for, {len(names)} may be learned from")
    arm = start or (f"nothing, without those of {unlike}" if unlike else "nothing")
    run = out / f"{people:03d}-{steps}-{arm.replace(' ', '_').replace(',', '')}"
    chunk, recipe = run / "train-anat-0001", recipe_of(steps, start)
    subset(learned, names[:people], chunk)
    if not (run / "diffusion").is_dir():
        train_denoiser(
            recipe,
            [chunk],
            [],
            run / "diffusion",
            run / "state",
            {},
            name=f"{people} people from {arm}",
            start_from=start,
        )
    if not (run / "samples").is_dir():
        sample_generation(recipe, run / "diffusion", held_out, run / "samples")
    if not (run / "evaluation").is_dir():
        # All who may be learned from: features are in units of their spread, the same for each number of people.
        evaluate_generation(recipe, run / "diffusion", run / "samples", learned, held_out, run / "evaluation")
    rows = [
        row for row in read_json(run / "evaluation" / "metrics.json") if row["group"] == "all" and not row["against"]
    ]
    found: dict[str, Any] = {"start": arm, "people": people, "steps": steps}
    for row in rows:
        if row["role"] == "result" and row["name"] in SHOWN:
            found |= {row["name"]: row["value"], f"{row['name']} low": row["low"], f"{row['name']} high": row["high"]}
        if row["role"] == "floor" and row["name"] == "KID":
            found["floor"] = row["value"]
    return found


def draw(table: pd.DataFrame, path: Path) -> None:
    """KID over people, a line a start, beside half of the test people against half."""
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axis = figure.subplots()
    for start, own in table.groupby("start"):
        own = own.sort_values("people")
        errors = np.abs(own[["KID low", "KID high"]].to_numpy(dtype=float).T - own["KID"].to_numpy(dtype=float))
        axis.errorbar(own["people"], own["KID"], errors, marker="o", capsize=3, label=f"from {start}")
    axis.axhline(
        float(table["floor"].mean()), color="black", linewidth=0.7, linestyle="--", label="people against people"
    )
    axis.set_xlabel("people learned from")
    axis.set_ylabel("KID x 1,000 (segmenter)")
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Make the rows that are asked for, and print all there are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="packed chunks of config/ixi.yaml's generation")
    parser.add_argument("--people", type=int, nargs="+", required=True)
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--start", default="", help="a bundle; nothing unless given")
    parser.add_argument("--unlike", default="", help="leave out people of this bundle, though nothing is started from")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    given.out.mkdir(parents=True, exist_ok=True)
    for people in given.people:
        try:
            row = measured(given.dataset, people, given.steps, given.start, given.unlike, given.out)
        except UserError as error:
            parser.exit(1, f"{error}\n")
        with open(given.out / "rows.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    rows = [json.loads(line) for line in (given.out / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    table = (
        pd.DataFrame(rows).drop_duplicates(["start", "people", "steps"], keep="last").sort_values(["start", "people"])
    )
    table.to_csv(given.out / "kid.tsv", sep="\t", index=False)
    draw(table, given.out / "kid.png")
    print("| from | people | KID x 1,000 | FID | precision | recall | suspected copies | floor, KID x 1,000 |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for row in table.to_dict("records"):
        cells = [f"{row[name]:.2f} [{row[f'{name} low']:.2f}, {row[f'{name} high']:.2f}]" for name in SHOWN]
        print(f"| {row['start']} | {row['people']} | {' | '.join(cells)} | {row['floor']:.2f} |")


if __name__ == "__main__":
    main()
