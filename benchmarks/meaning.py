"""What the conditions of a finished run mean: its samples and held-out people, measured by this version of the code.

python benchmarks/meaning.py results/ixi/generation --segmenter ventricles --out meaning
python benchmarks/meaning.py results/ixi/generation --segmenter ventricles --out control --control

Reads ``diffusion``, ``samples`` and ``dataset`` of the recipe's folder and changes nothing there. With ``--control`` validation
people stand in for samples and test people for held-out ones: what a perfect model would get, and how wide intervals are.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.evaluation.features import RANDOM, feature_network
from pipeline_lib.evaluation.meaning import measure_meaning
from pipeline_lib.evaluation.metric import Metric, read_metrics, write_metrics
from pipeline_lib.evaluation.sets import read_real
from pipeline_lib.evaluation.synthesis import evaluate_synthesis
from pipeline_lib.files import read_json
from pipeline_lib.inference.counterfactual import make_counterfactuals


def of_run(run: Path, chunks: Sequence[Path], segmenter: str, people: int, out: Path) -> None:
    """Make scans of held-out people again under other conditions, and evaluate these and the samples."""
    model = read_json(run / "diffusion" / "model.json")
    options = read_json(run / "samples" / "provenance.json")["options"]
    sampling = {"counterfactuals": people, **options["sampling"]}
    sampling.pop("checkpoints", None)
    known = {name: model[name] for name in ("data", "diffusion")} | {"denoiser": options["denoiser"]}
    recipe = RecipeOptions.model_validate(
        {"task": "synthesis", **known, "sampling": sampling, "evaluation": {"segmenter": segmenter}}
    )
    train = [chunk for chunk in chunks if chunk.name.startswith("train")]
    held_out = [chunk for chunk in chunks if chunk not in train]
    make_counterfactuals(recipe, run / "diffusion", held_out, out / "counterfactuals")
    evaluate_synthesis(
        recipe, run / "diffusion", run / "samples", train, held_out, out / "evaluation", out / "counterfactuals"
    )


def of_people(chunks: Sequence[Path], segmenter: str, out: Path) -> None:
    """Validation people as samples, test people as held-out ones."""
    recipe = RecipeOptions.model_validate({"task": "generation", "evaluation": {"segmenter": segmenter}})
    network = feature_network(RANDOM, dimensions=2, channels=1)
    train, validation, test = (
        read_real([chunk for chunk in chunks if chunk.name.startswith(split)], network, [])
        for split in ("train", "validation", "test")
    )
    held_out = [chunk for chunk in chunks if chunk.name.startswith("test")]
    samples = validation.index[["participant", "group", "age", "slice"]].rename(columns={"participant": "id"})
    samples["seed"] = samples["id"]
    images = validation.images[np.arange(len(samples))]
    result = Metric("", None, method="validation people", split="held-out")
    metrics, tables, _ = measure_meaning(recipe, train, test, images, validation.features, samples, held_out, result)
    (out / "evaluation").mkdir(parents=True, exist_ok=True)
    write_metrics(out / "evaluation", metrics, pd.DataFrame())
    for name, rows in tables.items():
        rows.to_csv(out / "evaluation" / name, sep="\t", index=False)


def main() -> None:
    """Measure, and print a row a metric."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a recipe's results")
    parser.add_argument("--segmenter", required=True, help="bundle of a segmenter")
    parser.add_argument("--counterfactuals", type=int, default=16, help="people made again under other conditions")
    parser.add_argument("--control", action="store_true", help="people in place of samples")
    parser.add_argument("--out", type=Path, required=True, help="folder for what is written")
    arguments = parser.parse_args()
    chunks = sorted(path.parent for path in (arguments.run / "dataset").glob("*/provenance.json"))
    if arguments.control:
        of_people(chunks, arguments.segmenter, arguments.out)
    else:
        of_run(arguments.run, chunks, arguments.segmenter, arguments.counterfactuals, arguments.out)
    for row in read_metrics(arguments.out / "evaluation"):
        interval = [None if limit is None else round(limit, 3) for limit in (row.low, row.high)]
        value = None if row.value is None else round(row.value, 4)
        print(json.dumps([row.name, row.part, row.group, row.method, row.against, value, *interval, row.people]))


if __name__ == "__main__":
    main()
