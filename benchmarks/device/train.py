"""Train the recipe of one cohort for so many seconds, and leave what comes back: bundles of 16 bits, curves, pictures.

    python benchmarks/device/train.py ixi --seconds 300 --chunks CHUNKS --work WORK --back BACK

CHUNKS has a folder of opened chunks (`travel.py open`) for each cohort. How many steps fit is found by a trial of the
same training, so that the learning rate reaches zero in time. Everything runs by the workflow's own scripts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from travel import halve

from pipeline_lib.code import code_hash
from pipeline_lib.config.part import recipe_part
from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.tasks import TASKS

CHECKOUT = Path(__file__).resolve().parents[2]
SCRIPTS = CHECKOUT / "workflow" / "scripts"
CONFIG = Path(__file__).resolve().parent / "config"
TRIAL = 60
"""Steps of the trial, of which the later half is timed."""
SHARE = 0.75
"""Of the seconds, planned with: other trainings on the same card, validation, pictures and writing take some too."""
TINY: Mapping[str, Any] = {
    "steps": 8, "batch_size": 2, "warmup": 1, "precision": "float32", "workers": 0, "validate_every": 4, "checkpoint_every": 4,
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One cohort's recipe, and where its things are."""

    name: str
    recipe: RecipeOptions
    chunks: Path
    work: Path
    back: Path

    def of(self, split: str, folder: Path | None = None) -> list[str]:
        """The chunks of a split."""
        return [str(path) for path in sorted((folder or self.chunks).glob(f"{split}-*"))]

    def script(
        self, script: str, stage: str, *arguments: object, out: Path, recipe: RecipeOptions | None = None
    ) -> None:
        """Run a script of the workflow with its part of the recipe."""
        task = TASKS[self.recipe.task]
        command = [
            sys.executable, SCRIPTS / f"{script}.py", "--out", out, "--log", self.back / "logs" / f"{self.name}-{out.name}.log",
            "--options", recipe_part(recipe or self.recipe, task.stage(stage).reads), "--threads", "4",
            "--code", code_hash(SCRIPTS / f"{script}.py"), *arguments,
        ]  # fmt: skip
        subprocess.run([str(part) for part in command], check=True)

    def train(self, script: str, section: str, seconds: float, *arguments: object, out: Path) -> None:
        """Train one network: a trial, then as many steps as fit; its half-size bundle goes back at once."""
        began = time.monotonic()
        stage = "denoiser" if section == "denoiser" else "autoencoder"
        chosen = getattr(self.recipe, section).training
        shared = ("--recipe", self.name, "--state", self.work / "state", "--licence", "", *arguments)

        trial = min(TRIAL, chosen.steps)
        short = changed(self.recipe, section, {"steps": trial, "validate_every": trial, "checkpoint_every": trial})
        self.script(script, stage, *shared, out=self.work / "trial" / out.name, recipe=short)
        history = pd.read_csv(self.work / "trial" / out.name / "history.csv")
        half = history[history["step"] >= trial // 2]
        each = (half["seconds"].iloc[-1] - half["seconds"].iloc[0]) / max(
            1, half["step"].iloc[-1] - half["step"].iloc[0]
        )

        left = SHARE * (seconds - (time.monotonic() - began))
        steps = max(trial, min(chosen.steps, int(left / max(each, 1e-4))))
        print(f"{self.name} {out.name}: {each:.4f} s a step in the trial, {left:.0f} s left: {steps} steps", flush=True)
        spread = {"steps": steps, "warmup": min(chosen.warmup, steps // 10), "validate_every": max(1, steps // 20)}
        if section == "autoencoder":
            spread["adversarial_start"] = steps // 2
        self.script(script, stage, *shared, out=out, recipe=changed(self.recipe, section, spread))
        halve(out, self.back / self.name / out.name)
        print(f"{self.name} {out.name}: {steps} steps, {time.monotonic() - began:.0f} s in all", flush=True)


def changed(recipe: RecipeOptions, section: str, options: Mapping[str, Any]) -> RecipeOptions:
    """The recipe with other options of a network, and of its training."""
    network = getattr(recipe, section)
    own = {key: value for key, value in options.items() if key in type(network).model_fields}
    rest = {key: value for key, value in options.items() if key not in own}
    training = network.training.model_copy(update=rest)
    return recipe.model_copy(update={section: network.model_copy(update={**own, "training": training})})


def read_recipe(name: str, *, tiny: bool) -> RecipeOptions:
    """The recipe of a cohort; tiny: of few steps and small networks, for a rehearsal."""
    (written,) = yaml.safe_load((CONFIG / f"{name}.yaml").read_text())["recipes"].values()
    recipe = RecipeOptions.model_validate(written)
    if not tiny:
        return recipe
    sections = ["denoiser"] if recipe.autoencoder is None else ["autoencoder", "denoiser"]
    for section in sections:
        small: dict[str, Any] = {"channels": [8, 16], "blocks": 1, "fold": 4 if recipe.data.dimensions == 2 else 2}
        small |= {"attention": [False, True]} if section == "denoiser" else {}
        recipe = changed(recipe, section, {**TINY, **small})
    return recipe.model_copy(update={"sampling": recipe.sampling.model_copy(update={"steps": 2, "count": 2})})


def train_images(run: Run, seconds: float) -> None:
    """A denoiser of images, and samples of it where that is the task."""
    data = ("--train", *run.of("train"), "--validation", *run.of("validation"))
    run.train("train_denoiser", "denoiser", 0.9 * seconds, *data, out=run.work / "diffusion")
    if run.recipe.task == "generation":
        sample(run)


def sample(run: Run) -> None:
    """Samples, of which a mosaic and the reverse process go back."""
    out = run.work / "samples"
    held_out = [*run.of("validation"), *run.of("test")]
    inputs = ("--input", "diffusion", run.work / "diffusion", "--input", "held_out", *held_out)
    began = time.monotonic()
    run.script("run_stage", "inference", "inference", *inputs, out=out)
    count, steps = run.recipe.sampling.count, run.recipe.sampling.steps
    print(
        f"{run.name}: {count} samples of {steps} steps and their pictures in {time.monotonic() - began:.0f} s",
        flush=True,
    )
    for name in ("grid.png", "reverse.png"):
        (run.back / run.name / name).write_bytes((out / name).read_bytes())


def train_translation(run: Run, seconds: float) -> None:
    """Both autoencoders one after the other, the latents, the denoiser."""
    data = ("--train", *run.of("train"), "--validation", *run.of("validation"))
    autoencoders = run.work / "autoencoder"
    for role in ("source", "target"):
        run.train("train_vqgan", "autoencoder", 0.25 * seconds, *data, "--role", role, out=autoencoders / role)
    roles = [autoencoders / role for role in ("source", "target")]
    for chunk in [*run.of("train"), *run.of("validation")]:
        out = run.work / "latents" / Path(chunk).name
        run.script("latents", "latents", "--dataset", chunk, "--autoencoders", *roles, out=out)
    latents = run.work / "latents"
    data = ("--train", *run.of("train", latents), "--validation", *run.of("validation", latents))
    run.train("train_denoiser", "denoiser", 0.4 * seconds, *data, "--autoencoders", *roles, out=run.work / "diffusion")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(path.stem for path in CONFIG.glob("*.yaml")))
    parser.add_argument("--seconds", type=float, required=True)
    for folder in ("chunks", "work", "back"):
        parser.add_argument(f"--{folder}", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true", help="a rehearsal")
    given = parser.parse_args(arguments)
    recipe = read_recipe(given.name, tiny=given.tiny)
    run = Run(given.name, recipe, given.chunks / given.name, given.work / given.name, given.back)
    run.back.mkdir(parents=True, exist_ok=True)
    (run.back / f"{given.name}.json").write_text(json.dumps(recipe.model_dump(mode="json"), indent=2))
    (train_translation if recipe.task == "translation" else train_images)(run, given.seconds)


if __name__ == "__main__":
    main()
