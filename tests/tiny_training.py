"""Trainings of a few steps, for tests that start them in other processes."""

from __future__ import annotations

from pathlib import Path

from tiny_chunks import FLAT

from pipeline_lib.config.schema import AutoencoderOptions, DenoiserOptions, RecipeOptions, TrainingOptions
from pipeline_lib.training.denoiser import train_denoiser
from pipeline_lib.training.vae import train_vae
from pipeline_lib.training.vqgan import train_vqgan

TRAINING = {"steps": 8, "batch_size": 3, "warmup": 2, "validate_every": 4, "checkpoint_every": 2, "ema": 0.5}
NETWORK = {"channels": [8, 8], "blocks": 1, "attention": [False, True], "head_channels": 4}
RECIPE = RecipeOptions.model_validate(
    {
        "task": "generation",
        "data": FLAT.model_dump(),
        "diffusion": {"timesteps": 10},
        "denoiser": {**NETWORK, "training": TRAINING},
        "sampling": {"checkpoints": 2},
    }
)
AUTOENCODER = {"channels": [8, 8], "blocks": 1, "latent_channels": 2, "training": TRAINING}
VAE = AutoencoderOptions.model_validate({"kind": "vae", **AUTOENCODER})
VQGAN = AutoencoderOptions.model_validate({"kind": "vqgan", "codes": 8, "adversarial_start": 3, **AUTOENCODER})


def train(kind: str, chunks: tuple[list[Path], list[Path]], out: Path, state: Path, **training: object) -> Path:
    """``training``: other options than `TRAINING`."""
    if kind == "denoiser":
        denoiser = RECIPE.denoiser.model_copy(update={"training": changed(RECIPE.denoiser, training)})
        train_denoiser(RECIPE.model_copy(update={"denoiser": denoiser}), *chunks, out, state, {})
    else:
        options, run = (VAE, train_vae) if kind == "vae" else (VQGAN, train_vqgan)
        options = options.model_copy(update={"training": changed(options, training)})
        run(options, FLAT, *chunks, out, state, "image")
    return out


def changed(options: AutoencoderOptions | DenoiserOptions, training: dict[str, object]) -> TrainingOptions:
    return options.training.model_copy(update=training)
