"""Tasks are whole: what they name exists, and every option of the configuration has a reader."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline_lib.config.part import options_of
from pipeline_lib.config.schema import DataOptions, Options, RecipeOptions
from pipeline_lib.config.unread import ONLY_WHERE
from pipeline_lib.tasks import MODULES, TASKS
from pipeline_lib.tasks.shared import DATASET
from pipeline_lib.tasks.task import Task, covers


def keys_of(model: type[Options], where: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        inside = options_of(field.annotation)
        yield f"{where}{name}"
        if inside:
            yield from keys_of(inside, f"{where}{name}.")


KEYS = list(keys_of(RecipeOptions))


def test_the_tasks_are_those_of_the_modules() -> None:
    assert set(TASKS) == set(MODULES) >= {"anomaly", "generation", "synthesis", "translation"}
    assert all(task.name == name for name, task in TASKS.items())


def test_every_option_is_read_by_a_task() -> None:
    by_the_plan = {"weights"}  # what a frozen recipe is made of
    leaves = [key for key in set(KEYS) - by_the_plan if not any(other.startswith(f"{key}.") for other in KEYS)]
    assert [key for key in leaves if not any(covers(task.reads, key) for task in TASKS.values())] == []


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_a_task_reads_only_options_that_there_are(task: Task) -> None:
    assert [key for key in task.reads if key not in KEYS] == []


def test_packing_reads_all_of_the_data_but_who_is_trained_on() -> None:
    of_data = {f"data.{name}" for name in DataOptions.model_fields}
    assert of_data - set(DATASET.reads) == {"data.train_groups", "data.lesion_free"}


def test_rules_of_when_an_option_is_read_name_options_that_there_are() -> None:
    assert [key for key in ONLY_WHERE if key not in KEYS] == []


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_the_function_of_a_stage_takes_what_its_rule_gives(task: Task, repository: Path) -> None:
    rules = (repository / "workflow" / "rules" / f"{task.name}.smk").read_text()
    own = [stage for stage in task.stages if stage.function]
    assert own
    for stage in own:
        module, _, name = stage.function.partition(":")
        taken = set(inspect.signature(getattr(importlib.import_module(module), name)).parameters)
        (rule,) = [
            block
            for block in rules.split("use rule stage as ")[1:]
            if re.search(rf'of_task\("\w+", "{stage.name}"\)', block)
        ]
        given = [line.split("=")[0].strip() for line in rule.split("input:")[1].split("output:")[0].splitlines()]
        named = {word for word in given if word.isidentifier()}
        assert named, stage
        assert named | {"recipe", "out"} <= taken, stage


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
def test_the_methods_text_can_be_filled_in(task: Task) -> None:
    recipe = RecipeOptions.model_construct(task=task.name)
    told = {"combinations": "", "drawn": "", "map": "", "translated": ""}
    assert "{" not in task.inferred.format(recipe=recipe, sampler="DDIM", **told) + task.judged.format(recipe=recipe)
