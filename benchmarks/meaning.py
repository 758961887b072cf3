"""What the conditions of a finished run mean: its samples and held-out people, measured by this version of the code.

python benchmarks/meaning.py results/ixi/generation --segmenter ventricles --out /tmp/meaning

Reads ``diffusion``, ``samples`` and ``dataset`` of the recipe's folder and changes nothing there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.evaluation.metric import read_metrics
from pipeline_lib.evaluation.synthesis import evaluate_synthesis
from pipeline_lib.files import read_json
from pipeline_lib.inference.counterfactual import make_counterfactuals


def main() -> None:
    """Make scans again under other conditions, evaluate, and print a row a metric."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a recipe's results")
    parser.add_argument("--segmenter", required=True, help="bundle of a segmenter")
    parser.add_argument(
        "--counterfactuals", type=int, default=16, help="held-out people made again under other conditions"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for what is written")
    arguments = parser.parse_args()
    model = read_json(arguments.run / "diffusion" / "model.json")
    options = read_json(arguments.run / "samples" / "provenance.json")["options"]
    sampling = {"counterfactuals": arguments.counterfactuals, **options["sampling"]}
    sampling.pop("checkpoints", None)
    known = {
        "data": model["data"],
        "diffusion": model["diffusion"],
        "denoiser": options["denoiser"],
        "sampling": sampling,
    }
    recipe = RecipeOptions.model_validate(
        {"task": "synthesis", **known, "evaluation": {"segmenter": arguments.segmenter}}
    )
    chunks = sorted(path.parent for path in (arguments.run / "dataset").glob("*/provenance.json"))
    train = [chunk for chunk in chunks if chunk.name.startswith("train")]
    held_out = [chunk for chunk in chunks if chunk not in train]
    counterfactuals, out = arguments.out / "counterfactuals", arguments.out / "evaluation"
    make_counterfactuals(recipe, arguments.run / "diffusion", held_out, counterfactuals)
    evaluate_synthesis(
        recipe, arguments.run / "diffusion", arguments.run / "samples", train, held_out, out, counterfactuals
    )
    for row in read_metrics(out):
        interval = [None if limit is None else round(limit, 3) for limit in (row.low, row.high)]
        print(json.dumps([row.name, row.part, row.group, row.role, row.method, row.against, row.value, *interval]))


if __name__ == "__main__":
    main()
