"""What is to be done, as the workflow needs it when it builds its graph.

Reads the configuration, the sheet and the ledger; imports nothing heavy and opens no scan, because
every job of a cluster reads it again.
"""

from __future__ import annotations

import difflib
import functools
import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline_lib.bundle_plan import (
    DENOISER,
    FinishedRecipe,
    content_of,
    finished_recipe,
    read_plan,
    shipped,
    starting_place,
)
from pipeline_lib.code import code_hash
from pipeline_lib.cohort.chunks import SPLITS, ChunkName
from pipeline_lib.cohort.files import RowsKey
from pipeline_lib.cohort.ledger import Ledger, read_ledger, shortened, write_ledger
from pipeline_lib.cohort.placement import place, torn_pairs, untrained_people
from pipeline_lib.cohort.ratings import without_rated_bad
from pipeline_lib.cohort.rows import rows_of, write_rows
from pipeline_lib.cohort.sheet import FAMILIES, Scan, Sheet, alike_groups, alike_people, read_sheet, summed_up
from pipeline_lib.cohort.withdrawal import without_withdrawn
from pipeline_lib.config.load import load_config
from pipeline_lib.config.part import recipe_part
from pipeline_lib.config.schema import CONDITIONS, RecipeOptions, SplitOptions
from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.region_files import region_files
from pipeline_lib.files import sha256_text
from pipeline_lib.state import run_time, without_run_time
from pipeline_lib.tasks import MODULES, TASKS
from pipeline_lib.tasks.task import Stage, Task

SCRIPTS = Path(__file__).resolve().parent.parent / "workflow" / "scripts"

SECTIONS: dict[str, tuple[str, set[str] | None]] = {
    "preprocess": ("preprocess", None),
    "cohort_limits": ("cohort", {"max_failed_fraction", "strict"}),
    "sheet": ("cohort", {"covariates"}),
}
FEW_PEOPLE = 50
"""Training people under which a model learns little from nothing."""
HEADING = {"name", "note"}
SHOWN: dict[str, dict[str, Any]] = {
    "report": {"cohort": {*HEADING, "licence"}, "split": True, "preprocess": True},
    "report_scans": {"cohort": HEADING, "preprocess": True},
}
"""What pages of the report say of the configuration."""
AUTOENCODER_MODULE = {"vae": "pipeline_lib.models.autoencoder", "vqgan": "pipeline_lib.models.vqgan"}


class Plan:
    """The cohort in its chunks, and what each stage is given."""

    def __init__(self, values: Mapping[str, Any], *, check_recipes: bool = True) -> None:
        self.config = load_config(values)
        cohort = self.config.cohort
        self.known: Ledger = read_ledger(cohort.splits)
        sheet = read_sheet(cohort.subjects, cohort.root, cohort.covariates)
        present = without_withdrawn(sheet, self.known)
        self.sheet: Sheet = without_rated_bad(present, cohort.ratings)
        self.trained_groups = self._trained_groups()
        self.ledger: Ledger = place(
            self.sheet,
            self.known,
            self._split(),
            cohort.chunk_size,
            self.trained_groups,
            cohort.picture_chunk_size,
        )
        self._scans = self._scans_by_chunk()
        self._rows_key = RowsKey(Path(cohort.root), Path(cohort.results) / "ingest")
        if cohort.strict and present.excluded:  # by a fault, and not because somebody wants it so
            raise UserError("\n".join(map(str, present.problems)))
        self.atlas()
        for recipe in self.recipes:
            self.regions(recipe)
        if check_recipes:
            self.check_recipes()

    @property
    def recipes(self) -> Mapping[str, RecipeOptions]:
        """The recipes by name."""
        return self.config.recipes

    def recipes_of(self, *tasks: str, trained: bool = False) -> list[str]:
        """Names of the recipes with one of the given tasks; only those that are ``trained`` here, or all of them."""
        return [
            name for name, recipe in self.recipes.items() if recipe.task in tasks and not (trained and recipe.weights)
        ]

    def frozen(self, recipe: str) -> bool:
        """Whether a recipe is applied as it was trained elsewhere."""
        return self.recipes[recipe].weights is not None

    @functools.cache  # noqa: B019 - one plan lives as long as the process
    def finished(self, recipe: str) -> FinishedRecipe:
        """What a frozen recipe is applied from."""
        return finished_recipe(str(self.recipes[recipe].weights))

    def splits(self, recipe: str) -> tuple[str, ...]:
        """The splits in which a recipe needs people."""
        return ("test",) if self.frozen(recipe) else SPLITS

    def chunks(self, *splits: str, recipe: str | None = None) -> list[str]:
        """Names of the chunks of some splits (all of them by default) that a recipe uses; a frozen one uses the test split."""
        if recipe is not None and self.frozen(recipe):
            splits = tuple(split for split in splits or SPLITS if split == "test") or ("none",)
        modalities = self.modalities(recipe) if recipe else set()
        return [
            chunk
            for chunk, scans in self._scans.items()
            if (not splits or ChunkName.parse(chunk).split in splits)
            and (not recipe or any(scan.modality in modalities for scan in scans))
        ]

    def chunks_in(self, split: str, family: str) -> list[str]:
        """Names of the chunks of one split that hold scans of one family."""
        names = [(chunk, ChunkName.parse(chunk)) for chunk in self._scans]
        return [chunk for chunk, name in names if (name.split, name.family) == (split, family)]

    def parts(self) -> list[tuple[str, str]]:
        """Every pair of split and family that has a chunk."""
        pairs = {(name.split, name.family) for name in map(ChunkName.parse, self._scans)}
        return sorted(pairs, key=lambda pair: (SPLITS.index(pair[0]), pair[1]))

    def family(self, recipe: str) -> str:
        """The family of scans that a recipe uses: anat, dmri or image."""
        return FAMILIES[self.recipes[recipe].data.modalities[0]]

    def scans(self, chunk: str) -> list[Scan]:
        """The scans of a chunk, in the order of the ledger."""
        return self._scans[chunk]

    def sheet_key(self) -> str:
        """A hash of who is in the sheet, where, and what is wrong with it."""
        placed = [vars(row) for row in self.ledger.rows]
        return sha256_text(json.dumps([placed, summed_up(self.sheet.problems)]))

    def rows_key(self, chunk: str) -> str:
        """A hash of a chunk's rows and of the content of the files they name, see `RowsKey`."""
        return self._rows_key(chunk, self._scans[chunk])

    def options(self, stage: str, recipe: str | None = None) -> str:
        """The part of the configuration that a stage reads, as canonical JSON."""
        if stage in SHOWN:
            return self._shown_options(stage, recipe)
        if recipe is not None:
            part = json.loads(recipe_part(self.recipes[recipe], self.task(recipe).stage(stage).reads))
            return json.dumps(without_run_time(self._by_content(part)), sort_keys=True)
        section, include = SECTIONS[stage]
        return json.dumps(getattr(self.config, section).model_dump(mode="json", include=include), sort_keys=True)

    def trained(self, recipe: str) -> tuple[str, ...]:
        """The sections of a recipe that describe a network with its training; none where it is frozen."""
        options = self.recipes[recipe]
        if self.frozen(recipe):
            return ()
        networks = ("autoencoder", "regression") if options.draws_nothing else ("autoencoder", "regression", "denoiser")
        return tuple(name for name in networks if getattr(options, name) is not None)

    def start(self, section: str, recipe: str) -> str:
        """What a network starts from, as the configuration names it; empty: nothing."""
        return getattr(getattr(self.recipes[recipe], section), "start_from", None) or ""

    def earlier(self, recipe: str) -> str:
        """The recipe of this configuration whose denoiser that of ``recipe`` starts from; empty: there is none."""
        start = self.start("denoiser", recipe) if "denoiser" in self.trained(recipe) else ""
        return start if start in self.recipes else ""

    def from_nothing(self, recipe: str) -> str:
        """The recipe of this configuration that is equal but starts from nothing, at equal steps; empty where there is none."""
        started = any(self.start(section, recipe) for section in self.trained(recipe))
        like = _but_for_the_start(self.recipes[recipe]) if started else {}
        others = (
            name
            for name, other in self.recipes.items()
            if started
            and name != self.earlier(recipe)
            and not any(self.start(section, name) for section in self.trained(name))
            and _but_for_the_start(other) == like
        )
        return next(others, "")

    def settings(self, section: str, recipe: str) -> str:
        """The run-time settings of a training, which rerun nothing, as JSON; they go beside `options`.

        Args:
            section: ``autoencoder``, ``regression`` or ``denoiser``.
        """
        chosen = self.recipes[recipe].model_dump(mode="json", include={section})
        return json.dumps(run_time(chosen), sort_keys=True)

    @functools.cache  # noqa: B019 - one plan lives as long as the process
    def code(self, script: str, recipe: str | None = None, stage: str | None = None) -> str:
        """Hash of the code that ``workflow/scripts/<script>.py`` runs for a recipe's stage."""
        modules: list[str] = []
        if recipe is not None and stage == "report":
            modules = [MODULES[self.recipes[recipe].task]]
        elif recipe is not None and stage is not None:
            modules = self._chosen_modules(self.recipes[recipe], self.task(recipe).stage(stage))
        return code_hash(SCRIPTS / f"{script}.py", *modules)

    def task(self, recipe: str) -> Task:
        """The task of a recipe."""
        return TASKS[self.recipes[recipe].task]

    def stages(self, recipe: str) -> list[Stage]:
        """The stages of a recipe."""
        options = self.recipes[recipe]
        return [
            stage
            for stage in self.task(recipe).stages
            if not (stage.needs and getattr(options, stage.needs) is None)
            and not (options.draws_nothing and stage.folder == DENOISER)
        ]

    def roles(self, recipe: str) -> tuple[str, ...]:
        """The autoencoders a recipe trains: none, one of the image, or one of source and target."""
        return self.task(recipe).roles if self.recipes[recipe].autoencoder else ()

    def notices(self) -> list[str]:
        """One line for each kind of fault in the sheet, and for what the placement does that may surprise."""
        return [*summed_up(self.sheet.problems), *self._placement_notices(), *self._few_people()]

    def launch(self, model: str, recipe: str) -> str:
        """The command that starts a training's processes on several nodes; empty on one, where they start themselves.

        Args:
            model: ``autoencoder``, ``regression`` or ``denoiser``.
        """
        training = getattr(self.recipes[recipe], model).training
        if training.nodes == 1:
            return ""
        return f"srun --nodes {training.nodes} --ntasks-per-node {training.devices} --kill-on-bad-exit=1"

    def atlas(self) -> list[str]:
        """Image and table of the atlas that names the places of findings; empty without one.

        Raises:
            UserError: one of them is missing.
        """
        report = self.config.report
        files = [path for path in (report.atlas, report.atlas_table) if path]
        for path in files:
            if not Path(path).is_file():
                raise UserError(
                    f"configuration: report.atlas: {path} is not there; give an image of regions with its table of names beside it, "
                    "or fetch one: python -m pipeline_lib.report atlas aal atlases"
                )
        return files

    def regions(self, recipe: str) -> str:
        """What changes with the files of the regions in which a translation is judged; empty without any.

        Raises:
            UserError: there is no such file.
        """
        path = self.recipes[recipe].evaluation.regions
        files = [Path(file) for file in region_files(path)] if path else []
        known = [f"{file} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files]
        return sha256_text("\n".join(known))[:16] if known else ""

    def save_ledger(self) -> None:
        """Write the ledger where new scans were placed; it only ever grows."""
        if self.ledger.rows != self.known.rows:
            write_ledger(self.config.cohort.splits, self.ledger)

    def models(self) -> list[Path]:
        """The folders of all models that are trained here, finished or not."""
        folders = [
            Path(name, model)
            for name in self.recipes
            if not self.frozen(name)
            for model in (
                *([] if self.recipes[name].draws_nothing else [DENOISER]),
                *(["regression"] if self.recipes[name].regression else []),
                *(f"autoencoder/{role}" for role in self.roles(name)),
            )
        ]
        return [Path(self.config.cohort.results) / folder for folder in folders]

    def save_rows(self) -> None:
        """Write the rows of every chunk for the job that ingests it."""
        for chunk, scans in self._scans.items():
            write_rows(rows_of(self.config.cohort.results, chunk), scans)

    def _scans_by_chunk(self) -> dict[str, list[Scan]]:
        by_id = {scan.id: scan for scan in self.sheet.scans}
        chunks: dict[str, list[Scan]] = defaultdict(list)
        for row in self.ledger.rows:
            if row.scan in by_id:
                chunks[row.chunk].append(by_id[row.scan])
        return dict(chunks)

    def _split(self) -> SplitOptions:
        """How people are placed: where no recipe is trained, everybody whom the sheet does not place is a test person."""
        if not self.recipes or not all(map(self.frozen, self.recipes)):
            return self.config.split
        nobody = {"method": "hash", "train": 0.0, "validation": 0.0, "test": 1.0}
        return self.config.split.model_copy(update=nobody)

    def _by_content(self, part: dict[str, Any]) -> dict[str, Any]:
        """Options with the content of what a network starts from in the place of its path; a recipe of this run is an input instead."""
        for section in ("autoencoder", "denoiser"):
            network = part.get(section)
            if network and (start_from := network.get("start_from")):
                if section == "denoiser" and start_from in self.recipes:
                    network["start_from"] = None
                    continue
                roles = TASKS[part["task"]].roles if section == "autoencoder" else ("",)
                contents = {content_of(starting_place(start_from, section, role)) for role in roles}
                network["start_from"] = " ".join(sorted(contents))
        return part

    def _few_people(self) -> list[str]:
        """A line for each recipe that has few people to learn from, and starts from nothing."""
        lines = []
        for name, recipe in self.recipes.items():
            if self.frozen(name) or any(self.start(section, name) for section in self.trained(name)):
                continue
            groups = recipe.data.train_groups
            people = {
                scan.participant
                for chunk in self.chunks("train", recipe=name)
                for scan in self._scans[chunk]
                if scan.modality in recipe.data.modalities and (not groups or scan.group in groups)
            }
            if 0 < len(people) < FEW_PEOPLE:
                lines.append(
                    f"recipe {name}: {len(people)} people to learn from are too few to learn from nothing (under "
                    f"{FEW_PEOPLE}): {self._advised(recipe)}"
                )
        return lines

    def _advised(self, recipe: RecipeOptions) -> str:
        """A bundle that ships for such images, and how to start from it."""
        plans = {bundle: read_plan(starting_place(bundle, "denoiser")) for bundle in shipped()}
        for bundle, plan in sorted(plans.items(), key=lambda each: each[1].get("task") != recipe.task):
            data = (plan.get("prepared") or {}).get("data") or {}
            like = all(data.get(key) == getattr(recipe.data, key) for key in ("modality", "dimensions", "channels"))
            if like and plan.get("role") == "denoiser" and recipe.autoencoder is None:
                fitting = "" if plan.get("task") == recipe.task else f", which was trained for {plan.get('task')}"
                return f"set denoiser.start_from: {bundle}{fitting}"
            if like and plan.get("role") == "image" and recipe.autoencoder is not None:
                return f"set autoencoder.start_from: {bundle}"
        return f"no bundle of {' and '.join(recipe.data.modalities)} ships; start_from takes one of your own"

    def _trained_groups(self) -> set[str]:
        """The groups that recipes train on; empty where a recipe trains on all of them."""
        wanted = [set(recipe.data.train_groups) for name, recipe in self.recipes.items() if not self.frozen(name)]
        return set().union(*wanted) if wanted and all(wanted) else set()

    def _placement_notices(self) -> list[str]:
        lines = []
        listed = {scan.participant for scan in (*self.sheet.scans, *(scan for scan, _ in self.sheet.excluded))}
        if gone := sorted(self.known.splits.keys() - listed):
            lines.append(
                f"{len(gone)} people of {self.config.cohort.splits} are not in the sheet any more: {shortened(gone)}; pages, "
                f"scans and models keep what is theirs until `python -m pipeline_lib.cohort withdraw {gone[0]} "
                "--configfile FILE`, with the configuration of this run, removes it"
            )
        if alike := [f"{one} and {other}" for one, other in alike_people(self.sheet.scans)]:
            lines.append(
                f"{len(alike)} ids differ from another only in case or leading zeros and count as people of their own: "
                f"{shortened(alike)}; where they are one person, write one id, or name it in the column alias"
            )
        if split := [f"{one} and {other}" for one, other in alike_groups(self.sheet.scans)]:
            lines.append(
                f"groups that differ only in case are groups of their own: {shortened(split)}; write them alike"
            )
        untrained = untrained_people(self.sheet.scans, self.trained_groups)
        members = [scan for scan in self.sheet.scans if scan.participant in untrained]
        if members:
            groups = ", ".join(sorted({scan.group for scan in members if scan.group}))
            lines.append(
                f"{len(untrained)} people of groups that no recipe trains on ({groups}) go to validation and test"
            )
        stuck = {scan.participant for scan in members if self.ledger.by_scan[scan.id].split == "train"}
        if stuck:
            lines.append(
                f"{len(stuck)} of them are in train by the sheet or {self.config.cohort.splits}, where nothing uses them: "
                f"{shortened(sorted(stuck))}; change the sheet's split, or remove their rows from the ledger"
            )
        for name, recipe in self.recipes.items():
            if recipe.data.target is None:
                continue
            torn = torn_pairs(self.sheet.scans, self.ledger, recipe.data.modality, recipe.data.target)
            if torn:
                lines.append(
                    f"recipe {name}: {len(torn)} pairs lie in two chunks of {self.config.cohort.splits} and are left "
                    f"out: {shortened(torn)}; remove the rows of their {recipe.data.target} scans from it"
                )
        return lines

    def check_recipes(self) -> None:
        """Refuse recipes that the cohort has no scans for.

        Raises:
            UserError: with a line for each fault.
        """
        problems = []
        if not self.recipes:
            problems.append("configuration: recipes: none given; name at least one, as in config/config.yaml")
        groups = {scan.group for scan in self.sheet.scans if scan.group}
        for name, recipe in self.recipes.items():
            for group in recipe.data.train_groups:
                if group not in groups:
                    near = difflib.get_close_matches(group, groups, n=1)
                    hint = (
                        f"did you mean {near[0]}?" if near else f"the sheet has {', '.join(sorted(groups)) or 'none'}"
                    )
                    problems.append(
                        f"configuration: recipes.{name}.data.train_groups: no scan of group {group!r}; {hint}"
                    )
            families = {FAMILIES[modality] for modality in self.modalities(name) if modality in FAMILIES}
            if len(families) > 1:
                problems.append(
                    f"configuration: recipes.{name}.data.target: {recipe.data.modality} and {recipe.data.target} are of "
                    f"different families ({', '.join(sorted(families))}), which share no chunk and make no pairs"
                )
            problems += self._untold_conditions(name, recipe)
            problems += self._absent_contrasts(name, recipe)
            for split in self.splits(name):
                if not self.chunks(split, recipe=name):
                    wanted = " and ".join(sorted(self.modalities(name)))
                    problems.append(
                        f"recipe {name}: no {wanted} scan in the {split} split; add people to "
                        f"{self.config.cohort.subjects}, or remove the recipe from the configuration"
                    )
        if problems and self.sheet.excluded:
            # Rows left out may be why: their faults are what the user must read first.
            problems = [*summed_up(self.sheet.problems), *problems]
        if problems:
            raise UserError("\n".join(problems))

    def _absent_contrasts(self, name: str, recipe: RecipeOptions) -> list[str]:
        """Of several modalities, those of which there is nothing to learn from; one alone is missed by its chunks."""
        if len(recipe.data.modalities) == 1 or self.frozen(name):
            return []
        chunks = self.chunks("train", recipe=name)
        there = {scan.modality for chunk in chunks for scan in self._scans[chunk]}
        return [
            f"configuration: recipes.{name}.data.modality: no {modality} scan in the train split; take it out of the list, "
            f"or add scans to {self.config.cohort.subjects}"
            for modality in recipe.data.modalities
            if chunks and modality not in there
        ]

    def _untold_conditions(self, name: str, recipe: RecipeOptions) -> list[str]:
        """What a model cannot learn, or cannot be asked for, because no scan it is trained on has it."""
        trained = [
            scan
            for chunk in self.chunks("train", recipe=name)
            for scan in self._scans[chunk]
            if scan.modality in recipe.data.modalities and scan.group in (recipe.data.train_groups or [scan.group])
        ]
        problems = []
        for condition in recipe.denoiser.condition if trained else ():
            if condition == "slice":
                continue
            known = {value for scan in trained if (value := _column(scan, condition)) not in (None, "")}
            if len(known) < 2:
                problems.append(
                    f"configuration: recipes.{name}.denoiser.condition: {condition}: of {len(trained)} scans to train on "
                    f"{f'all that have one have {next(iter(known))}' if known else 'none has one'}; fill the sheet's "
                    "column, or take it out of the list"
                )
                continue
            number = all(isinstance(value, float) for value in known)
            for value in recipe.sampling.conditions.get(condition, ()):
                if number and not isinstance(value, float | int):
                    what = "is no number"
                elif not number and str(value) not in known:
                    what = f"is in no scan to train on, which have {shortened(sorted(map(str, known)))}"
                else:
                    continue
                problems.append(f"configuration: recipes.{name}.sampling.conditions.{condition}: {value!r} {what}")
        return problems

    def _shown_options(self, stage: str, recipe: str | None) -> str:
        """What a page of the report says of the configuration."""
        chosen = self.config.model_dump(mode="json", include=SHOWN[stage] if recipe is None else {"cohort": HEADING})
        if recipe is not None:
            options = self.recipes[recipe].model_dump(mode="json")
            if self.frozen(recipe):
                options["weights"] = self.finished(recipe).name
            for section in ("autoencoder", "denoiser"):
                if options[section] and (start_from := options[section]["start_from"]):
                    other = section == "denoiser" and start_from in self.recipes
                    name = "/".join(Path(start_from).parts[-2:])  # no path of this machine
                    options[section]["start_from"] = f"the recipe {name}" if other else name
            chosen["recipe"] = without_run_time(options)
        return json.dumps(chosen, sort_keys=True)

    def modalities(self, recipe: str) -> set[str]:
        """Those whose scans a recipe uses."""
        data = self.recipes[recipe].data
        return {*data.modalities} | ({data.target} if data.target else set())

    def autoencoder_script(self, recipe: str) -> str:
        """Name of the script that trains a recipe's autoencoders."""
        autoencoder = self.recipes[recipe].autoencoder
        return f"train_{autoencoder.kind}" if autoencoder else ""

    def _chosen_modules(self, recipe: RecipeOptions, stage: Stage) -> list[str]:
        """The modules that a stage imports by the names in the configuration."""
        modules = [stage.module] if stage.module else []
        if "autoencoder" in stage.networks and recipe.autoencoder is not None:
            modules.append(AUTOENCODER_MODULE[recipe.autoencoder.kind])
        if "regression" in stage.networks and recipe.regression is not None:
            modules.append("pipeline_lib.models.regressor")
        if "denoiser" in stage.networks:
            modules += ["pipeline_lib.models.unet", f"pipeline_lib.noise.{recipe.diffusion.noise.kind}"]
        return modules


def _but_for_the_start(recipe: RecipeOptions) -> dict[str, Any]:
    """Options without what its networks start from, and the rate and warm-up that belong to it."""
    options = recipe.model_dump(mode="json")
    for section in ("autoencoder", "denoiser"):
        if options[section]:
            del options[section]["start_from"]
            for name in ("learning_rate", "warmup"):
                del options[section]["training"][name]
    return options


def _column(scan: Scan, condition: str) -> str | float | None:
    """What the sheet says of a scan in the column of a condition."""
    value = getattr(scan, condition) if condition in CONDITIONS else dict(scan.covariates).get(condition)
    return value if isinstance(value, str | float) else None
