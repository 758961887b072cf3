"""The configuration's types, defaults and limits.

Each stage receives its own part only (``PreprocessOptions``, ``TrainingOptions`` ...), so that a
change in one part cannot rerun a stage that does not read it.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from pipeline_lib.tasks import TASKS


def _task(name: str) -> str:
    if name in TASKS:
        return name
    near = difflib.get_close_matches(name, TASKS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(TASKS)}"
    raise ValueError(f"{name!r} is not a task; {hint}")


def expanded_path(text: str) -> str:
    """A path with ``~`` and ``$VARIABLE`` replaced."""
    try:
        path = os.path.expandvars(Path(text).expanduser().as_posix()) if text else text
    except RuntimeError:
        raise ValueError(f"{text!r} starts at the home folder of somebody who is not known here") from None
    if not path or "$" in path or not path.isprintable():
        raise ValueError(f"{text!r} is not a path: it is empty, or names a variable that is not set")
    return path


LIBRARY = Path(__file__).resolve().parents[1]


def _folder_to_write(text: str) -> str:
    path = expanded_path(text)
    if odd := sorted({character for character in path if not re.match(r"[\w ./+,=@%~'-]", character)}):
        raise ValueError(f"{text!r} has {' '.join(odd)}; use letters, digits, spaces and . _ - + = , @ % in its name")
    try:
        there = next(place for place in (Path(path), *Path(path).parents) if place.exists())
    except OSError as error:
        raise ValueError(f"{text!r} cannot be a folder: {error.strerror}") from None
    if not there.is_dir():
        raise ValueError(f"{text!r} is{'' if there == Path(path) else ' below'} a file; name a folder")
    if Path.cwd().is_relative_to(Path(path).resolve()):
        raise ValueError(f"{text!r} holds the project itself; name a folder of its own, e.g. results")
    if any(Path(path).resolve().is_relative_to(code) for code in (LIBRARY, LIBRARY.with_name("workflow"))):
        raise ValueError(f"{text!r} is where the code lies; name a folder of its own, e.g. results")
    return path


def _contrasts(written: Any) -> Any:
    """Several modalities as one name, ``FLAIR+T1w``, whatever their order; what is no list of names is left to the types."""
    listed = [written] if isinstance(written, str) else written
    if not isinstance(listed, list | tuple) or not listed or not all(isinstance(name, str) for name in listed):
        return written
    names = [name for each in listed for name in each.split(TOGETHER)]
    if foreign := [name for name in names if name not in ANATOMICAL]:
        if len(names) == 1:
            return foreign[0]
        raise ValueError(
            f"{foreign[0] or 'an empty name'} cannot be one of several modalities; those may be {', '.join(ANATOMICAL)}"
        )
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{repeated[0]} is there twice; name each modality once")
    return TOGETHER.join(sorted(names))


def _rising(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] >= limits[1]:
        raise ValueError(f"{limits[0]:g} to {limits[1]:g} holds nothing; the lower limit comes first")
    return limits


ANATOMICAL = ("T1w", "T2w", "FLAIR", "PD")
"""Modalities of one channel in the template's space, of which a recipe may see several."""
TOGETHER = "+"
"""Between the names of several modalities."""
Modality = Annotated[
    str,
    BeforeValidator(_contrasts),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"enum": [*ANATOMICAL]}, "minItems": 1}]}),
]
Positive = Annotated[int, Field(gt=0, le=1_000_000_000)]
Side = Annotated[int, Field(gt=0, le=8192)]
Channels = Annotated[int, Field(gt=0, le=8192)]
Few = Annotated[int, Field(gt=0, le=32)]
VoxelSize = Annotated[float, Field(ge=0.1, le=50)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Levels = Annotated[list[Channels], Field(min_length=1, max_length=10)]
Limits = Annotated[tuple[float, float], AfterValidator(_rising)]
FilePath = Annotated[str, AfterValidator(expanded_path)]
FolderToWrite = Annotated[str, AfterValidator(_folder_to_write)]
INDEX = frozenset(
    (
        "scan",
        "row",
        "chunk",
        "sha256",
        "voxels_sha256",
        "lesion",
        "has_lesion",
        "affine",
        "space",
        "brain_outside",
        "id",
        "cell",
        "seed",
        "picture",
    )
)
"""Names that tables of images and samples use themselves."""
RESERVED = frozenset(("ingest", "preprocess", "cohort", "report", "benchmarks", "logs", "index"))
"""What stages call their folders and pages."""
STATE = Path("state")
"""What is kept between runs."""
BRAIN_MM = {"axial": (-72, 82), "coronal": (-107, 73), "sagittal": (-72, 72)}
"""Where the template's brain begins and ends across each plane, mm of MNI152."""
CONDITIONS = ("group", "age", "sex", "site", "slice", "modality")
"""What a model can be told of every image; a cohort's covariates come to it."""
Task = Annotated[str, AfterValidator(_task), Field(json_schema_extra={"enum": list(TASKS)})]


class Options(BaseModel):
    """A part of the configuration: no unknown keys, no change after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class CohortOptions(Options):
    """Who takes part."""

    name: str = Field("cohort", description="Name shown on every page of the report.")
    note: str = Field("", description="A sentence shown with every result, e.g. that people are synthetic.")
    licence: str = Field("", description="Terms of the scans, kept with every model that learned from them.")
    subjects: FilePath = Field("config/subjects.tsv", description="The sheet: one row a scan.")
    splits: FilePath = Field("config/splits.tsv", description="The ledger of split and chunk assignments.")
    ratings: FilePath | None = Field(
        None, description="Ratings exported from the report; scans rated bad are left out, each with its reason."
    )
    root: FilePath = Field(".", description="Folder from which relative paths in the sheet start.")
    results: FolderToWrite = Field("results", description="Folder that everything is written to.")
    covariates: dict[str, Literal["category", "number"]] = Field(
        {},
        description="Further columns of the sheet to keep, each a category or a number, e.g. {education: number}; a model "
        "may be told them.",
    )
    chunk_size: Positive = Field(50, description="Scans per ingest and preprocess job.")
    picture_chunk_size: Positive = Field(
        20_000, description="The same for pictures (rows of the sheet of modality image), which are small and many."
    )
    max_failed_fraction: Fraction = Field(0.2, description="Stop when more scans of a split than this fail.")
    strict: bool = Field(False, description="Any exclusion is an error.")

    @field_validator("covariates")
    @classmethod
    def _names_are_free(cls, covariates: dict[str, str]) -> dict[str, str]:
        if taken := sorted({*CONDITIONS, *INDEX} & set(covariates)):
            raise ValueError(
                f"{', '.join(taken)}: the name is taken; rename the column of the sheet, or leave it out here"
            )
        return covariates

    @model_validator(mode="after")
    def _results_lie_apart(self) -> CohortOptions:
        results = Path(self.results).resolve()
        for path, what in (
            (self.subjects, "the sheet"),
            (self.splits, "the ledger"),
            (STATE / "scans", "finished scans"),
        ):
            if Path(path).resolve().is_relative_to(results):
                raise ValueError(
                    f"results {self.results!r} holds {what} ({path}); name a folder of its own, e.g. results"
                )
        if results == Path(self.root).resolve():
            raise ValueError(f"results {self.results!r} is the folder of scans (root); name a folder of its own")
        return self


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

    brain_volume_ml: Limits = Field((800.0, 2300.0), description="Plausible brain volumes, mL.")
    min_template_overlap: Fraction = Field(0.8, description="Least Dice with the template's brain mask.")
    max_outside_field: Fraction = Field(
        0.03, description="Largest share of the template's brain that may lie beyond what was scanned."
    )
    max_empty_inside: Fraction = Field(
        0.03, description="Largest share of the template's brain, 6 mm from its surface inwards, that may be empty."
    )
    max_empty_slices: int = Field(0, ge=0, description="Most slices through the brain that are one value.")
    contrast: bool = Field(
        True, description="Whether grey matter, white matter and fluid must be as bright as the modality has them."
    )
    max_registration_cost: float = Field(
        -0.57,
        description="Highest (worst) registration cost: Mattes mutual information with the template, which is negative.",
    )
    max_mask_components: int = Field(
        20, ge=1, description="Most pieces the extracted brain mask may have had before the largest was kept."
    )
    brain_median: Limits = Field(
        (0.1, 0.95),
        description="Plausible medians of the brain's intensities, its 0.5th percentile being 0 and its 99.5th 1.",
    )


class PreprocessOptions(Options):
    """From an ingested scan to a brain in a common space with comparable intensities."""

    brain_extraction: Literal["learned", "given", "synthstrip", "hd-bet", "none"] = Field(
        "learned",
        description="The embedded network, the sheet's mask, an installed program, or none: stripped already, and refused "
        "where it is not. A mask in the sheet wins for its scan.",
    )
    bias_field: bool = Field(True, description="N4 bias field correction.")
    space: Literal["MNI152", "native"] = Field("MNI152", description="Space of the output.")
    registration: Literal["affine", "deformable"] = Field(
        "affine", description="To MNI152 by rotation, scale and shear, or by a smooth deformation on top of them."
    )
    voxel_size: VoxelSize = Field(1.0, description="Isotropic voxel size of the output, mm.")
    intensity: Literal["percentile", "zscore", "median_mad", "whitestripe", "none"] = Field(
        "percentile",
        description="0.5 and 99.5 percent of the brain to 0 and 1; mean 0 and deviation 1 of the brain, the same by "
        "median and median absolute deviation, or of its normal white matter (WhiteStripe); or as scanned.",
    )
    dwi_channels: Literal["shells", "moments", "directions"] = Field(
        "shells",
        description="Channels of diffusion MRI: b0, then over b0 each shell's mean, each shell's mean and spread between "
        "directions, or every volume.",
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
    from_mm: float = Field(-20.0, ge=-500, le=500, description="First slice, mm.")
    to_mm: float = Field(40.0, ge=-500, le=500, description="Last slice, mm.")
    every_mm: float = Field(4.0, ge=0.1, le=500, description="Distance between slices, mm.")

    @model_validator(mode="after")
    def _in_order(self) -> SliceOptions:
        if self.from_mm > self.to_mm:
            raise ValueError(f"from_mm {self.from_mm:g} lies behind to_mm {self.to_mm:g}; the lower one comes first")
        return self


class DataOptions(Options):
    """What a recipe sees of each scan."""

    modality: Modality = Field(
        "T1w",
        description="Modality column of the sheet; for translation, the source. A list, as [T1w, FLAIR], shows one model scans of "
        "each, with intensities normalised scan by scan; denoiser.condition modality tells it which is which.",
    )
    target: str | None = Field(None, description="Modality to be predicted (translation only).")
    dimensions: Literal[2, 3] = Field(2, description="Slices or volumes.")
    size: list[Side] = Field(
        [192, 160],
        description="Voxels of a training image along each dimension; the default holds the MNI152 brain at 1 mm.",
    )
    voxel_size: VoxelSize | None = Field(None, description="Resample to this voxel size, mm; null keeps it.")
    channels: Channels = Field(1, description="1 for scans and grey images, 3 for RGB, more for diffusion MRI.")
    target_channels: Channels = Field(3, description="Channels of the target (translation only).")
    slices: SliceOptions = Field(SliceOptions(), description="Which slices.")
    fit: Literal["pad", "crop", "stretch"] = Field(
        "pad",
        description="How a picture of another shape comes to `size`: whole, its border's colour around it; cut to fill "
        "it; or stretched. Of `image` only.",
    )
    intensity: Literal["given", "median_mad"] = Field(
        "given",
        description="Grey levels of a picture as they are, or by median and median absolute deviation of what is not "
        "background, -5 to 5 of them; the background becomes black. Of `image` only; of scans see `preprocess`.",
    )
    train_groups: list[str] = Field([], description="Groups used for training; empty means every group.")
    lesion_free: bool = Field(
        False,
        description="Anomaly: train on images without a lesion only, also of scans that have one elsewhere. Scans that nobody looked "
        "at are left out, unless their group is among `train_groups`.",
    )

    @property
    def modalities(self) -> tuple[str, ...]:
        """The one modality, or each of several."""
        return tuple(self.modality.split(TOGETHER))


class AugmentOptions(Options):
    """How training images are changed each time they are seen; null is the task's default.

    `augment: false` switches all of it off. Defaults of scans: flips where the plane shows both sides, 6 degrees, 7 %,
    4 %, and of anomaly gamma .2; of translation the same without flips; of pictures nothing.
    """

    flip: bool | None = Field(
        None, description="Left and right exchanged in half of the images; off where sides matter."
    )
    rotate: float | None = Field(None, ge=0, le=180, description="Largest rotation, degrees; in 3D about each axis.")
    scale: float | None = Field(None, ge=0, lt=1, description="Largest change of scale; .02 is from .98 to 1.02.")
    shift: float | None = Field(None, ge=0, le=1, description="Largest shift, as a fraction of each side.")
    gamma: float | None = Field(
        None, ge=0, le=10, description="Largest change of log2 of the exponent of intensities in [0, 1]; not of pairs."
    )


UNCHANGED = {"flip": False, "rotate": 0.0, "scale": 0.0, "shift": 0.0, "gamma": 0.0}


def _augment(value: Any) -> Any:
    """``true`` is the default of the task, ``false`` nothing."""
    return ({} if value else UNCHANGED) if isinstance(value, bool) else value


class TrainingOptions(Options):
    """How long and on what a model is trained. Images are counted per optimiser step."""

    steps: int = Field(10_000, ge=0, le=1_000_000_000, description="Optimiser steps; 0 where `epochs` says how long.")
    epochs: float | None = Field(
        None, gt=0, le=1_000_000, description="Passes over the training images, instead of `steps`."
    )
    batch_size: Positive = Field(16, description="Images a batch, over all devices.")
    accumulate: Positive = Field(1, description="Batches an optimiser step.")
    learning_rate: float = Field(1e-4, gt=0, le=1, description="Highest learning rate of AdamW.")
    warmup: int = Field(500, ge=0, le=1_000_000_000, description="Steps until it is reached; a cosine takes it to 0.")
    betas: tuple[Decay, Decay] | None = Field(
        None, description="Decay of AdamW's moments; null: 0.9 and 0.999, or 0.5 and 0.9 beside a discriminator."
    )
    weight_decay: float = Field(0.01, ge=0, le=1, description="Of AdamW.")
    clip: float = Field(1.0, gt=0, description="Largest norm of the gradient.")
    ema: float = Field(0.9999, ge=0, lt=1, description="Decay of the averaged weights, which are the result.")
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Of the forward pass; float16, and bfloat16 in 3D, need a GPU."
    )
    devices: Annotated[int, Field(gt=0, le=1024)] = Field(1, description="GPUs (or CPU processes) a node.")
    nodes: Annotated[int, Field(gt=0, le=1024)] = Field(1, description="Nodes.")
    workers: int = Field(0, ge=0, le=1024, description="Processes that load data.")
    validate_every: Positive = Field(500, description="Steps between points of the validation curve.")
    patience: int = Field(
        0,
        ge=0,
        le=1_000_000_000,
        description="Stop after so many points of it without a better one, and keep the best; 0: never stop.",
    )
    checkpoint_every: Positive = Field(500, description="Steps between checkpoints.")
    keep: Positive = Field(2, description="Checkpoints kept besides the best.")
    samples_every: int = Field(
        0, ge=0, le=1_000_000_000, description="Steps between sample strips; 0: only at the end."
    )
    augment: Annotated[AugmentOptions, BeforeValidator(_augment, json_schema_input_type=AugmentOptions | bool)] = Field(
        AugmentOptions(), description="How images are changed each time they are seen; false: not at all."
    )
    seed: Seed = Field(0, description="Of weights, order of the data and noise.")

    @property
    def length(self) -> str:
        """``10,000 steps`` or ``250 epochs``."""
        return f"{self.steps:,} steps" if self.epochs is None else f"{self.epochs:g} epochs"

    @model_validator(mode="before")
    @classmethod
    def _steps_or_epochs(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if values.get("epochs") is None:
            if values.get("steps") == 0:
                raise ValueError("steps is 0 and no epochs are given; give one of them")
            return values
        if values.get("steps"):
            raise ValueError(
                f"steps {values['steps']} and epochs {values['epochs']} are both given; remove one of them"
            )
        return {**values, "steps": 0}


START_FROM = (
    "Weights to start from: a bundle by its name or folder, a folder of results, a file of safetensors, or one of torch that holds "
    "MONAI's weights; null: from nothing."
)


class AutoencoderOptions(Options):
    """A KL autoencoder (`vae`) or a vector-quantised one with a discriminator (`vqgan`)."""

    kind: Literal["vae", "vqgan"] = Field("vae", description="KL autoencoder, or vector-quantised.")
    fold: Literal[1, 2, 4] = Field(
        1, description="Blocks of so many voxels an axis become channels of the first level."
    )
    channels: Levels = Field([64, 128, 256], description="One entry a resolution; each next one halves it.")
    blocks: Few = Field(2, description="Residual blocks a resolution.")
    latent_channels: Channels = Field(4, description="Channels of the latent.")
    groups: Channels | None = Field(
        None,
        description="Groups of every normalisation (vae); null: as many as divide the channels, up to 32, four or more in each. "
        "Weights of MONAI need it said: 32 unless their `norm_num_groups` was another.",
    )
    upsampling: Literal["nearest", "linear"] = Field(
        "nearest", description="In front of the decoder's convolutions (vae); linear is MAISI's."
    )
    kl_weight: float = Field(1e-6, ge=0, le=1e6, description="Weight of the KL term (vae).")
    codes: int = Field(2048, gt=0, le=1_000_000, description="Codebook entries (vqgan).")
    commitment: float = Field(0.25, ge=0, le=1e6, description="Weight of the commitment term (vqgan).")
    codebook_start: int = Field(
        0,
        ge=0,
        le=1_000_000_000,
        description="Step from which latents are quantised (vqgan); until then the autoencoder is continuous, and the first codes "
        "are then latents that it has learned.",
    )
    adversarial_weight: float = Field(0.1, ge=0, le=1e6, description="Weight of the discriminator (vqgan).")
    adversarial_start: int = Field(
        1000, ge=0, le=1_000_000_000, description="Step at which the generator first sees it."
    )
    start_from: FilePath | None = Field(None, description=START_FROM)
    training: TrainingOptions = Field(TrainingOptions(), description="Its training.")

    @model_validator(mode="after")
    def _codebook_is_reached(self) -> AutoencoderOptions:
        if not self.codebook_start:
            return self
        if self.training.patience:
            raise ValueError(
                "codebook_start: the best step by training.patience may be one without a codebook; set patience: 0"
            )
        if self.training.epochs is None and self.codebook_start >= self.training.steps:
            raise ValueError(
                f"codebook_start {self.codebook_start} is not reached in training.steps {self.training.steps}"
            )
        return self


HALVINGS = 32
"""Largest block of voxels, fold times halvings, on which a regression may work: tiles start at multiples of it."""


class RegressionOptions(Options):
    """A U-Net that adds to the linear fit of the target (translation): the reference, and what a diffusion refines."""

    fold: Literal[1, 2, 4] = Field(
        2, description="Blocks of so many voxels an axis become channels of the first level."
    )
    channels: Levels = Field([64, 128, 256], description="One entry a resolution; each next one halves it.")
    blocks: Positive = Field(2, description="Residual blocks a resolution.")
    dropout: Fraction = Field(0.0, description="Dropout in the residual blocks.")
    patch: Positive = Field(
        64,
        description="Voxels along each axis of the random patches that it is trained on; whole images are done in tiles.",
    )
    training: TrainingOptions = Field(TrainingOptions(), description="Its training.")

    @model_validator(mode="after")
    def _blocks_fit(self) -> RegressionOptions:
        if self.channels[0] < 2:
            raise ValueError(f"channels start with {self.channels[0]}; the first must be 2 or more")
        block = self.fold * 2 ** (len(self.channels) - 1)
        if block > HALVINGS:
            raise ValueError(
                f"fold {self.fold} and {len(self.channels)} channels make blocks of {block} voxels; at most {HALVINGS}"
            )
        _whole_blocks(self.patch, self.fold, self.channels)
        return self


def _whole_blocks(patch: int, fold: int, channels: Sequence[int]) -> None:
    """Refuse patches that a network of such levels would have to pad."""
    block = fold * 2 ** (len(channels) - 1)
    if patch % block:
        raise ValueError(
            f"patch is {patch}, not a multiple of {block}, the voxels that fold {fold} and {len(channels)} "
            "resolutions put together"
        )


class NoiseOptions(Options):
    """The corruption of the forward process."""

    kind: Literal["gaussian", "coarse", "simplex"] = Field(
        "gaussian", description="White, smooth at one scale, or at several."
    )
    spacing: Side = Field(8, description="Voxels between independent values (coarse).")
    octaves: Few = Field(6, description="Octaves (simplex).")
    decay: float = Field(0.8, gt=0, le=1, description="Amplitude of an octave over that of the one before (simplex).")
    frequency: float = Field(1 / 64, gt=0, le=1, description="Cycles per voxel of the lowest octave.")
    raw: bool = Field(False, description="Keep the published amplitude instead of unit variance.")


class DiffusionOptions(Options):
    """The forward process and what the network predicts."""

    noise: NoiseOptions = Field(NoiseOptions(), description="The noise.")
    schedule: Literal["linear", "scaled_linear", "cosine", "sigmoid"] = Field("cosine", description="Noise schedule.")
    timesteps: int = Field(1000, gt=0, le=100_000, description="Steps of the forward process.")
    shift: Annotated[float, Field(ge=-20, le=20)] | Literal["auto"] = Field(
        "auto",
        description="Added to the log SNR of every step; auto: -2/3 log(voxels / 128^2), of the latent where there is one, "
        "0 for fewer voxels.",
    )
    zero_terminal_snr: bool = Field(False, description="Rescale so that the last step is pure noise; not with eps.")
    prediction: Literal["eps", "v", "x0"] = Field("eps", description="What the network predicts.")
    loss: Literal["l2", "l1", "huber"] = Field("l2", description="Distance to it.")
    loss_weight: Literal["none", "v", "min_snr"] = Field(
        "none", description="1; as if v were predicted, SNR + 1 on the x0 error; or min-SNR, SNR on the x0 error."
    )
    loss_weight_cap: float = Field(
        20.0, gt=0, le=1e6, description="Largest weight of the x0 error; published for min_snr: 5."
    )

    @model_validator(mode="after")
    def _only_what_can_be_learned(self) -> DiffusionOptions:
        if self.zero_terminal_snr and self.prediction == "eps":
            raise ValueError("zero_terminal_snr needs prediction v or x0: eps carries no signal at the last step")
        if self.loss_weight == "v" and self.prediction == "eps":
            raise ValueError(
                "loss_weight v is unbounded with prediction eps: set it to none or min_snr, or predict x0 or v"
            )
        if self.loss_weight == "min_snr" and self.zero_terminal_snr:
            raise ValueError("loss_weight min_snr is 0 at the step without signal of zero_terminal_snr: set none or v")
        return self


class SyntheticLesionOptions(Options):
    """Random lesions put into training images, which the network learns to take out and to mark (anomaly)."""

    share: Fraction = Field(0.9, description="Share of training images that get any.")
    size: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] = Field(
        (0.02, 0.25), description="Smallest and largest radius, as a fraction of the image's mean side."
    )
    contrast: tuple[Annotated[float, Field(ge=0, le=2)], Annotated[float, Field(ge=0, le=2)]] = Field(
        (0.1, 0.7), description="Smallest and largest change of an image in [-1, 1]."
    )
    bright: Fraction = Field(0.5, description="Share of them brighter than what they lie in; a prior of the contrast.")
    noise: float = Field(0.5, gt=0, le=1, description="Images are noised up to this fraction of the timesteps.")
    weight: float = Field(1.0, ge=0, le=1e6, description="Of the segmentation loss beside the restoration loss.")

    @field_validator("size", "contrast")
    @classmethod
    def _rise(cls, limits: tuple[float, float]) -> tuple[float, float]:
        return _rising(limits)


class DenoiserOptions(Options):
    """The U-Net."""

    fold: Literal[1, 2, 4] = Field(
        1, description="Blocks of so many voxels an axis become channels of the first level."
    )
    channels: Levels = Field([64, 128, 192, 256], description="One entry a resolution.")
    blocks: Few = Field(2, description="Residual blocks a resolution.")
    attention: list[bool] = Field([False, False, True, True], description="Self-attention at each resolution.")
    head_channels: Channels = Field(32, description="Channels of an attention head.")
    dropout: Decay = Field(0.0, description="Dropout in the residual blocks.")
    condition: list[str] = Field(
        [],
        description="What the network is told of an image: any of group, age, sex, site, slice and the names in "
        "cohort.covariates, e.g. [group, age]; empty is nothing.",
    )
    drop_condition: Fraction = Field(
        0.1,
        description="Share of training images whose conditions are all hidden, which guidance needs; where there are "
        "several, in as many again each is hidden by chance.",
    )
    detail: int = Field(
        0,
        ge=0,
        le=1024,
        description="Channels of convolutions at full resolution behind a folded network, which add fine detail; 0: none.",
    )
    patch: Positive | None = Field(
        None,
        description="Voxels along each axis of the random patches that a diffusion of what a regression leaves is trained on, "
        "without attention and normalised at each voxel, so that whole images can be done; null: whole images.",
    )
    checkpointing: bool = Field(False, description="Trade time for memory.")
    synthetic_lesions: SyntheticLesionOptions | None = Field(
        None, description="Train on lesions drawn at random, which are taken out and marked (anomaly)."
    )
    start_from: FilePath | None = Field(
        None,
        description=f"{START_FROM} Or another recipe of this configuration, whose denoiser is then trained first.",
    )
    training: TrainingOptions = Field(TrainingOptions(), description="Its training.")

    @field_validator("condition", mode="before")
    @classmethod
    def _condition_is_a_list(cls, written: Any) -> Any:
        """A single name is a list of one; ``none`` and null are an empty one."""
        if isinstance(written, str) or written is None:
            return [] if written in (None, "none") else [written]
        return written

    @field_validator("condition")
    @classmethod
    def _each_condition_once(cls, names: list[str]) -> list[str]:
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{', '.join(repeated)} is there twice; name each condition once")
        return names

    @model_validator(mode="after")
    def _channels_fit(self) -> DenoiserOptions:
        if self.channels[0] < 2:
            raise ValueError(f"channels start with {self.channels[0]}; the first must be 2 or more")
        if len(self.attention) != len(self.channels):
            raise ValueError(
                f"attention has {len(self.attention)} entries for {len(self.channels)} channels; give one each"
            )
        if self.patch:
            if any(self.attention):
                raise ValueError("denoiser.patch is for networks without attention: set attention to false everywhere")
            _whole_blocks(self.patch, self.fold, self.channels)
            return self
        attending = {
            *self.channels[-1:],
            *(n for n, marked in zip(self.channels, self.attention, strict=True) if marked),
        }
        for count in sorted(attending):
            if count % min(self.head_channels, count):
                raise ValueError(
                    f"head_channels is {self.head_channels}, which does not divide the {count} channels of a resolution "
                    "with attention (the last always has it)"
                )
        return self


class SamplingOptions(Options):
    """How images come out of the trained denoiser."""

    sampler: Literal["ddim", "ddpm", "dpm_solver"] = Field("ddim", description="Sampler.")
    steps: Positive = Field(
        50, description="Steps from where sampling starts down to the image; no more than timesteps."
    )
    eta: Fraction = Field(0.0, description="Noise added back by DDIM.")
    guidance: float = Field(1.0, ge=0, le=1000, description="Classifier-free guidance scale; 1 is none.")
    start: float = Field(0.25, gt=0, le=1, description="Anomaly: noise a scan to this fraction of the timesteps.")
    count: int = Field(
        64,
        ge=0,
        le=1_000_000_000,
        description="Images to sample, of each combination where conditions are varied; translation: draws of a scan, whose "
        "mean is the prediction, 1 unless given; 0: none, the regression is the prediction and no denoiser is trained.",
    )
    conditions: dict[str, list[str | Annotated[float, Field(ge=-1e9, le=1e9)]]] = Field(
        {}, description="Values that samples are told, e.g. {age: [25, 70]}: each combination is sampled."
    )
    others: Literal["cohort", "every"] | None = Field(
        None,
        description="Conditions not listed there: drawn together as held-out people have them (cohort), or each category "
        "in turn with numbers as its people have them (every). null: cohort for generation, else every.",
    )
    batch_size: Positive = Field(16, description="Images sampled together.")
    counterfactuals: int = Field(
        8,
        ge=0,
        le=1_000_000,
        description="Held-out people whose scan is made again under other conditions (synthesis); 0: none.",
    )
    checkpoints: Positive = Field(
        4,
        description="Averaged weights kept along the training; generation samples and judges them all, synthesis looks for copies in them.",
    )
    seed: Seed = Field(0, description="Of the noise.")
    allow_trained_people: bool = Field(
        False,
        description="Infer and evaluate people the model was trained on too; every metric then says so.",
    )


Part = Literal[
    "residual", "residual_asymmetry", "residual_by_place", "intensity", "intensity_asymmetry", "segmentation"
]  # fmt: skip


Residual = Literal["squared", "l1", "signed", "ssim"]


class ScoreOptions(Options):
    """What an anomaly map is made of."""

    levels: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        [],
        description="Shares of signal (abar) to which a scan is noised and from which one step restores it; their "
        "residuals are averaged. Empty: the chain from sampling.start.",
    )
    draws: Positive = Field(1, description="Draws of noise at each level.")
    residual: Residual = Field(
        "squared",
        description="Difference of scan and reconstruction, squared, absolute, counted in the direction of lesions, or of their "
        "local structure (1 - SSIM).",
    )
    lesions: Literal["auto", "bright", "dark"] = Field(
        "auto", description="How lesions differ from healthy tissue; auto: dark on T1w scans, bright on all others."
    )
    weights: dict[Part, Annotated[float, Field(ge=-1e6, le=1e6)]] = Field(
        {"residual": 1.0},
        min_length=1,
        description="Parts of the score with their weights. Where there are several, each is standardised on healthy training "
        "images first. `_asymmetry` is the excess over the mirrored neighbourhood, `_by_place` stands in standard deviations of "
        "healthy training images around the same place, `segmentation` needs denoiser.synthetic_lesions.",
    )


class EvaluationOptions(Options):
    """How results are judged."""

    bootstrap: int = Field(1000, gt=0, le=1_000_000, description="Resamples of subjects for confidence intervals.")
    smoothing_mm: float = Field(
        3.0, ge=0, le=100, description="Smoothing of anomaly maps and their baselines, mm (pictures: pixels)."
    )
    smoothing: Literal["gaussian", "box"] = Field(
        "gaussian", description="By a Gaussian, whose sigma `smoothing_mm` is, or a box, whose side it is."
    )
    erosion_mm: float = Field(
        0.0,
        ge=0,
        le=50,
        description="Rim of the brain that is not judged to be abnormal, mm (pictures: pixels): in maps and their baselines it has the "
        "lowest score.",
    )
    score: ScoreOptions = Field(ScoreOptions(), description="What an anomaly map is made of.")
    features: str = Field(
        "random",
        description="Network by which sets of images are compared (FID, KID): random, the folder or name of a trained "
        "autoencoder or segmenter (ventricles-t1, which knows anatomy, for T1-weighted slices), or a TorchScript file.",
    )
    segmenter: str | None = Field(
        None,
        description="Bundle of a segmenter, its folder or name, by which the lateral ventricles of samples and of held-out "
        "people are compared; null: they are not.",
    )
    regions: FilePath | None = Field(
        None,
        description="Translation: map of labels in whose regions correlation is measured, an atlas in MNI152 space; or, with "
        "`{participant}` and perhaps `{session}` in its path, one of each person in the space of the scan. Names from a table beside "
        "it, columns index and name: `atlas.tsv` beside `atlas.nii.gz`, `labels.tsv` beside `labels/{participant}.nii.gz`.",
    )
    shells: list[Annotated[int, Field(ge=1, le=50_000)]] = Field(
        [],
        description="Translation of dwi to noddi: b-values of the source's shells, rising. The signal that the maps stand for is then "
        "compared with the source's.",
    )
    source_voxel_size: VoxelSize | None = Field(
        None,
        description="Voxel size of the source as acquired, mm, where it is larger than that of the images: the signal is then compared "
        "in means over blocks of this size.",
    )
    ages: Limits = Field(
        (35.0, 60.0),
        description="Where ages are told, people under the first are compared with those from the second on.",
    )
    seed: Seed = Field(0, description="Of the resampling.")


def _said(value: Any, *keys: str) -> Any:
    """What a nested part of the configuration says, as it came; None where it says nothing."""
    for key in keys:
        value = _plain(value)
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _plain(value: Any) -> Any:
    return value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else value


def _filled(network: Any, default: Mapping[str, Any]) -> Any:
    """A network's options with ``training.augment`` complete; what is no mapping is left for the types to refuse."""
    network = _plain(network)
    training = _plain(network.get("training", {})) if isinstance(network, Mapping) else None
    if not isinstance(training, Mapping):
        return network
    augment = _plain(_augment(training.get("augment", {})))
    if not isinstance(augment, Mapping):
        return network
    said = {name: value for name, value in augment.items() if value is not None}
    return {**network, "training": {**training, "augment": {**default, **said}}}


class RecipeOptions(Options):
    """One model: its data, its networks, its sampling and its judgement."""

    task: Task = Field(description="What the model is for.")
    weights: FilePath | None = Field(
        None,
        description="A bundle by its name or folder, or the folder of a finished recipe: it is applied to new scans and nobody "
        "trains; what is not said here comes from it (docs/bundles.md).",
    )
    data: DataOptions = Field(DataOptions(), description="Its images.")
    autoencoder: AutoencoderOptions | None = Field(None, description="For synthesis and translation.")
    regression: RegressionOptions | None = Field(
        None,
        description="Translation: predicts the target, and stands beside the result. Without an autoencoder the diffusion "
        "learns what it leaves, voxel by voxel.",
    )
    diffusion: DiffusionOptions = Field(DiffusionOptions(), description="Its forward process.")
    denoiser: DenoiserOptions = Field(DenoiserOptions(), description="Its network.")
    sampling: SamplingOptions = Field(SamplingOptions(), description="Its sampling.")
    evaluation: EvaluationOptions = Field(EvaluationOptions(), description="Its judgement.")

    @property
    def draws_nothing(self) -> bool:
        """Whether it has no denoiser: a translation whose prediction is its regression."""
        return self.sampling.count == 0

    @model_validator(mode="before")
    @classmethod
    def _augment_as_the_task_does(cls, values: Any) -> Any:
        """Fill in what the configuration leaves open, so that every stage and its provenance see numbers."""
        task = TASKS.get(str(values.get("task"))) if isinstance(values, Mapping) else None
        if task is None:
            return values
        default = UNCHANGED if _said(values.get("data"), "modality") == "image" else dict(task.augment)
        filled = dict(values)
        if values.get("autoencoder") is not None:  # the denoiser then learns latents, which are encoded once
            filled["autoencoder"] = _filled(values["autoencoder"], default)
        else:
            filled["denoiser"] = _filled(values.get("denoiser") or {}, default)
        if values.get("regression") is not None and task.source_and_target:
            filled["regression"] = _filled(values["regression"], default)
        return filled

    @model_validator(mode="before")
    @classmethod
    def _draws_of_the_task(cls, values: Any) -> Any:
        task = TASKS.get(str(values.get("task"))) if isinstance(values, dict) else None
        if task and task.draws and isinstance(sampling := values.get("sampling", {}), dict):
            return {**values, "sampling": {"count": task.draws, **sampling}}
        return values

    @model_validator(mode="after")
    def _choices_fit_together(self) -> RecipeOptions:
        if len(self.data.size) != self.data.dimensions:
            raise ValueError(f"data.size has {len(self.data.size)} entries for {self.data.dimensions} dimensions")
        if "slice" in self.denoiser.condition and self.data.dimensions == 3:
            raise ValueError("denoiser.condition slice is the position of a slice: take it out, volumes have none")
        if self.sampling.guidance != 1 and self.denoiser.condition and not self.denoiser.drop_condition:
            raise ValueError(
                f"sampling.guidance {self.sampling.guidance:g} compares images with and without conditions, but "
                "denoiser.drop_condition is 0; set guidance: 1, or a drop_condition such as 0.1"
            )
        for name, values in self.sampling.conditions.items():
            if name not in self.denoiser.condition:
                raise ValueError(f"sampling.conditions {name}: the model is not told it; add it to denoiser.condition")
            if not values:
                raise ValueError(f"sampling.conditions {name}: the list is empty; give values, or leave it out")
        if self.denoiser.synthetic_lesions and (self.task != "anomaly" or self.diffusion.prediction != "x0"):
            raise ValueError(
                "denoiser.synthetic_lesions needs task anomaly and diffusion.prediction x0: remove it, or set both"
            )
        if not any(self.evaluation.score.weights.values()):
            raise ValueError("evaluation.score.weights are all 0: nothing would be scored; give one a weight")
        if "segmentation" in self.evaluation.score.weights and not self.denoiser.synthetic_lesions:
            raise ValueError(
                "evaluation.score.weights segmentation needs denoiser.synthetic_lesions: a network that marks"
            )
        task = TASKS[self.task]
        if self.denoiser.patch and (self.autoencoder is not None or self.regression is None):
            raise ValueError("denoiser.patch is for a diffusion of what a regression leaves: take it out")
        if task.source_and_target and self.data.target is None:
            raise ValueError(f"{self.task} needs data.target")
        if task.source_and_target and len(self.data.modalities) > 1:
            raise ValueError(f"{self.task} predicts data.target from one modality: write one data.modality")
        if task.source_and_target and self.autoencoder is None and self.regression is None:
            raise ValueError(
                f"{self.task} needs a regression, whose residual is diffused, or an autoencoder, for a diffusion of latents"
            )
        if self.draws_nothing and not (task.source_and_target and self.regression and self.autoencoder is None):
            raise ValueError(
                "sampling.count is 0: without draws a translation by a regression, and nothing else, has a result; give a count"
            )
        shells, pairs = self.evaluation.shells, (self.data.modality, self.data.target)
        if shells and (pairs != ("dwi", "noddi") or self.data.channels not in (1 + len(shells), 1 + 2 * len(shells))):
            raise ValueError(
                f"evaluation.shells names {len(shells)} shells of dwi that becomes noddi: data.channels must be "
                f"{1 + len(shells)} (preprocess.dwi_channels shells) or {1 + 2 * len(shells)} (moments)"
            )
        if task.works_on == "images" and self.autoencoder is not None:
            raise ValueError(f"{self.task} works on images: remove autoencoder")
        return self


class ReportOptions(Options):
    """The HTML report."""

    atlas: FilePath | None = Field(
        None,
        description="NIfTI file of numbered regions in MNI152 space, with a table of the columns index and name beside it (.tsv): "
        "names the region of each finding. `python -m pipeline_lib.report atlas` fetches one by nilearn.",
    )

    @property
    def atlas_table(self) -> str | None:
        """The table of names beside the atlas."""
        return re.sub(r"\.nii(\.gz)?$", "", self.atlas) + ".tsv" if self.atlas else None


class Config(Options):
    """The whole configuration file."""

    cohort: CohortOptions = Field(CohortOptions(), description="Who takes part.")
    split: SplitOptions = Field(SplitOptions(), description="Train, validation, test.")
    preprocess: PreprocessOptions = Field(PreprocessOptions(), description="Preprocessing.")
    report: ReportOptions = Field(ReportOptions(), description="The HTML report.")
    recipes: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)], RecipeOptions] = Field(
        {}, description="The models to make, by name: options, or the path of a YAML file with them."
    )

    @field_validator("recipes")
    @classmethod
    def _names_are_free(cls, recipes: dict[str, RecipeOptions]) -> dict[str, RecipeOptions]:
        if taken := sorted(RESERVED & set(recipes)):
            raise ValueError(f"{', '.join(taken)}: the name is taken by a stage; choose another")
        return recipes

    @model_validator(mode="after")
    def _slices_show_brain(self) -> Config:
        for name, recipe in self.recipes.items():
            slices, (low, high) = recipe.data.slices, BRAIN_MM[recipe.data.slices.plane]
            registered = self.preprocess.space == "MNI152" and set(recipe.data.modalities) <= set(ANATOMICAL)
            if recipe.data.dimensions == 2 and registered and not (slices.from_mm < high and slices.to_mm > low):
                raise ValueError(
                    f"recipes.{name}.data.slices: no brain lies between {slices.from_mm:g} and {slices.to_mm:g} mm; "
                    f"{slices.plane} slices of the template's go from {low} to {high} mm"
                )
        return self

    @model_validator(mode="after")
    def _conditions_are_columns(self) -> Config:
        known = [*CONDITIONS, *self.cohort.covariates]
        for name, recipe in self.recipes.items():
            for condition in recipe.denoiser.condition:
                if condition not in known and not recipe.weights:  # what a trained model is not told is unknown to it
                    raise ValueError(
                        f"recipes.{name}.denoiser.condition: {condition} is not known; write any of {', '.join(known)}, or "
                        f"name the sheet's column in cohort.covariates: {{{condition}: category}}"
                    )
        return self
