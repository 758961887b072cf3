"""What would the target modality look like, given the source?"""

from __future__ import annotations

from pipeline_lib.tasks.shared import AUTOENCODER, DATASET, INTERVALS, LATENTS, MODEL, SAMPLER, UNSEEN
from pipeline_lib.tasks.task import MOVED, Stage, Task

FLOOR = Stage("floor", "Linear fit", ("task", "data"), "pipeline_lib.inference.translation:fit_floor")
REGRESSION = Stage(
    "regression", "Regression", ("task", "data", "regression"), networks=("regression",), shown=True, needs="regression"
)
DENOISER = Stage(
    "denoiser",
    "Denoiser",
    MODEL,  # no checkpoints: nothing here looks at them
    networks=("autoencoder", "regression", "denoiser"),
    shown=True,
    folder="diffusion",
)
INFERENCE = Stage(
    "inference",
    "Inference",
    (*MODEL, *SAMPLER, *UNSEEN, "sampling.count"),
    "pipeline_lib.inference.translation:infer_translation",
    networks=("autoencoder", "regression", "denoiser"),
)
EVALUATION = Stage(
    "evaluation",
    "Evaluation",
    (
        *INFERENCE.reads,
        "regression",
        *INTERVALS,
        "evaluation.regions",
        "evaluation.shells",
        "evaluation.source_voxel_size",
    ),
    "pipeline_lib.evaluation.translation:evaluate_translation",
    shown=True,
)

TASK = Task(
    name="translation",
    question="What would the target modality look like, given the source?",
    reading=(
        "Read the model beside the others. The floor is the interpolated source fitted linearly to the target. A "
        "regression predicts the mean of all targets that the source allows: by squared error it is hard to beat, by its "
        "spectrum it is too smooth."
    ),
    of_draws=(
        "It is the reference: the mean of several draws should come close to it, while one draw has the target's own "
        "detail. The ceiling of a latent model is the measured target sent through its autoencoder; a smoother prediction "
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
    stages=(DATASET, AUTOENCODER, LATENTS, FLOOR, REGRESSION, DENOISER, INFERENCE, EVALUATION),
    inferred=(
        "For each person {translated} was sampled by {sampler}, given the source; the prediction is the mean of "
        "{recipe.sampling.count} such draws. Intervals of a voxel are those of Student's t for one draw more."
    ),
    judged=(
        "Confidence intervals are 95% percentile intervals over {recipe.evaluation.bootstrap:,} bootstrap resamples of "
        "people; differences between methods are paired over people. All was measured inside the brain."
    ),
    ignores=("sampling.checkpoints",),
    conditional=False,
    source_and_target=True,
    augment={**MOVED, "flip": False},  # maps have units, and are of one person's two sides
    draws=1,
    open=("sampling",),
)
