# The plan of this run, and the few functions by which rules speak of it.

import functools
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

checkout = Path(str(workflow.current_basedir)).resolve().parent.parent
sys.path.insert(0, str(checkout))

from pipeline_lib.bundles.licence import state_licence
from pipeline_lib.cohort.chunks import PATTERN
from pipeline_lib.cohort.rows import rows_of
from pipeline_lib.config.load import read_yaml
from pipeline_lib.errors import UserError
from pipeline_lib.files import write_text
from pipeline_lib.plan import Plan
from pipeline_lib.report.progress import Job, note_end, note_jobs, parts_of
from pipeline_lib.report.run import COMMAND
from pipeline_lib.retraining import retraining

try:
    for file in workflow.configfiles:
        read_yaml(Path(file))
    plan = Plan(config, check_recipes=False)
except UserError as error:
    raise WorkflowError(f"\n{error}") from None

results = plan.config.cohort.results
# Where code and cohort lie, and what changes no result, reach jobs by their environment: changing them reruns nothing.
exported = {
    "PYTHONPATH": checkout,
    "SCRIPTS": checkout / "workflow" / "scripts",
    "SUBJECTS": plan.config.cohort.subjects,
    "RATINGS": plan.config.cohort.ratings or "",
    "ROOT": plan.config.cohort.root,
    "LICENCE": plan.config.cohort.licence,
    # Memory that a step of training frees serves the next one; glibc gives it back and asks for it anew, page by page.
    "MALLOC_MMAP_THRESHOLD_": 2**25,
    "MALLOC_TRIM_THRESHOLD_": 2**30,
}
for recipe in plan.recipes:
    for section in plan.trained(recipe):
        exported[f"LAUNCH_{recipe}_{section}"] = plan.launch(section, recipe)
        exported[f"SETTINGS_{recipe}_{section}"] = plan.settings(section, recipe)
        is_input = section == "denoiser" and plan.earlier(recipe)
        exported[f"START_{recipe}_{section}"] = (
            "" if is_input else plan.start(section, recipe)
        )
    if plan.frozen(recipe):
        exported[f"WEIGHTS_{recipe}"] = plan.recipes[recipe].weights
exported = {name: shlex.quote(str(path)) for name, path in exported.items()}
if not workflow.deployment_settings.deployment_method:
    exported["PATH"] = f'{shlex.quote(str(Path(sys.executable).parent))}:"$PATH"'
exports = "".join(f"export {name}={value}; " for name, value in exported.items())
escaped = exports.replace("{", "{{").replace("}", "}}")
shell.prefix(f"set -euo pipefail; {escaped}")

if workflow.is_main_process:
    for line in [*plan.notices(), *retraining(plan, Path(results))]:
        print(f"NOTE {line}", file=sys.stderr)


def write_what_jobs_read():
    """The command, the ledger, the rows of each chunk, and in finished models the licence, which may be settled later."""
    write_text(Path(results, COMMAND), shlex.join(["snakemake", *sys.argv[1:]]) + "\n")
    plan.save_ledger()
    plan.save_rows()
    state_licence(plan.models(), plan.config.cohort.licence)


def jobs_of_run():
    """What is to be done, those first from which others follow: for `python -m pipeline_lib.report live`."""
    ours = {
        job
        for job in workflow.dag.needrun_jobs()
        if job.log and Path(job.log[0]).is_relative_to(results)
    }
    return [
        Job(
            job.rule.name,
            job.wildcards.get("recipe", ""),
            parts_of(job.wildcards),
            Path(job.log[0]).relative_to(results).as_posix(),
        )
        for level in workflow.dag.toposorted(ours)
        for job in sorted(level, key=lambda job: (job.rule.name, job.log[0]))
    ]


onstart:
    write_what_jobs_read()
    note_jobs(Path(results), jobs_of_run())


onsuccess:
    note_end(Path(results), "done")


onerror:
    note_end(Path(results), "stopped by an error")


if not workflow.modifier.is_main_snakefile():  # Snakemake calls no handler of a module
    outer = workflow._onstart
    workflow._onstart = lambda log: (outer(log), write_what_jobs_read())


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


def log_of(*parts):
    """Where a job's whole log is kept."""
    return f"{Path(results, 'logs', *parts).as_posix()}.log"


def benchmark_of(*parts):
    """Where a job's time and memory are kept."""
    return f"{Path(results, 'benchmarks', *parts).as_posix()}.tsv"


def recipes_of(*tasks, trained=False):
    """A regular expression of the recipes with one of the given tasks."""
    return "|".join(plan.recipes_of(*tasks, trained=trained)) or "(?!)"


def frozen_recipes():
    """A regular expression of the recipes that are applied as they were trained elsewhere."""
    return "|".join(filter(plan.frozen, plan.recipes)) or "(?!)"


def trained_recipes():
    """A regular expression of the others."""
    return "|".join(name for name in plan.recipes if not plan.frozen(name)) or "(?!)"


def chunks_of(stage, *splits):
    """An input function: the chunks of a recipe's stage, in the given splits."""
    return lambda wildcards: refuse_faulty_recipes() or [
        made(wildcards.recipe, stage, chunk)
        for chunk in plan.chunks(*splits, recipe=wildcards.recipe)
    ]


def told_people(wildcards):
    """An input function: held-out people, on whose grid samples lie, and whose values they are told where there are any."""
    told = plan.recipes[wildcards.recipe].denoiser.condition
    splits = ("validation", "test") if told else ("validation",)
    splits = plan.splits(wildcards.recipe) if plan.frozen(wildcards.recipe) else splits
    return chunks_of("dataset", *splits)(wildcards)


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


def regressions(wildcards):
    """The finished regression of a recipe, where it has one."""
    has_one = plan.recipes[wildcards.recipe].regression is not None
    return [made(wildcards.recipe, "regression")] if has_one else []


def last_network(wildcards):
    """The network that a translation's prediction comes from: its denoiser, or its regression alone."""
    alone = plan.recipes[wildcards.recipe].draws_nothing
    return made(wildcards.recipe, "regression" if alone else "diffusion")


def from_nothing(wildcards):
    """The evaluation of the same recipe started from nothing, where the configuration has one to compare with."""
    other = plan.from_nothing(wildcards.recipe)
    return [made(other, "evaluation")] if other else []


def earlier(wildcards):
    """The denoiser of another recipe from which that of a recipe starts, where it names one."""
    other = plan.earlier(wildcards.recipe)
    return [made(other, "diffusion")] if other else []


def latents_of_chunk(wildcards):
    """A chunk's latents, where its recipe has any."""
    latent = plan.roles(wildcards.recipe)
    return [made(wildcards.recipe, "latents", wildcards.chunk)] if latent else []


def refined(wildcards):
    """The regression whose residual a denoiser learns: none where it learns latents."""
    return [] if plan.roles(wildcards.recipe) else regressions(wildcards)


def with_autoencoder(kind):
    """A regular expression of the recipes with one kind of autoencoder."""
    names = [
        name
        for name, recipe in plan.recipes.items()
        if recipe.autoencoder
        and recipe.autoencoder.kind == kind
        and not plan.frozen(name)
    ]
    return "|".join(names) or "(?!)"


def native_maps():
    """Anomaly maps on the grids of the scans; pictures have no other space."""
    return [
        made(recipe, "native", chunk)
        for recipe in plan.recipes_of("anomaly")
        if plan.family(recipe) != "image"
        for chunk in plan.chunks("validation", "test", recipe=recipe)
    ]


def applied(*parts):
    """An input function: a stage of every recipe that maps or translates the scans of a chunk."""
    return lambda wildcards: when_recipes_fit(
        [
            made(recipe, *(part.format(**wildcards) for part in parts))
            for recipe in plan.recipes_of("anomaly", "translation")
            if wildcards.chunk in plan.chunks("validation", "test", recipe=recipe)
        ]
    )(wildcards)


def growing(start):
    """A resource that grows by attempt."""
    return lambda wildcards, attempt: start * attempt


def flags(wildcards, input):
    """The named inputs as arguments of a script: --name path path."""
    return " ".join(
        f"--{name.replace('_', '-')} {_quoted(paths)}"
        for name, paths in input.items()
        if paths
    )


def _quoted(paths):
    return shlex.join([paths] if isinstance(paths, str) else paths)


def runs(script, stage=None):
    """The params of a stage, which are its script, its part of the configuration, and the hash of its code."""
    return {
        "script": script,
        "options": lambda wildcards: (
            plan.options(stage, wildcards.get("recipe")) if stage else "{}"
        ),
        "code": lambda wildcards: plan.code(script, wildcards.get("recipe"), stage),
    }


def trains(section):
    """The same for a training: who it is for; what starts its processes and its settings come from the environment."""
    return {
        "launch": lambda wildcards: f"$LAUNCH_{wildcards.recipe}_{section}",
        "arguments": lambda wildcards, input: " ".join(
            [
                f"--recipe {wildcards.recipe} --state state",
                f'--settings "$SETTINGS_{wildcards.recipe}_{section}" --licence "$LICENCE"',
                f'--start-from "$START_{wildcards.recipe}_{section}"',
                *(
                    f"--{name} {value}"
                    for name, value in wildcards.items()
                    if name == "role"
                ),
                flags(wildcards, input),
            ]
        ),
    }


def of_task(rule, stage):
    """The same for a stage that belongs to one task."""
    return runs("run_stage", stage) | {
        "arguments": lambda wildcards, input: " ".join(
            [
                f"--rule {rule} {stage}",
                *(f"--input {name} {_quoted(paths)}" for name, paths in input.items()),
            ]
        )
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
    return [
        made(recipe, stage.folder, *part)
        for stage in plan.stages(recipe)
        if stage.shown
        for part in (
            [[role] for role in plan.roles(recipe)]
            if stage.name == "autoencoder"
            else [[]]
        )
    ]


def taken_whole(folder):
    """A folder as one entry of Snakemake's report: possible in report.zip only, `--report report.html` would end with an error."""
    if not any(word.endswith(".zip") for word in sys.argv):
        return directory(folder)
    return report(
        directory(folder),
        caption="../report/archive.rst",
        category="Cohort",
        labels={"page": "all pages, linked: index, recipes, scans"},
        htmlindex="index.html",
    )
