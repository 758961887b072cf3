"""Where does this brain differ from healthy ones?"""

from __future__ import annotations

from pipeline_lib.tasks.shared import DATASET, DENOISER, INTERVALS, MODEL, SAMPLER, UNSEEN
from pipeline_lib.tasks.task import Stage, Task

SCORE = ("evaluation.smoothing_mm", "evaluation.smoothing", "evaluation.erosion_mm", "evaluation.score")
STANDARDS = Stage(
    "standards",
    "Scores of healthy training images",
    (*MODEL, *SAMPLER, "sampling.start", "sampling.guidance", *SCORE),
    "pipeline_lib.inference.standards:measure_standards",
    networks=("denoiser",),
)
INFERENCE = Stage(
    "inference",
    "Inference",
    (*MODEL, *SAMPLER, *UNSEEN, "sampling.start", "sampling.guidance", *SCORE),
    "pipeline_lib.inference.anomaly:infer_anomaly",
    networks=("denoiser",),
)
EVALUATION = Stage(
    "evaluation",
    "Evaluation",
    (*INFERENCE.reads, *INTERVALS),
    "pipeline_lib.evaluation.anomaly:evaluate_anomaly",
    shown=True,
)

TASK = Task(
    name="anomaly",
    question="Where does this brain differ from healthy ones?",
    reading=(
        "Compare the model with the untrained baselines under the same smoothing. The model has to beat them to be of "
        "use. The Dice at the threshold chosen on validation people is the one to expect in practice. The best "
        "achievable Dice uses the answer and is an upper bound."
    ),
    headline=("pixel AP", "Dice"),
    verdicts={
        "better": "Finds lesions better than {floor}",
        "worse": "Finds lesions worse than {floor}",
        "undecided": "Finds lesions neither better nor worse than {floor}, as far as these people tell",
    },
    limits=(
        "An anomaly map marks what the model cannot reproduce. Rare but healthy anatomy, registration errors and "
        "imaging artefacts are marked too.",
        "A lesion as dark or bright as healthy tissue nearby leaves little trace in the map.",
        "Not for diagnosis.",
    ),
    stages=(DATASET, DENOISER, STANDARDS, INFERENCE, EVALUATION),
    inferred="{map}",
    judged=(
        "Confidence intervals are 95% percentile intervals over {recipe.evaluation.bootstrap:,} bootstrap resamples of "
        "people, not of slices; differences between methods are paired over the same resamples. Each method's threshold "
        "was chosen on validation people, never on test people. People of whom nobody said whether they have lesions "
        "were not scored, unless of a group trained on as healthy."
    ),
    works_on="images",
)
