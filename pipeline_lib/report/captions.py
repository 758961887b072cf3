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
