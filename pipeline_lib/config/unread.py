"""Options that were given and that nothing would read: refused, since they promise an effect."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pipeline_lib.config.schema import Options, RecipeOptions
from pipeline_lib.tasks import TASKS
from pipeline_lib.tasks.task import covers

ONLY_WHERE: dict[str, tuple[str, Callable[[RecipeOptions], bool]]] = {
    "data.target": ("the task translates", lambda recipe: TASKS[recipe.task].source_and_target),
    "data.target_channels": ("the task translates", lambda recipe: TASKS[recipe.task].source_and_target),
    "data.lesion_free": ("the task is anomaly", lambda recipe: recipe.task == "anomaly" or not recipe.data.lesion_free),
    "data.slices": (
        "data.dimensions is 2 and the modality has volumes",
        lambda recipe: recipe.data.dimensions == 2 and recipe.data.modality != "image",
    ),
    "data.voxel_size": ("the modality has volumes", lambda recipe: recipe.data.modality != "image"),
    "data.fit": ("the modality is image", lambda recipe: recipe.data.modality == "image"),
    "autoencoder.training.augment.gamma": (
        "images are no pairs, whose intensities belong together",
        lambda recipe: not TASKS[recipe.task].source_and_target or not recipe.autoencoder.training.augment.gamma,  # type: ignore[union-attr]
    ),
    "regression.training.augment.gamma": (
        "images are no pairs, whose intensities belong together",
        lambda recipe: not recipe.regression.training.augment.gamma,  # type: ignore[union-attr]
    ),
    "denoiser.training.augment.gamma": (
        "images are no pairs, whose intensities belong together",
        lambda recipe: (
            not TASKS[recipe.task].source_and_target
            or recipe.autoencoder is not None
            or not recipe.denoiser.training.augment.gamma
        ),
    ),
    **dict.fromkeys(
        [f"autoencoder.{key}" for key in ("kl_weight", "groups", "upsampling")],
        ("autoencoder.kind is vae", lambda recipe: _kind(recipe) == "vae"),
    ),
    **dict.fromkeys(
        [
            f"autoencoder.{key}"
            for key in ("codes", "commitment", "codebook_start", "adversarial_weight", "adversarial_start")
        ],
        ("autoencoder.kind is vqgan", lambda recipe: _kind(recipe) == "vqgan"),
    ),
    **dict.fromkeys(
        [f"diffusion.noise.{key}" for key in ("octaves", "decay", "frequency", "raw")],
        ("diffusion.noise.kind is simplex", lambda recipe: recipe.diffusion.noise.kind == "simplex"),
    ),
    "diffusion.noise.spacing": (
        "diffusion.noise.kind is coarse",
        lambda recipe: recipe.diffusion.noise.kind == "coarse",
    ),
    "diffusion.loss_weight_cap": (
        "diffusion.loss_weight is v or min_snr",
        lambda recipe: recipe.diffusion.loss_weight != "none",
    ),
    "denoiser.condition": (
        "the task can be conditioned",
        lambda recipe: not recipe.denoiser.condition or TASKS[recipe.task].conditional,
    ),
    "denoiser.training.augment": ("the denoiser learns images, not latents", lambda recipe: recipe.autoencoder is None),
    "evaluation.score.draws": (
        "evaluation.score.levels is set",
        lambda recipe: bool(recipe.evaluation.score.levels),
    ),
    "evaluation.source_voxel_size": ("evaluation.shells is set", lambda recipe: bool(recipe.evaluation.shells)),
    "evaluation.segmenter": ("the modality has volumes", lambda recipe: recipe.data.modality != "image"),
    "sampling.start": (
        "evaluation.score.levels is empty",
        lambda recipe: not recipe.evaluation.score.levels,
    ),
    "sampling.eta": ("sampling.sampler is ddim", lambda recipe: recipe.sampling.sampler == "ddim"),
    **dict.fromkeys(
        [
            "denoiser.drop_condition",
            "sampling.guidance",
            "sampling.conditions",
            "sampling.others",
            "sampling.counterfactuals",
        ],
        ("denoiser.condition is set", lambda recipe: bool(recipe.denoiser.condition)),
    ),
}
"""What is read only where another option says so."""


def unread(recipe: RecipeOptions) -> Iterator[str]:
    """A line for each option that was given and that no stage of the recipe's task reads."""
    task = TASKS[recipe.task]
    for key in _given(recipe):
        if covers(task.ignores, key):
            continue
        if not covers(task.reads, key):
            section = key.rpartition(".")[0]
            known = sorted(name.removeprefix(f"{section}.") for name in task.reads if name.startswith(f"{section}."))
            beside = f"; of {section} it reads {', '.join(known)}" if known else ""
            yield f"{key}: nothing in {task.name} reads it{beside}; remove it"
        elif (rule := ONLY_WHERE.get(key)) and not rule[1](recipe):
            yield f"{key}: read only where {rule[0]}; remove it"


def _given(options: Options, where: str = "") -> Iterator[str]:
    """Keys that were written down; a section is named as one where nothing is read of it but whole."""
    for name in sorted(options.model_fields_set):
        key, value = f"{where}{name}", getattr(options, name)
        if value is None:
            continue
        if not isinstance(value, Options) or key in ONLY_WHERE:
            yield key
        if isinstance(value, Options):
            yield from _given(value, f"{key}.")


def _kind(recipe: RecipeOptions) -> str:
    return recipe.autoencoder.kind if recipe.autoencoder else ""
