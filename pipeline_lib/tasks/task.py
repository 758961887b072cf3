"""What a task is: its question, its stages, what each reads of the configuration, and how its results are to be read.

A task is data. It names modules and options by text and imports nothing, since every job of a cluster reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

CHANGED: Mapping[str, bool | float] = {"flip": True, "rotate": 6.0, "scale": 0.07, "shift": 0.04, "gamma": 0.2}
"""Parts of the augmentation and how much of each: degrees, shares of the size, log2 of an exponent."""
MOVED: Mapping[str, bool | float] = {**CHANGED, "gamma": 0.0}
"""Likewise, with the intensities as they are: what learns to draw them would draw changed ones."""

FREE = (
    "data.train_groups", "data.slices.from_mm", "data.slices.to_mm", "data.slices.every_mm",
    "sampling.batch_size", "sampling.seed", "sampling.allow_trained_people", "evaluation.bootstrap", "evaluation.seed",
)  # fmt: skip
"""Keys that every frozen recipe may set anew."""


@dataclass(frozen=True)
class Stage:
    """A stage of a recipe.

    Attributes:
        name: what the workflow calls it.
        title: its heading on the recipe's page.
        reads: keys of the recipe that it reads; a section's key stands for all that is in it. Nothing else reruns it.
        function: ``module:function`` that does it, where it belongs to one task; called with the recipe, the inputs
            that its rule names, and ``out``.
        networks: sections of the recipe whose network it loads.
        shown: whether its pictures and tables are on the recipe's page.
        needs: section of the recipe without which there is no such stage; empty: it is always there.
        folder: where its results are, below ``results/<recipe>/``; its name unless given.
    """

    name: str
    title: str
    reads: tuple[str, ...]
    function: str = ""
    networks: tuple[str, ...] = ()
    shown: bool = False
    needs: str = ""
    folder: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", self.folder or self.name)

    @property
    def module(self) -> str:
        """The module of ``function``."""
        return self.function.partition(":")[0]


@dataclass(frozen=True)
class Task:
    """A task, whole.

    Attributes:
        name: as in the configuration.
        question: what it answers, in one sentence.
        reading: how its results are to be read.
        of_draws: what is to be read of draws besides; not said of a recipe that draws nothing.
        headline: names of metrics, the first that there is stands for the recipe.
        verdicts: what it means that the model is better than the best ``{floor}``, worse, or undecided.
        passes: the verdicts with which it has done what it is for.
        limits: what its results cannot tell.
        stages: in the order of the workflow.
        works_on: images, or also the latents of an autoencoder.
        conditional: whether its denoiser can be told of people and slices (`denoiser.condition`).
        source_and_target: whether it predicts one modality from another, each with an autoencoder of its own.
        augment: how training images of scans are changed where `training.augment` does not say; see `AugmentOptions`.
        ignores: keys that may be given, so that recipes can share a section, and that change nothing here.
        draws: images drawn where `sampling.count` is not given; 0: it draws none.
        others: what samples are told where `sampling.others` is not given.
        open: keys that a frozen recipe may set anew, besides those of `FREE`: what neither the model nor anything fitted
            with it depends on.
        inferred: what was done with the trained model, a sentence for the methods text; ``{sampler}``, the options
            of the recipe, as in ``{recipe.sampling.count}``, and of conditions, ``{combinations}`` that so many were drawn
            of and what was ``{drawn}`` after people, and of an anomaly ``{map}``, are filled in.
        judged: how results and their intervals came about, likewise.
    """

    name: str
    question: str
    reading: str
    headline: tuple[str, ...]
    verdicts: Mapping[str, str]
    limits: tuple[str, ...]
    stages: tuple[Stage, ...]
    inferred: str
    judged: str
    works_on: Literal["images", "either"] = "either"
    conditional: bool = True
    source_and_target: bool = False
    augment: Mapping[str, bool | float] = field(default_factory=lambda: dict(CHANGED))
    ignores: tuple[str, ...] = ()
    draws: int = 0
    of_draws: str = ""
    others: Literal["cohort", "every"] = "every"
    open: tuple[str, ...] = ()
    passes: tuple[str, ...] = ("better",)

    @property
    def reads(self) -> tuple[str, ...]:
        """Every key that a stage reads, each once."""
        return tuple(dict.fromkeys(key for stage in self.stages for key in stage.reads))

    def stage(self, name: str) -> Stage:
        """The stage of a name.

        Raises:
            KeyError: the task has none of this name.
        """
        return {stage.name: stage for stage in self.stages}[name]

    @property
    def roles(self) -> tuple[str, ...]:
        """The autoencoders of a recipe that works on latents."""
        return ("source", "target") if self.source_and_target else ("image",)


def covers(keys: Iterable[str], key: str) -> bool:
    """Whether ``key`` or a section that holds it is among ``keys``."""
    return any(key == known or key.startswith(f"{known}.") for known in keys)
