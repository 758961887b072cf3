"""The tasks: one module each, which holds the task as ``TASK``."""

from __future__ import annotations

import importlib
import pkgutil

from pipeline_lib.tasks.task import Task

NOT_TASKS = ("shared", "task")

MODULES = {
    module.name: f"{__name__}.{module.name}"
    for module in pkgutil.iter_modules(__path__)
    if module.name not in NOT_TASKS
}
"""The module of each task by the task's name."""
TASKS: dict[str, Task] = {name: importlib.import_module(module).TASK for name, module in MODULES.items()}
"""Every task by its name."""
