"""What do brains look like, given group, age and other conditions?"""

from __future__ import annotations

from pipeline_lib.tasks.shared import (
    AUTOENCODER,
    DATASET,
    FOLLOWED,
    INTERVALS,
    LATENTS,
    MEANING,
    MODEL,
    SAMPLER,
    TOLD,
    UNSEEN,
)
from pipeline_lib.tasks.task import MOVED, Stage, Task

SAMPLES = Stage(
    "inference",
    "Samples",
    (*MODEL, *SAMPLER, *TOLD, "sampling.count", "sampling.checkpoints"),
    "pipeline_lib.inference.synthesis:sample_synthesis",
    networks=("autoencoder", "denoiser"),
    shown=True,
    folder="samples",
)
COUNTERFACTUALS = Stage(
    "counterfactuals",
    "Counterfactuals",
    (
        *MODEL,
        *(f"sampling.{key}" for key in ("steps", "batch_size", "conditions", "counterfactuals")),
        *UNSEEN,
    ),
    "pipeline_lib.inference.counterfactual:make_counterfactuals",
    networks=("autoencoder", "denoiser"),
    shown=True,
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
    (*SAMPLES.reads, *UNSEEN, *INTERVALS, *MEANING),
    "pipeline_lib.evaluation.synthesis:evaluate_synthesis",
    shown=True,
)

TASK = Task(
    name="synthesis",
    question="What do brains look like, given group, age and other conditions?",
    reading=(
        "Distances are to held-out people. The floor is one half of them against the other, and no model should be "
        "nearer. The training images stand beside as a reference: a model that copies them reaches it, so the "
        "distance alone says nothing about new scans. The share of suspected copies does, read beside the share "
        "among held-out people."
    ),
    headline=("FID", "KID"),
    verdicts={
        "better": "Samples lie nearer to held-out people than held-out people to each other ({floor}), as copies would",
        "worse": "Samples lie farther from held-out people than these from each other ({floor})",
        "undecided": "Samples cannot be told from held-out people by their distance to them ({floor}), as far as these images tell",
    },
    limits=(
        "A synthetic scan belongs to nobody. It shows what the model learned of a group and proves nothing about a "
        "person.",
        "Distances between sets of images depend on the feature network and on the number of images. Compare only "
        "numbers with the same two.",
        "Differences between groups in synthetic scans carry every confound of the training cohort, such as age and "
        "site.",
        "A counterfactual shows what the model learned of a group or an age, not what will become of a person.",
    ),
    stages=(DATASET, AUTOENCODER, LATENTS, FOLLOWED, SAMPLES, COUNTERFACTUALS, EMBEDDING, EVALUATION),
    inferred="New scans, {recipe.sampling.count}{combinations}, were sampled by {sampler}.{drawn}",
    judged=(
        "Sets of images were compared in equal number with random halves of the held-out people; intervals are 1.96 "
        "standard deviations over halves, and differences are paired over them. Copies were looked for by aligning "
        "each sample with the training images most like it, under flips, rotation, scale and shift."
    ),
    augment=dict(MOVED),
    draws=64,
    passes=("better", "undecided"),  # the floor is people against people
    open=("sampling", "evaluation.features"),
)
