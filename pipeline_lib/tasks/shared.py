"""Stages that tasks share, and keys that are read together."""

from __future__ import annotations

from pipeline_lib.tasks.task import Stage

MODEL = ("task", "data", "autoencoder", "diffusion", "denoiser")
SAMPLER = tuple(f"sampling.{key}" for key in ("sampler", "steps", "eta", "batch_size", "seed"))
TOLD = ("sampling.guidance", "sampling.conditions", "sampling.others")
UNSEEN = ("sampling.allow_trained_people",)
MEANING = ("evaluation.features", "evaluation.segmenter", "evaluation.ages")
INTERVALS = ("evaluation.bootstrap", "evaluation.seed")

DATASET = Stage("dataset", "Dataset", ("data",))
AUTOENCODER = Stage(
    "autoencoder", "Autoencoder", ("task", "data", "autoencoder"), networks=("autoencoder",), shown=True, latent=True
)
LATENTS = Stage("latents", "Latents", (), networks=("autoencoder",), latent=True)
DENOISER = Stage(
    "denoiser",
    "Denoiser",
    (*MODEL, "sampling.checkpoints"),
    networks=("autoencoder", "denoiser"),
    shown=True,
    folder="diffusion",
)
