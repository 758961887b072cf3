# The plan of this run, and the few functions by which rules speak of it.

import functools
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, workflow.basedir)

from pipeline_lib.cohort.chunks import PATTERN
from pipeline_lib.errors import UserError
from pipeline_lib.plan import Plan

try:
    plan = Plan(config, check_recipes=False)
except UserError as error:
    raise WorkflowError(f"\n{error}") from None

results = plan.config.cohort.results
paths = f'export PYTHONPATH="{workflow.basedir}"; '
if not workflow.deployment_settings.deployment_method:
    paths += f'export PATH="{Path(sys.executable).parent}:$PATH"; '
shell.prefix(f"set -euo pipefail; {paths}")

if workflow.is_main_process:
    for line in [*plan.notices(), *plan.retraining(Path(results))]:
        print(f"NOTE {line}", file=sys.stderr)


onstart:
    plan.save_ledger()


wildcard_constraints:
    chunk=PATTERN,
    recipe=r"[a-z][a-z0-9_]*",
    role="image|source|target",
    split="train|validation|test",
    family="anat|dmri|image",


def made(*parts):
    """The sidecar that a stage writes when its folder in results/ is complete."""
    return Path(results, *parts, "provenance.json").as_posix()


@functools.cache
def refuse_faulty_recipes():
    """End with the faults of the recipes: said where something is made that needs them, which `preprocessed` does not."""
    try:
        plan.check_recipes()
    except UserError as error:
        sys.exit(str(error))


def when_recipes_fit(paths):
    """An input function: paths that need recipes."""
    return lambda wildcards: refuse_faulty_recipes() or paths


def recipes_of(*tasks):
    """A regular expression of the recipes with one of the given tasks."""
    return "|".join(plan.recipes_of(*tasks)) or "(?!)"


def chunks_of(stage, *splits):
    """An input function: the chunks of a recipe's stage, in the given splits."""
    return lambda wildcards: refuse_faulty_recipes() or [
        made(wildcards.recipe, stage, chunk)
        for chunk in plan.chunks(*splits, recipe=wildcards.recipe)
    ]


def training_data(*splits):
    """An input function: what a denoiser learns from, images or latents."""
    return lambda wildcards: chunks_of(
        "latents" if plan.roles(wildcards.recipe) else "dataset", *splits
    )(wildcards)


def autoencoders(wildcards):
    """The finished autoencoders of a recipe."""
    return [
        made(wildcards.recipe, "autoencoder", role)
        for role in plan.roles(wildcards.recipe)
    ]


def options(part):
    """A params function: a stage's part of the configuration, as JSON."""
    return lambda wildcards: plan.options(part, wildcards.get("recipe"))


def code(script):
    """A params function: the hash of the code a script runs."""
    return lambda wildcards: plan.code(script, wildcards.get("recipe"))


def launch(model):
    """A params function: what starts the processes of a training."""
    return lambda wildcards: plan.launch(model, wildcards.recipe)


def growing(start):
    """A resource that grows by attempt."""
    return lambda wildcards, attempt: start * attempt


def with_autoencoder(kind):
    """A regular expression of the recipes with one kind of autoencoder."""
    names = [
        name
        for name, recipe in plan.recipes.items()
        if recipe.autoencoder and recipe.autoencoder.kind == kind
    ]
    return "|".join(names) or "(?!)"


# Where the cohort lies is a resource and not a parameter: moving it reruns nothing.
whereabouts = {
    name: getattr(plan.config.cohort, name) for name in ("subjects", "splits", "root")
}
tables = [f"{results}/cohort/{split}-{family}.tsv" for split, family in plan.parts()]


def gate(wildcards):
    """Training waits for the check that not too many scans of its splits failed."""
    family = plan.family(wildcards.recipe)
    return [
        f"{results}/cohort/{split}-{family}.tsv" for split in ("train", "validation")
    ]


def stages_of(wildcards):
    """The finished stages that a recipe's page shows."""
    recipe = wildcards.recipe
    task = plan.recipes[recipe].task
    stages = [*autoencoders(wildcards), made(recipe, "diffusion")]
    if task in ("synthesis", "generation"):
        stages.append(made(recipe, "samples"))
    if task == "synthesis":
        stages.append(made(recipe, "embedding"))
    return [*stages, made(recipe, "evaluation")]
