"""What do brains look like, given group, age and other conditions?"""

from __future__ import annotations

from pipeline_lib.tasks.shared import AUTOENCODER, DATASET, DENOISER, INTERVALS, LATENTS, MODEL, SAMPLER, TOLD, UNSEEN
from pipeline_lib.tasks.task import Stage, Task

SAMPLES = Stage(
    "inference",
    "Samples",
    (*MODEL, *SAMPLER, *TOLD, "sampling.count"),
    "pipeline_lib.inference.synthesis:sample_synthesis",
    networks=("autoencoder", "denoiser"),
    shown=True,
    folder="samples",
)
EMBEDDING = Stage(
    "embedding",
    "Embedding",
    (*SAMPLES.reads, "evaluation.seed"),
    "pipeline_lib.inference.embedding:embed",
    networks=("autoencoder", "denoiser"),
    shown=True,
)
EVALUATION = Stage(
    "evaluation",
    "Evaluation",
    (*SAMPLES.reads, *UNSEEN, *INTERVALS),
    "pipeline_lib.metrics.evaluate_synthesis:evaluate_synthesis",
    shown=True,
)

TASK = Task(
    name="synthesis",
    question="What do brains look like, given group, age and other conditions?",
    reading=(
        "Compare the distance between synthetic and real scans with the distance of held-out real scans: "
        "the second is the floor. The memorisation test asks whether synthetic scans lie closer to training scans than "
        "new real scans do."
    ),
    headline=("fid", "kid"),
    limits=(
        "A synthetic scan belongs to nobody. It shows what the model learned of a group and proves nothing about a "
        "person.",
        "Distances between sets of images depend on the feature network and on the number of images. Compare only "
        "numbers with the same two.",
        "Differences between groups in synthetic scans carry every confound of the training cohort, such as age and "
        "site.",
    ),
    stages=(DATASET, AUTOENCODER, LATENTS, DENOISER, SAMPLES, EMBEDDING, EVALUATION),
    inferred="New scans, {recipe.sampling.count}{combinations}, were sampled by {sampler}.{drawn}",
    judged=(
        "Confidence intervals of distances between sets of images are 95% intervals over random halves of the samples, "
        "and of the held-out people for the floor."
    ),
    draws=64,
)
