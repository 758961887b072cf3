"""What would the target modality look like, given the source?"""

from __future__ import annotations

from pipeline_lib.tasks.shared import AUTOENCODER, DATASET, FOLLOWED, INTERVALS, LATENTS, MODEL, SAMPLER, UNSEEN
from pipeline_lib.tasks.task import CHANGED, Stage, Task

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
    "pipeline_lib.evaluation.translation:evaluate_translation",
    shown=True,
)

TASK = Task(
    name="translation",
    question="What would the target modality look like, given the source?",
    reading=(
        "Read the model beside two others. The floor is the interpolated source fitted linearly to the target. The "
        "ceiling is the measured target sent through its autoencoder: what the latents keep of it. A smoother prediction "
        "can score higher than that."
    ),
    headline=("PSNR", "SSIM"),
    verdicts={
        "better": "Predicts the target better than the {floor}",
        "worse": "Predicts the target worse than the {floor}",
        "undecided": "Predicts the target neither better nor worse than the {floor}, as far as these people tell",
    },
    limits=(
        "The prediction is a plausible target, not a measurement. Detail that the source does not hold is invented.",
        "Image similarity rewards smooth predictions. Look at the pictures as well.",
        "Not for diagnosis.",
    ),
    stages=(DATASET, AUTOENCODER, LATENTS, FOLLOWED, FLOOR, INFERENCE, EVALUATION),
    inferred="For each person the target's latent was sampled by {sampler}, given the source, and decoded; the prediction is the mean of {recipe.sampling.count} such draws.",
    judged=(
        "Confidence intervals are 95% percentile intervals over {recipe.evaluation.bootstrap:,} bootstrap resamples of "
        "people; differences between methods are paired over people."
    ),
    works_on="latents",
    conditional=False,
    source_and_target=True,
    augment={**CHANGED, "flip": False, "gamma": 0.0},  # maps have units, and are of one person's two sides
    draws=1,
    open=("sampling",),
)
