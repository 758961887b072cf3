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

    method: Literal["hash", "from_test"] = "hash"
    train: Fraction = 0.7
    validation: Fraction = 0.15
    test: Fraction = 0.15
    stratify: list[Literal["group", "sex", "age_band", "site"]] = ["group", "sex", "age_band"]
    age_band_years: Positive = 20
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


class PreprocessOptions(Options):
    """From an ingested scan to a brain in a common space with comparable intensities."""

    brain_extraction: Literal["learned", "given", "synthstrip", "hd-bet", "none"] = "learned"
    bias_field: bool = Field(True, description="N4 bias field correction.")
    space: Literal["MNI152", "native"] = "MNI152"
    voxel_size: float = Field(1.0, gt=0, description="Isotropic voxel size of the output, mm.")
    intensity: Literal["percentile", "zscore", "none"] = "percentile"
    quality: QualityOptions = QualityOptions()


class SliceOptions(Options):
    """Which slices of a volume a 2D recipe sees, in mm of the output space along the plane's axis."""

    plane: Literal["axial", "coronal", "sagittal"] = "axial"
    from_mm: float = -20.0
    to_mm: float = 40.0
    every_mm: float = Field(4.0, gt=0)


class DataOptions(Options):
    """What a recipe sees of each scan."""

    modality: str = Field("T1w", description="Modality column of the sheet; for translation, the source.")
    target: str | None = Field(None, description="Modality to be predicted (translation only).")
    dimensions: Literal[2, 3] = 2
    size: list[Positive] = Field([128, 128], description="Voxels of a training image along each dimension.")
    voxel_size: float | None = Field(None, gt=0, description="Resample to this voxel size, mm; null keeps it.")
    channels: Positive = Field(1, description="1 for scans and grey images, 3 for RGB, more for diffusion MRI.")
    target_channels: Positive = Field(3, description="Channels of the target (translation only).")
    slices: SliceOptions = SliceOptions()
    train_groups: list[str] = Field([], description="Groups used for training; empty means every group.")


class TrainingOptions(Options):
    """How long and on what a model is trained. Images are counted per optimiser step."""

    steps: Positive = 10_000
    batch_size: Positive = 16
    accumulate: Positive = 1
    learning_rate: float = Field(1e-4, gt=0)
    warmup: int = Field(500, ge=0)
    clip: float = Field(1.0, gt=0, description="Largest norm of the gradient.")
    ema: float = Field(0.9999, ge=0, lt=1)
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    devices: Positive = 1
    nodes: Positive = 1
    workers: int = Field(0, ge=0, description="Processes that load data.")
    validate_every: Positive = 500
    checkpoint_every: Positive = 500
    keep: Positive = 2
    samples_every: int = Field(0, ge=0, description="Steps between sample strips; 0: only at the end.")
    augment: bool = Field(True, description="Left-right flips, small shifts and intensity changes.")
    seed: int = 0


class AutoencoderOptions(Options):
    """A KL autoencoder (`vae`) or a vector-quantised one with a discriminator (`vqgan`)."""

    kind: Literal["vae", "vqgan"] = "vae"
    channels: list[Positive] = Field([64, 128, 256], description="One entry a resolution; each next one halves it.")
    blocks: Positive = 2
    latent_channels: Positive = 4
    kl_weight: float = Field(1e-6, ge=0)
    codes: Positive = Field(2048, description="Codebook entries (vqgan).")
    commitment: float = Field(0.25, ge=0)
    adversarial_weight: float = Field(0.1, ge=0, description="Weight of the discriminator (vqgan).")
    adversarial_start: int = Field(1000, ge=0, description="Step at which the generator first sees it.")
    training: TrainingOptions = TrainingOptions()


class NoiseOptions(Options):
    """The corruption of the forward process."""

    kind: Literal["gaussian", "simplex"] = "gaussian"
    octaves: Positive = 6
    decay: float = Field(0.8, gt=0, le=1)
    frequency: float = Field(1 / 64, gt=0, description="Cycles per voxel of the lowest octave.")
    raw: bool = Field(False, description="Keep the published amplitude instead of unit variance.")


class DiffusionOptions(Options):
    """The forward process and what the network predicts."""

    noise: NoiseOptions = NoiseOptions()
    schedule: Literal["linear", "scaled_linear", "cosine", "sigmoid"] = "cosine"
    timesteps: Positive = 1000
    zero_terminal_snr: bool = False
    prediction: Literal["eps", "v", "x0"] = "eps"
    loss: Literal["l2", "l1", "huber"] = "l2"
    min_snr_gamma: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _no_eps_without_signal(self) -> DiffusionOptions:
        if self.zero_terminal_snr and self.prediction == "eps":
            raise ValueError("zero_terminal_snr needs prediction v or x0: eps carries no signal at the last step")
        return self


class DenoiserOptions(Options):
    """The U-Net."""

    channels: list[Positive] = [64, 128, 192, 256]
    blocks: Positive = 2
    attention: list[bool] = Field([False, False, True, True], description="Self-attention at each resolution.")
    head_channels: Positive = 32
    dropout: Fraction = 0.0
    condition: Literal["none", "group"] = "none"
    drop_condition: Fraction = Field(0.1, description="Share of training images whose condition is hidden.")
    checkpointing: bool = Field(False, description="Trade time for memory.")
    training: TrainingOptions = TrainingOptions()

    @model_validator(mode="after")
    def _one_attention_flag_a_level(self) -> DenoiserOptions:
        if len(self.attention) != len(self.channels):
            raise ValueError(
                f"attention has {len(self.attention)} entries for {len(self.channels)} channels; give one each"
            )
        return self


class SamplingOptions(Options):
    """How images come out of the trained denoiser."""

    sampler: Literal["ddim", "ddpm", "dpm_solver"] = "ddim"
    steps: Positive = 50
    eta: Fraction = 0.0
    guidance: float = Field(1.0, ge=0, description="Classifier-free guidance scale; 1 is none.")
    start: float = Field(0.25, gt=0, le=1, description="Anomaly: noise a scan to this fraction of the timesteps.")
    count: Positive = Field(64, description="Images to sample (per group where conditioned).")
    batch_size: Positive = 16
    checkpoints: Positive = Field(4, description="Generation: checkpoints at which samples and FID are taken.")
    seed: int = 0
    allow_trained_people: bool = Field(
        False,
        description="Infer and evaluate people the model was trained on too; every metric then says so.",
    )


class EvaluationOptions(Options):
    """How results are judged."""

    bootstrap: Positive = Field(1000, description="Resamples of subjects for confidence intervals.")
    smoothing_mm: float = Field(3.0, ge=0, description="Gaussian sigma on anomaly maps and their baselines.")
    seed: int = 0


class RecipeOptions(Options):
    """One model: its data, its networks, its sampling and its judgement."""

    task: Task
    data: DataOptions = DataOptions()
    autoencoder: AutoencoderOptions | None = None
    diffusion: DiffusionOptions = DiffusionOptions()
    denoiser: DenoiserOptions = DenoiserOptions()
    sampling: SamplingOptions = SamplingOptions()
    evaluation: EvaluationOptions = EvaluationOptions()

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

    cohort: CohortOptions = CohortOptions()
    split: SplitOptions = SplitOptions()
    preprocess: PreprocessOptions = PreprocessOptions()
    recipes: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], RecipeOptions] = Field(
        {}, description="The models to make, by name: options, or the path of a YAML file with them."
    )
