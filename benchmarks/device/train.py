"""Train a recipe for so many seconds, and leave what comes back: bundles of 16 bits, curves, samples, figures.

    python benchmarks/device/train.py volumes --seconds 300 --chunks CHUNKS --work WORK --back BACK

CHUNKS has a folder of chunks for each set of images (`travel.py open`, `derive.py`). How many steps fit is found by a trial
of the same training, so that the learning rate reaches zero in time. Everything runs by the workflow's own scripts. What was trained
is used and judged here as well, so that samples and figures come back where weights would be too large.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from travel import halve, to_levels

from pipeline_lib.code import code_hash
from pipeline_lib.config.part import recipe_part
from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.tasks import TASKS

CHECKOUT = Path(__file__).resolve().parents[2]
SCRIPTS = CHECKOUT / "workflow" / "scripts"
CONFIG = Path(__file__).resolve().parent / "config"
IMAGES = {
    "volumes": "volumes", "slices": "slices", "generator": "slices", "refined": "thick", "published": "thick",
    "gaussian": "soop", "simplex": "soop", "coarse": "soop",
}  # fmt: skip
"""Of each recipe, the folder of its chunks."""
SHIPS = ("generator", "slices")
"""Recipes whose weights come back; of the others, what they made does."""
MOST = 4 * 2**20
"""Bytes of a file that is copied."""
TRIAL = 60
"""Steps of the trial, of which the later half is timed."""
SHARE = 0.85
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

    def made(self, stage: str, name: str, inputs: Sequence[object]) -> Path:
        """The folder that a stage of the task makes."""
        out = self.work / name
        self.script("run_stage", stage, stage, *inputs, out=out)
        return out

    def floor(self) -> Path:
        """The linear fit of a translation, made once."""
        out = self.work / "floor"
        return out if out.is_dir() else self.made("floor", "floor", ("--input", "train", *self.of("train")))

    def translated(self, diffusion: Sequence[object], chunk: str) -> Path:
        """A chunk translated by whatever was trained."""
        inputs = [*diffusion, "--input", "floor", self.work / "floor", "--input", "dataset", chunk]
        for role, folder in (
            ("regression", self.work / "regression"),
            ("latents", self.work / "latents" / Path(chunk).name),
        ):
            inputs += ["--input", role, *([folder] if folder.is_dir() else [])]
        autoencoders = sorted((self.work / "autoencoder").glob("*/")) if self.recipe.autoencoder else []
        return self.made(
            "inference", f"inference/{Path(chunk).name}", [*inputs, "--input", "autoencoders", *autoencoders]
        )

    def bring(self, folder: Path, name: str, files: Iterable[str]) -> None:
        """Copy small files of a folder to what goes back."""
        out = self.back / self.name / name
        out.mkdir(parents=True, exist_ok=True)
        for file in files:
            if (folder / file).is_file() and (folder / file).stat().st_size < MOST:
                shutil.copyfile(folder / file, out / file)

    def train(self, script: str, section: str, seconds: float, *arguments: object, out: Path) -> None:
        """Train one network: a trial, then as many steps as fit; its half-size bundle goes back at once."""
        began = time.monotonic()
        chosen = getattr(self.recipe, section).training
        shared = ("--recipe", self.name, "--state", self.work / "state", "--licence", "", *arguments)

        trial = min(TRIAL, chosen.steps)
        short = changed(self.recipe, section, {"steps": trial, "validate_every": trial, "checkpoint_every": trial})
        self.script(script, section, *shared, out=self.work / "trial" / out.name, recipe=short)
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
        self.script(script, section, *shared, out=out, recipe=changed(self.recipe, section, spread))
        if self.name in SHIPS:
            halve(out, self.back / self.name / out.name)
        else:
            self.bring(out, out.name, [path.name for path in out.iterdir()])
        print(f"{self.name} {out.name}: {steps} steps, {time.monotonic() - began:.0f} s in all", flush=True)


def changed(recipe: RecipeOptions, section: str, options: Mapping[str, Any]) -> RecipeOptions:
    """The recipe with other options of a network, and of its training."""
    network = getattr(recipe, section)
    own = {key: value for key, value in options.items() if key in type(network).model_fields}
    rest = {key: value for key, value in options.items() if key not in own}
    training = network.training.model_copy(update=rest)
    return recipe.model_copy(update={section: network.model_copy(update={**own, "training": training})})


def read_recipe(name: str, *, tiny: bool) -> RecipeOptions:
    """A recipe of that name; tiny: of few steps and small networks, for a rehearsal."""
    written = {
        key: recipe
        for path in CONFIG.glob("*.yaml")
        for key, recipe in yaml.safe_load(path.read_text())["recipes"].items()
    }
    recipe = RecipeOptions.model_validate(written[name])
    if not tiny:
        return recipe
    for section in ("autoencoder", "regression", "denoiser"):
        if getattr(recipe, section) is None:
            continue
        small: dict[str, Any] = {"channels": [8, 16], "blocks": 1}
        small |= {"fold": 4} if recipe.autoencoder is None else {}
        small |= {"attention": [False, True]} if section == "denoiser" else {}
        recipe = changed(recipe, section, {**TINY, **small})
    return recipe.model_copy(update={"sampling": recipe.sampling.model_copy(update={"steps": 2, "count": 2})})


def train(run: Run, seconds: float) -> None:
    """Train every network of a recipe, one after the other."""
    data = ("--train", *run.of("train"), "--validation", *run.of("validation"))
    if run.recipe.autoencoder is not None:
        train_latent(run, seconds, data)
    elif run.recipe.regression is not None:
        floor = run.floor()
        regression = run.work / "regression"
        run.train("train_regression", "regression", 0.5 * seconds, *data, "--floor", floor, out=regression)
        run.train(
            "train_denoiser", "denoiser", 0.5 * seconds, *data, "--regression", regression, out=run.work / "diffusion"
        )
    else:
        run.train("train_denoiser", "denoiser", seconds, *data, out=run.work / "diffusion")


def train_latent(run: Run, seconds: float, data: Sequence[object]) -> None:
    """Both autoencoders one after the other, the latents, the denoiser."""
    roles = [run.work / "autoencoder" / role for role in ("source", "target")]
    for role in roles:
        run.train("train_vqgan", "autoencoder", 0.3 * seconds, *data, "--role", role.name, out=role)
    for chunk in [*run.of("train"), *run.of("validation"), *run.of("test")]:
        out = run.work / "latents" / Path(chunk).name
        run.script("latents", "latents", "--dataset", chunk, "--autoencoders", *roles, out=out)
    latents = run.work / "latents"
    data = ("--train", *run.of("train", latents), "--validation", *run.of("validation", latents))
    run.train("train_denoiser", "denoiser", 0.4 * seconds, *data, "--autoencoders", *roles, out=run.work / "diffusion")


def judge(run: Run) -> None:
    """Use and judge what was trained, as the workflow does; the evaluation and samples go back."""
    began = time.monotonic()
    held_out = [*run.of("validation"), *run.of("test")]
    diffusion = ("--input", "diffusion", run.work / "diffusion")
    if run.recipe.task == "generation":
        samples = run.made("inference", "samples", (*diffusion, "--input", "held_out", *held_out))
        run.bring(samples, "samples", ("grid.png", "reverse.png", "samples.tsv"))
        values = np.load(samples / "samples.npy")
        np.savez_compressed(run.back / run.name / "samples.npz", samples=to_levels(values))
        inputs = ("--input", "samples", samples, "--input", "train", *run.of("train"), "--input", "held_out", *held_out)
    elif run.recipe.task == "anomaly":
        fixed = (
            *diffusion,
            "--input",
            "standards",
            run.made("standards", "standards", (*diffusion, "--input", "train", *run.of("train"))),
        )
        inferred = [
            run.made("inference", f"inference/{Path(chunk).name}", (*fixed, "--input", "dataset", chunk))
            for chunk in held_out
        ]
        inputs = (*fixed[3:], "--input", "inference", *inferred, "--input", "datasets", *held_out)
    else:
        run.floor()
        inferred = [run.translated(diffusion, chunk) for chunk in held_out]
        inputs = ("--input", "inference", *inferred, "--input", "datasets", *held_out)
    evaluation = run.made("evaluation", "evaluation", (*diffusion, *inputs))
    run.bring(evaluation, "evaluation", [path.name for path in evaluation.iterdir()])
    print(f"{run.name}: used and judged in {time.monotonic() - began:.0f} s", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=IMAGES)
    parser.add_argument("--seconds", type=float, required=True)
    for folder in ("chunks", "work", "back"):
        parser.add_argument(f"--{folder}", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true", help="a rehearsal")
    given = parser.parse_args(arguments)
    recipe = read_recipe(given.name, tiny=given.tiny)
    run = Run(given.name, recipe, given.chunks / IMAGES[given.name], given.work / given.name, given.back)
    (run.back / given.name).mkdir(parents=True, exist_ok=True)
    (run.back / given.name / "recipe.json").write_text(json.dumps(recipe.model_dump(mode="json"), indent=2))
    train(run, given.seconds)
    judge(run)


if __name__ == "__main__":
    main()
