"""The configuration's types, defaults and limits.

Each stage receives its own part only (``PreprocessOptions``, ``TrainingOptions`` ...), so that a
change in one part cannot rerun a stage that does not read it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Task = Literal["anomaly", "synthesis", "generation", "translation"]


class Options(BaseModel):
    """A part of the configuration: no unknown keys, no change after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CohortOptions(Options):
    """Who takes part."""

    name: str = Field("cohort", description="Name shown on every page of the report.")
    note: str = Field("", description="A sentence shown with every result, e.g. that people are synthetic.")
    subjects: str = Field("config/subjects.tsv", description="The sheet: one row a scan.")
    splits: str = Field("config/splits.tsv", description="The ledger of split and chunk assignments.")
    root: str = Field(".", description="Folder from which relative paths in the sheet start.")
    results: str = Field("results", description="Folder that everything is written to.")
    chunk_size: Positive = Field(50, description="Scans per ingest and preprocess job.")
    max_failed_fraction: Fraction = Field(0.2, description="Stop when more scans of a split than this fail.")
    strict: bool = Field(False, description="Any exclusion is an error.")


class SplitOptions(Options):
    """How people, never scans, are placed in train, validation and test."""

    method: Literal["hash", "from_test"] = Field(
        "hash", description="By the hash of the person, or whole people moved from the sheet's test into validation."
    )
    train: Fraction = Field(0.7, description="Fraction of people trained on.")
    validation: Fraction = Field(0.15, description="Fraction on which thresholds are chosen.")
    test: Fraction = Field(0.15, description="Fraction on which results are reported.")
    stratify: list[Literal["group", "sex", "age_band", "site"]] = Field(
        ["group", "sex", "age_band"], description="What the splits are balanced by."
    )
    age_band_years: Positive = Field(20, description="Width of an age band, years.")
    salt: str = Field("1", description="Changes where new people are placed; people in the ledger stay.")

    @model_validator(mode="after")
    def _fractions_sum_to_one(self) -> SplitOptions:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + validation + test is {total:g}; the three must sum to 1")
        return self


class QualityOptions(Options):
    """Limits outside which a scan is kept out of training and evaluation, and says why."""

    brain_volume_ml: tuple[float, float] = Field((800.0, 2300.0), description="Plausible brain volumes, mL.")
    min_template_overlap: Fraction = Field(0.8, description="Least Dice with the template's brain mask.")
    max_registration_cost: float = Field(
        -0.5,
        description="Highest (worst) registration cost: Mattes mutual information with the template, which is negative.",
    )
    max_mask_components: int = Field(
        20, ge=1, description="Most pieces the extracted brain mask may have had before the largest was kept."
    )
    brain_median: tuple[float, float] = Field(
        (0.1, 0.95),
        description="Plausible medians of the brain's intensities, its 0.5th percentile being 0 and its 99.5th 1.",
    )


class PreprocessOptions(Options):
    """From an ingested scan to a brain in a common space with comparable intensities."""

    brain_extraction: Literal["learned", "given", "synthstrip", "hd-bet", "none"] = Field(
        "learned",
        description="The embedded network, the sheet's mask, an installed program, or none: stripped already, and refused where it is not.",
    )
    bias_field: bool = Field(True, description="N4 bias field correction.")
    space: Literal["MNI152", "native"] = Field("MNI152", description="Space of the output.")
    registration: Literal["affine", "deformable"] = Field(
        "affine", description="To MNI152 by rotation, scale and shear, or by a smooth deformation on top of them."
    )
    voxel_size: float = Field(1.0, gt=0, description="Isotropic voxel size of the output, mm.")
    intensity: Literal["percentile", "zscore", "whitestripe", "none"] = Field(
        "percentile",
        description="0.5 and 99.5 percent of the brain to 0 and 1; mean 0 and deviation 1 of the brain, or of its "
        "normal white matter (WhiteStripe); or as scanned.",
    )
    dwi_channels: Literal["shells", "directions"] = Field(
        "shells", description="Channels of diffusion MRI: b0, then each shell's mean over b0, or every volume over b0."
    )
    noddi: Literal["given", "amico"] = Field(
        "given", description="NODDI maps: the sheet's only, or also fitted to multi-shell dwi (extra noddi)."
    )
    quality: QualityOptions = Field(QualityOptions(), description="Limits of quality.")

    @model_validator(mode="after")
    def _only_what_is_done(self) -> PreprocessOptions:
        if self.space == "native" and self.registration == "deformable":
            raise ValueError(
                "registration is deformable but space is native, where nothing is registered; set space: MNI152"
            )
        return self


class SliceOptions(Options):
    """Which slices of a volume a 2D recipe sees, in mm of the output space along the plane's axis."""

    plane: Literal["axial", "coronal", "sagittal"] = Field("axial", description="Plane of the slices.")
    from_mm: float = Field(-20.0, description="First slice, mm.")
    to_mm: float = Field(40.0, description="Last slice, mm.")
    every_mm: float = Field(4.0, gt=0, description="Distance between slices, mm.")


class DataOptions(Options):
    """What a recipe sees of each scan."""

    modality: str = Field("T1w", description="Modality column of the sheet; for translation, the source.")
    target: str | None = Field(None, description="Modality to be predicted (translation only).")
    dimensions: Literal[2, 3] = Field(2, description="Slices or volumes.")
    size: list[Positive] = Field([128, 128], description="Voxels of a training image along each dimension.")
    voxel_size: float | None = Field(None, gt=0, description="Resample to this voxel size, mm; null keeps it.")
    channels: Positive = Field(1, description="1 for scans and grey images, 3 for RGB, more for diffusion MRI.")
    target_channels: Positive = Field(3, description="Channels of the target (translation only).")
    slices: SliceOptions = Field(SliceOptions(), description="Which slices.")
    train_groups: list[str] = Field([], description="Groups used for training; empty means every group.")


class TrainingOptions(Options):
    """How long and on what a model is trained. Images are counted per optimiser step."""

    steps: Positive = Field(10_000, description="Optimiser steps.")
    batch_size: Positive = Field(16, description="Images a batch, over all devices.")
    accumulate: Positive = Field(1, description="Batches an optimiser step.")
    learning_rate: float = Field(1e-4, gt=0, description="Highest learning rate of AdamW.")
    warmup: int = Field(500, ge=0, description="Steps until it is reached; a cosine takes it to 0.")
    clip: float = Field(1.0, gt=0, description="Largest norm of the gradient.")
    ema: float = Field(0.9999, ge=0, lt=1, description="Decay of the averaged weights, which are the result.")
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Of the forward pass; float16, and bfloat16 in 3D, need a GPU."
    )
    devices: Positive = Field(1, description="GPUs (or CPU processes) a node.")
    nodes: Positive = Field(1, description="Nodes.")
    workers: int = Field(0, ge=0, description="Processes that load data.")
    validate_every: Positive = Field(500, description="Steps between points of the validation curve.")
    patience: int = Field(
        0, ge=0, description="Stop after so many points of it without a better one, and keep the best; 0: never stop."
    )
    checkpoint_every: Positive = Field(500, description="Steps between checkpoints.")
    keep: Positive = Field(2, description="Checkpoints kept besides the best.")
    samples_every: int = Field(0, ge=0, description="Steps between sample strips; 0: only at the end.")
    augment: bool = Field(True, description="Left-right flips, small shifts and intensity changes.")
    seed: int = Field(0, description="Of weights, order of the data and noise.")


class AutoencoderOptions(Options):
    """A KL autoencoder (`vae`) or a vector-quantised one with a discriminator (`vqgan`)."""

    kind: Literal["vae", "vqgan"] = Field("vae", description="KL autoencoder, or vector-quantised.")
    channels: list[Positive] = Field([64, 128, 256], description="One entry a resolution; each next one halves it.")
    blocks: Positive = Field(2, description="Residual blocks a resolution.")
    latent_channels: Positive = Field(4, description="Channels of the latent.")
    kl_weight: float = Field(1e-6, ge=0, description="Weight of the KL term (vae).")
    codes: Positive = Field(2048, description="Codebook entries (vqgan).")
    commitment: float = Field(0.25, ge=0, description="Weight of the commitment term (vqgan).")
    adversarial_weight: float = Field(0.1, ge=0, description="Weight of the discriminator (vqgan).")
    adversarial_start: int = Field(1000, ge=0, description="Step at which the generator first sees it.")
    training: TrainingOptions = Field(TrainingOptions(), description="Its training.")


class NoiseOptions(Options):
    """The corruption of the forward process."""

    kind: Literal["gaussian", "simplex"] = Field("gaussian", description="White, or smooth at several scales.")
    octaves: Positive = Field(6, description="Octaves (simplex).")
    decay: float = Field(0.8, gt=0, le=1, description="Amplitude of an octave over that of the one before (simplex).")
    frequency: float = Field(1 / 64, gt=0, description="Cycles per voxel of the lowest octave.")
    raw: bool = Field(False, description="Keep the published amplitude instead of unit variance.")


class DiffusionOptions(Options):
    """The forward process and what the network predicts."""

    noise: NoiseOptions = Field(NoiseOptions(), description="The noise.")
    schedule: Literal["linear", "scaled_linear", "cosine", "sigmoid"] = Field("cosine", description="Noise schedule.")
    timesteps: Positive = Field(1000, description="Steps of the forward process.")
    zero_terminal_snr: bool = Field(False, description="Rescale so that the last step is pure noise; not with eps.")
    prediction: Literal["eps", "v", "x0"] = Field("eps", description="What the network predicts.")
    loss: Literal["l2", "l1", "huber"] = Field("l2", description="Distance to it.")
    min_snr_gamma: float | None = Field(None, gt=0, description="Min-SNR weighting; 5 is usual, null is none.")

    @model_validator(mode="after")
    def _no_eps_without_signal(self) -> DiffusionOptions:
        if self.zero_terminal_snr and self.prediction == "eps":
            raise ValueError("zero_terminal_snr needs prediction v or x0: eps carries no signal at the last step")
        return self


class DenoiserOptions(Options):
    """The U-Net."""

    channels: list[Positive] = Field([64, 128, 192, 256], description="One entry a resolution.")
    blocks: Positive = Field(2, description="Residual blocks a resolution.")
    attention: list[bool] = Field([False, False, True, True], description="Self-attention at each resolution.")
    head_channels: Positive = Field(32, description="Channels of an attention head.")
    dropout: Fraction = Field(0.0, description="Dropout in the residual blocks.")
    condition: Literal["none", "group"] = Field("none", description="Cross-attention to the group.")
    drop_condition: Fraction = Field(0.1, description="Share of training images whose condition is hidden.")
    checkpointing: bool = Field(False, description="Trade time for memory.")
    training: TrainingOptions = Field(TrainingOptions(), description="Its training.")

    @model_validator(mode="after")
    def _one_attention_flag_a_level(self) -> DenoiserOptions:
        if len(self.attention) != len(self.channels):
            raise ValueError(
                f"attention has {len(self.attention)} entries for {len(self.channels)} channels; give one each"
            )
        return self


class SamplingOptions(Options):
    """How images come out of the trained denoiser."""

    sampler: Literal["ddim", "ddpm", "dpm_solver"] = Field("ddim", description="Sampler.")
    steps: Positive = Field(50, description="Steps over the whole schedule.")
    eta: Fraction = Field(0.0, description="Noise added back by DDIM.")
    guidance: float = Field(1.0, ge=0, description="Classifier-free guidance scale; 1 is none.")
    start: float = Field(0.25, gt=0, le=1, description="Anomaly: noise a scan to this fraction of the timesteps.")
    count: Positive = Field(64, description="Images to sample (per group where conditioned).")
    batch_size: Positive = Field(16, description="Images sampled together.")
    checkpoints: Positive = Field(4, description="Generation: checkpoints at which samples and FID are taken.")
    seed: int = Field(0, description="Of the noise.")
    allow_trained_people: bool = Field(
        False,
        description="Infer and evaluate people the model was trained on too; every metric then says so.",
    )


class EvaluationOptions(Options):
    """How results are judged."""

    bootstrap: Positive = Field(1000, description="Resamples of subjects for confidence intervals.")
    smoothing_mm: float = Field(3.0, ge=0, description="Gaussian sigma on anomaly maps and their baselines.")
    features: str = Field(
        "random",
        description="Network by which sets of images are compared (FID, KID): random, the folder of a trained "
        "autoencoder, or a TorchScript file.",
    )
    seed: int = Field(0, description="Of the resampling.")


class RecipeOptions(Options):
    """One model: its data, its networks, its sampling and its judgement."""

    task: Task = Field(description="What the model is for.")
    data: DataOptions = Field(DataOptions(), description="Its images.")
    autoencoder: AutoencoderOptions | None = Field(None, description="For synthesis and translation.")
    diffusion: DiffusionOptions = Field(DiffusionOptions(), description="Its forward process.")
    denoiser: DenoiserOptions = Field(DenoiserOptions(), description="Its network.")
    sampling: SamplingOptions = Field(SamplingOptions(), description="Its sampling.")
    evaluation: EvaluationOptions = Field(EvaluationOptions(), description="Its judgement.")

    @model_validator(mode="after")
    def _choices_fit_together(self) -> RecipeOptions:
        if len(self.data.size) != self.data.dimensions:
            raise ValueError(f"data.size has {len(self.data.size)} entries for {self.data.dimensions} dimensions")
        if self.task == "translation" and (self.data.target is None or self.autoencoder is None):
            raise ValueError("translation needs data.target and an autoencoder")
        if self.task == "synthesis" and self.autoencoder is None:
            raise ValueError("synthesis needs an autoencoder")
        if self.task in ("anomaly", "generation") and self.autoencoder is not None:
            raise ValueError(f"{self.task} works on images: remove autoencoder")
        factor = 2 ** (len(self.denoiser.channels) - 1)
        if self.autoencoder is not None:
            factor *= 2 ** (len(self.autoencoder.channels) - 1)
        odd = [n for n in self.data.size if n % factor]
        if odd:
            raise ValueError(f"data.size {odd[0]} is not a multiple of {factor}, which the networks' levels need")
        return self


class Config(Options):
    """The whole configuration file."""

    cohort: CohortOptions = Field(CohortOptions(), description="Who takes part.")
    split: SplitOptions = Field(SplitOptions(), description="Train, validation, test.")
    preprocess: PreprocessOptions = Field(PreprocessOptions(), description="Preprocessing.")
    recipes: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], RecipeOptions] = Field(
        {}, description="The models to make, by name: options, or the path of a YAML file with them."
    )
