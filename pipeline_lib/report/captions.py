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
        ("pixel ap", "dice"),
        (
            "An anomaly map marks what the model cannot reproduce. Rare but healthy anatomy, registration errors and "
            "imaging artefacts are marked too.",
            "A lesion as dark or bright as healthy tissue nearby leaves little trace in the map.",
            "Not for diagnosis.",
        ),
    ),
    "synthesis": Task(
        "What do brains of each group look like?",
        "Compare the distance between synthetic and real scans with the distance of held-out real scans: "
        "the second is the floor. The memorisation test asks whether synthetic scans lie closer to training scans than "
        "new real scans do.",
        ("fid", "kid"),
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
        "Follow the samples over the checkpoints: all start from the same noise. The distance to real images should "
        "fall towards the floor, which is the distance of held-out real images.",
        ("fid", "kid"),
        (
            "Distances between sets of images depend on the feature network and on the number of images. Compare only "
            "numbers with the same two.",
            "Samples that look right may be copies of training images. Read the memorisation test where there is one.",
        ),
    ),
    "translation": Task(
        "What would the target modality look like, given the source?",
        "Read the model between two bounds. The floor is the interpolated source fitted linearly to the target. The "
        "ceiling is the autoencoder's own reconstruction of the target, which no prediction in its latent space exceeds.",
        ("psnr", "ssim"),
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
        "Real and sampled images in the autoencoder's latents and at the bottleneck of the U-Net, which is told nothing of "
        "them, by UMAP. UMAP alone proves nothing; the AUC is that of a linear classifier of people it was not fitted to, "
        "with its permutation p-value.",
        "Scatter plots of two-dimensional embeddings of real and synthetic images, coloured by group, age, site and others.",
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
        "Distance of samples to held-out images at every checkpoint, beside the distance of real to real images.",
        "Line plots of FID and KID against training steps with a real-against-real floor.",
    ),
    "conditions": (
        "Combinations of conditions from the same noise, what each changes, and the mean over all samples.",
        "Rows of samples under different conditions, and their differences from the first row.",
    ),
    "groups": (
        "Distance of each group's samples to real people of that group, beside the distance of real to real people.",
        "Comparison of the groups by one measure.",
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
