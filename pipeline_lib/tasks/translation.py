"""What would the target modality look like, given the source?"""

from __future__ import annotations

from pipeline_lib.tasks.shared import AUTOENCODER, DATASET, DENOISER, INTERVALS, LATENTS, MODEL, SAMPLER, UNSEEN
from pipeline_lib.tasks.task import Stage, Task

FLOOR = Stage("floor", "Linear fit", ("task", "data"), "pipeline_lib.inference.translation:fit_floor")
INFERENCE = Stage(
    "inference",
    "Inference",
    (*MODEL, *SAMPLER, *UNSEEN, "sampling.count"),
    "pipeline_lib.inference.translation:infer_translation",
    networks=("autoencoder", "denoiser"),
)
EVALUATION = Stage(
    "evaluation",
    "Evaluation",
    (*INFERENCE.reads, *INTERVALS),
    "pipeline_lib.metrics.evaluate_translation:evaluate_translation",
    shown=True,
)

TASK = Task(
    name="translation",
    question="What would the target modality look like, given the source?",
    reading=(
        "Read the model between two bounds. The floor is the interpolated source fitted linearly to the target. The "
        "ceiling is the autoencoder's own reconstruction of the target: what is lost there is lost to every prediction "
        "in its latent space."
    ),
    headline=("psnr", "ssim"),
    limits=(
        "The prediction is a plausible target, not a measurement. Detail that the source does not hold is invented.",
        "Image similarity rewards smooth predictions. Look at the pictures as well.",
        "Not for diagnosis.",
    ),
    stages=(DATASET, AUTOENCODER, LATENTS, DENOISER, FLOOR, INFERENCE, EVALUATION),
    inferred="For each person the target's latent was sampled by {sampler}, given the source, and decoded; the prediction is the mean of {recipe.sampling.count} such draws.",
    judged=(
        "Confidence intervals are 95% percentile intervals over {recipe.evaluation.bootstrap:,} bootstrap resamples of "
        "people."
    ),
    works_on="latents",
    conditional=False,
    source_and_target=True,
    draws=1,
)
