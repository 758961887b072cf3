"""Use and judge on this machine what was trained on another: the inference and evaluation of each recipe's task.

    cat BACK/soop.tar.* | tar -C trained -x       # likewise ixi and noddi
    python benchmarks/device/evaluate.py soop --chunks CHUNKS --trained trained --out judged

CHUNKS has the folder of opened chunks (`travel.py open`), or the workflow's own packed chunks, of each cohort.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from pathlib import Path

from train import CONFIG, read_recipe

from pipeline_lib.stage import run
from pipeline_lib.tasks import TASKS
from pipeline_lib.training.latents import encode_chunk


def main() -> None:
    """Infer and evaluate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(path.stem for path in CONFIG.glob("*.yaml")))
    for folder in ("chunks", "trained", "out"):
        parser.add_argument(f"--{folder}", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true", help="what a rehearsal trained")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    recipe = read_recipe(given.name, tiny=given.tiny)
    chunks, trained, out = given.chunks / given.name, given.trained / given.name, given.out / given.name
    split = {name: sorted(chunks.glob(f"{name}-*")) for name in ("train", "validation", "test")}
    held_out = [*split["validation"], *split["test"]]
    diffusion = [trained / "diffusion"]

    def stage(name: str, inputs: Mapping[str, list[Path]], to: Path) -> Path:
        if not to.is_dir():
            run(TASKS[recipe.task].stage(name).function, recipe, inputs, to)
        return to

    if recipe.task == "generation":
        samples = stage("inference", {"diffusion": diffusion, "held_out": held_out}, out / "samples")
        judged = {"diffusion": diffusion, "samples": [samples], "train": split["train"], "held_out": held_out}
    elif recipe.task == "anomaly":
        standards = stage("standards", {"diffusion": diffusion, "train": split["train"]}, out / "standards")
        fixed = {"diffusion": diffusion, "standards": [standards]}
        inferred = [
            stage("inference", fixed | {"dataset": [chunk]}, out / "inference" / chunk.name) for chunk in held_out
        ]
        judged = fixed | {"inference": inferred, "datasets": held_out}
    else:
        autoencoders = {role: trained / role for role in ("source", "target")}
        floor = stage("floor", {"train": split["train"]}, out / "floor")
        inferred = []
        for chunk in held_out:
            latents = out / "latents" / chunk.name
            if not latents.is_dir():
                encode_chunk(autoencoders, chunk, latents)
            inputs = {"diffusion": diffusion, "autoencoders": list(autoencoders.values()), "floor": [floor],
                      "regression": [], "dataset": [chunk], "latents": [latents]}  # fmt: skip
            inferred.append(stage("inference", inputs, out / "inference" / chunk.name))
        judged = {"diffusion": diffusion, "inference": inferred, "datasets": held_out}
    print(stage("evaluation", judged, out / "evaluation"))


if __name__ == "__main__":
    main()
