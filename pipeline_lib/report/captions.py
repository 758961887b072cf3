"""What the pictures of the report show: a caption, and a description for who cannot see them."""

from __future__ import annotations

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
    "spectrum": (
        "Power of predicted maps over that of the measured ones, by frequency, means over test people: 0 dB is as much detail as "
        "was measured. Of the diffusion, one draw.",
        "A line of power against frequency for each method, a panel for each map.",
    ),
    "regions": (
        "Correlation of predicted with measured maps within each region, means over test people; regions in the order of the "
        "result's. The table names them, with differences paired over people.",
        "A dot for each region and method, a panel for each map.",
    ),
    "distances": (
        "Distance of each group's samples to that group's held-out people, beside real against real and the training images.",
        "Dot plots of FID and KID by group with intervals, a floor and a reference.",
    ),
    "conditions": (
        "Combinations of conditions from the same noise, what each changes, and the mean over all samples.",
        "Rows of samples under different conditions, and their differences from the first row.",
    ),
    "ventricles": (
        "Share of the lateral ventricles in the brain, measured alike in samples and in held-out people: of slices at the same places, or of whole brains. A "
        "dot is a sample, or a person's mean; lines are means, and over age straight fits.",
        "Dot plots of the ventricles' share in samples and held-out people by group and over age.",
    ),
    "counterfactuals": (
        "Held-out scans made again under other conditions from the noise that they were inverted to, and what that changes. "
        "It shows what the model learned of a group, not what will become of a person.",
        "Rows of people: the scan, its round trip, the same brain under other conditions, and difference maps.",
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


def caption_of(stem: str) -> str:
    """Which caption a picture has: ``counterfactuals_age`` that of ``counterfactuals``; empty: none."""
    return next((name for name in (stem, stem.partition("_")[0]) if name in CAPTIONS), "")
