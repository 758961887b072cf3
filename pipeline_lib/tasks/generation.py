"""How well does plain DDPM learn these images?"""

from __future__ import annotations

from pipeline_lib.tasks.shared import DATASET, FOLLOWED, INTERVALS, MEANING, MODEL, SAMPLER, TOLD, UNSEEN
from pipeline_lib.tasks.task import MOVED, Stage, Task

SAMPLES = Stage(
    "inference",
    "Samples",
    (*MODEL, *SAMPLER, *TOLD, "sampling.count", "sampling.checkpoints"),
    "pipeline_lib.inference.generation:sample_generation",
    networks=("denoiser",),
    shown=True,
    folder="samples",
)
EVALUATION = Stage(
    "evaluation",
    "Evaluation",
    (*SAMPLES.reads, *UNSEEN, *INTERVALS, *MEANING),
    "pipeline_lib.evaluation.generation:evaluate_generation",
    shown=True,
)

TASK = Task(
    name="generation",
    question="How well does plain DDPM learn these images?",
    reading=(
        "Follow the samples over the checkpoints: all start from the same noise. The distance to held-out people should "
        "fall towards the floor, one half of them against the other. The share of suspected copies, read beside the "
        "share among held-out people, tells whether it fell by copying."
    ),
    headline=("FID", "KID"),
    verdicts={
        "better": "Samples lie nearer to held-out people than held-out people to each other ({floor}), as copies would",
        "worse": "Samples lie farther from held-out people than these from each other ({floor})",
        "undecided": "Samples cannot be told from held-out people by their distance to them ({floor}), as far as these images tell",
    },
    limits=(
        "Distances between sets of images depend on the feature network and on the number of images. Compare only "
        "numbers with the same two.",
        "Samples that look right may be copies of training images. The test of copies finds flipped, turned, scaled and "
        "shifted ones; it does not find parts of several images put together.",
    ),
    stages=(
        DATASET,
        FOLLOWED,
        SAMPLES,
        EVALUATION,
    ),
    inferred=(
        "{recipe.sampling.count} images{combinations} were sampled by {sampler} at each of {recipe.sampling.checkpoints} "
        "checkpoints, always from the same noise.{drawn}"
    ),
    judged=(
        "Sets of images were compared in equal number with random halves of the held-out people; intervals are 1.96 "
        "standard deviations over halves, and differences are paired over them. Copies were looked for by aligning "
        "each sample with the training images most like it, under flips, rotation, scale and shift."
    ),
    works_on="images",
    others="cohort",
    augment=dict(MOVED),
    draws=64,
    passes=("better", "undecided"),  # the floor is people against people
    open=("sampling", "evaluation.features"),
)
