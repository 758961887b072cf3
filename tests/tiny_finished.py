"""Finished recipes as small as they can be: what a run leaves in ``results/<recipe>``, made by its stages' functions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tiny_chunks import FLAT, preprocessed
from tiny_training import NETWORK, TRAINING

from pipeline_lib.config.part import recipe_part
from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.dataset.pack import pack_chunk
from pipeline_lib.evaluation.anomaly import evaluate_anomaly
from pipeline_lib.evaluation.generation import evaluate_generation
from pipeline_lib.files import write_json
from pipeline_lib.inference.anomaly import infer_anomaly
from pipeline_lib.inference.generation import sample_generation
from pipeline_lib.inference.standards import measure_standards
from pipeline_lib.tasks import TASKS
from pipeline_lib.training.denoiser import train_denoiser

PREPROCESS = {"voxel_size": 6.0, "bias_field": False, "brain_extraction": "given", "intensity": "percentile"}
PEOPLE = {"train": "abcd", "validation": "ef", "test": "gh"}


def tiny_recipe(task: str, **changes: Any) -> RecipeOptions:
    values: dict[str, Any] = {
        "task": task,
        "data": FLAT.model_dump(mode="json") | {"train_groups": ["CN"]},
        "diffusion": {"timesteps": 10},
        "denoiser": {**NETWORK, "training": TRAINING},
        "sampling": {"steps": 2, "checkpoints": 1, **({"count": 6} if task == "generation" else {})},
        "evaluation": {"bootstrap": 20},
    }
    return RecipeOptions.model_validate(values | changes)


def chunk_of(folder: Path, recipe: RecipeOptions, split: str, people: str, *, lesion: bool = False) -> Path:
    """A packed chunk that says how it was preprocessed."""
    source = preprocessed(folder / f"preprocessed-{split}", [(person, "CN") for person in people], lesion=lesion)
    write_json(source / "provenance.json", {"options": PREPROCESS})
    pack_chunk(source, recipe.data, folder / "dataset" / f"{split}-anat-0001")
    return folder / "dataset" / f"{split}-anat-0001"


def finished(folder: Path, task: str, **changes: Any) -> Path:
    """A recipe run to its end."""
    recipe = tiny_recipe(task, **changes)
    lesion = task == "anomaly"
    chunks = {
        split: chunk_of(folder, recipe, split, people, lesion=lesion and split != "train")
        for split, people in PEOPLE.items()
    }
    diffusion = folder / "diffusion"
    train_denoiser(recipe, [chunks["train"]], [chunks["validation"]], diffusion, folder / "state", {}, licence="CC0")
    held_out = [chunks["validation"], chunks["test"]]
    if task == "anomaly":
        measure_standards(recipe, diffusion, [chunks["train"]], folder / "standards")
        inferred = [folder / "inference" / chunk.name for chunk in held_out]
        for chunk, out in zip(held_out, inferred, strict=True):
            infer_anomaly(recipe, diffusion, folder / "standards", chunk, out)
        evaluate_anomaly(recipe, diffusion, inferred, held_out, folder / "standards", folder / "evaluation")
    else:
        sample_generation(recipe, diffusion, held_out, folder / "samples")
        evaluate_generation(recipe, diffusion, folder / "samples", [chunks["train"]], held_out, folder / "evaluation")
    options = json.loads(recipe_part(recipe, TASKS[task].stage("evaluation").reads))
    write_json(folder / "evaluation" / "provenance.json", {"options": options})
    return folder
