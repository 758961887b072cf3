"""What the tasks ask, what their pictures show, and what they cannot tell."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """A task in words; ``headline`` names metrics by preference."""

    question: str
    reading: str
    headline: tuple[str, ...]
    limits: tuple[str, ...]


STAGES = {
    "evaluation": "Evaluation",
    "samples": "Samples",
    "inference": "Inference",
    "embedding": "Embedding",
    "diffusion": "Denoiser",
    "autoencoder": "Autoencoder",
    "latents": "Latents",
    "dataset": "Dataset",
}

TASKS = {
    "anomaly": Task(
        "Where does this brain differ from healthy ones?",
        "Compare the model with the untrained baselines under the same smoothing. The model has to beat them to be of "
        "use. The Dice at the threshold chosen on validation people is the one to expect in practice. The best "
        "achievable Dice uses the answer and is an upper bound.",
        ("pixel AP", "Dice"),
        (
            "An anomaly map marks what the model cannot reproduce. Rare but healthy anatomy, registration errors and "
            "imaging artefacts are marked too.",
            "A lesion as dark or bright as healthy tissue nearby leaves little trace in the map.",
            "Not for diagnosis.",
        ),
    ),
    "synthesis": Task(
        "What do brains of each group look like?",
        "Distances are to held-out people. The floor is one half of them against the other, and no model should be "
        "nearer. The training images stand beside as a reference: a model that copies them reaches it, so the "
        "distance alone says nothing about new scans. The share of suspected copies does, read beside the share "
        "among held-out people.",
        ("FID", "KID"),
        (
            "A synthetic scan belongs to nobody. It shows what the model learned of a group and proves nothing about a "
            "person.",
            "Distances between sets of images depend on the feature network and on the number of images. Compare only "
            "numbers with the same two.",
            "Differences between groups in synthetic scans carry every confound of the training cohort, such as age and site.",
        ),
    ),
    "generation": Task(
        "How well does plain DDPM learn these images?",
        "Follow the samples over the checkpoints: all start from the same noise. The distance to held-out people should "
        "fall towards the floor, one half of them against the other. The share of suspected copies, read beside the "
        "share among held-out people, tells whether it fell by copying.",
        ("FID", "KID"),
        (
            "Distances between sets of images depend on the feature network and on the number of images. Compare only "
            "numbers with the same two.",
            "Samples that look right may be copies of training images. The test of copies finds flipped, turned, scaled and "
            "shifted ones; it does not find parts of several images put together.",
        ),
    ),
    "translation": Task(
        "What would the target modality look like, given the source?",
        "Read the model beside two others. The floor is the interpolated source fitted linearly to the target. The "
        "ceiling is the measured target sent through its autoencoder: what the latents keep of it. A smoother prediction "
        "can score higher than that.",
        ("PSNR", "SSIM"),
        (
            "The prediction is a plausible target, not a measurement. Detail that the source does not hold is invented.",
            "Image similarity rewards smooth predictions. Look at the pictures as well.",
            "Not for diagnosis.",
        ),
    ),
}

CAPTIONS = {
    "strip": (
        "What the network makes over the course of training: samples from the same noise, or reconstructions.",
        "Images made by the network at increasing numbers of training steps.",
    ),
    "grid": ("Samples of the trained model.", "Grid of images sampled from the trained model."),
    "reverse": (
        "The reverse process, from pure noise to an image.",
        "Noise turning step by step into sampled images.",
    ),
    "embedding": (
        "Latents of real and sampled scans embedded by UMAP, coloured by group.",
        "Scatter plot of a two-dimensional embedding of real and synthetic scans.",
    ),
    "examples": (
        "Test people: what went in, what the model made of it, the baselines, and the truth where it is known.",
        "Rows of test people with columns for input, model, baselines and truth.",
    ),
    "precision_recall": (
        "Precision against recall over the lesion pixels of test people; every method is smoothed alike.",
        "Precision-recall curves of the model and of the untrained baselines.",
    ),
    "checkpoints": (
        "Distance of samples to held-out people at every checkpoint, beside real against real and the training images.",
        "Line plots of FID and KID against training steps with a real-against-real floor.",
    ),
    "distances": (
        "Distance of each group's samples to that group's held-out people, beside real against real and the training images.",
        "Dot plots of FID and KID by group with intervals, a floor and a reference.",
    ),
    "groups": (
        "Groups side by side, from the same noise or by the same measure.",
        "Comparison of the groups that the model is conditioned on.",
    ),
    "nearest": (
        "Samples that are most like a training image, beside that image. A copy would be a person's data.",
        "Pairs of a sampled image and its nearest training image.",
    ),
    "loss": (
        "Training and validation loss over steps.",
        "Line plot of training and validation loss against training steps.",
    ),
}
