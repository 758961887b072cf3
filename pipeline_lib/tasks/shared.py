"""Stages that tasks share, and keys that are read together."""

from __future__ import annotations

from dataclasses import replace

from pipeline_lib.tasks.task import Stage

IMAGES = tuple(
    f"data.{key}"
    for key in (
        "modality", "target", "dimensions", "size", "voxel_size", "channels", "target_channels", "slices", "fit",
        "intensity",
    )
)  # fmt: skip
"""What decides the training images, whoever is trained on."""
MODEL = ("task", "data", "autoencoder", "diffusion", "denoiser")
SAMPLER = tuple(f"sampling.{key}" for key in ("sampler", "steps", "eta", "batch_size", "seed"))
TOLD = ("sampling.guidance", "sampling.conditions", "sampling.others")
UNSEEN = ("sampling.allow_trained_people",)
INTERVALS = ("evaluation.bootstrap", "evaluation.seed")

DATASET = Stage("dataset", "Dataset", IMAGES)
AUTOENCODER = Stage(
    "autoencoder", "Autoencoder", ("task", "data", "autoencoder"), networks=("autoencoder",), shown=True, latent=True
)
LATENTS = Stage("latents", "Latents", (), networks=("autoencoder",), latent=True)
DENOISER = Stage("denoiser", "Denoiser", MODEL, networks=("autoencoder", "denoiser"), shown=True, folder="diffusion")
FOLLOWED = replace(DENOISER, reads=(*MODEL, "sampling.checkpoints"))
"""A denoiser whose averaged weights along the training are kept."""
