"""How well does plain DDPM learn these images?"""

from __future__ import annotations

from pipeline_lib.tasks.shared import DATASET, DENOISER, INTERVALS, MODEL, SAMPLER, TOLD, UNSEEN
from pipeline_lib.tasks.task import Stage, Task

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
    (*SAMPLES.reads, *UNSEEN, *INTERVALS),
    "pipeline_lib.metrics.evaluate_generation:evaluate_generation",
    shown=True,
)

TASK = Task(
    name="generation",
    question="How well does plain DDPM learn these images?",
    reading=(
        "Follow the samples over the checkpoints: all start from the same noise. The distance to real images should "
        "fall towards the floor, which is the distance of held-out real images."
    ),
    headline=("fid", "kid"),
    limits=(
        "Distances between sets of images depend on the feature network and on the number of images. Compare only "
        "numbers with the same two.",
        "Samples that look right may be copies of training images. Read the memorisation test where there is one.",
    ),
    stages=(
        DATASET,
        DENOISER,
        SAMPLES,
        EVALUATION,
    ),
    inferred=(
        "{recipe.sampling.count} images{combinations} were sampled by {sampler} at each of {recipe.sampling.checkpoints} "
        "checkpoints, always from the same noise.{drawn}"
    ),
    judged=(
        "Confidence intervals of distances between sets of images are 95% intervals over random halves of the samples, "
        "and of the held-out people for the floor."
    ),
    works_on="images",
    others="cohort",
    draws=64,
)
