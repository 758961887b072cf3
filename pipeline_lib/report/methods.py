"""Methods text in sentences that can go into a paper, written from the options that were really used."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pipeline_lib.config.fine_tuning import NEW_CATEGORIES
from pipeline_lib.config.schema import (
    AutoencoderOptions,
    DataOptions,
    DenoiserOptions,
    PreprocessOptions,
    RecipeOptions,
    SplitOptions,
    TrainingOptions,
)
from pipeline_lib.dataset.conditions import NUMBERS
from pipeline_lib.report.bibtex import bibtex
from pipeline_lib.tasks import TASKS
from pipeline_lib.tasks.task import covers

REFERENCES = {
    "daducci": ("Daducci et al., 2015", "Daducci A, Canales-Rodríguez EJ, Zhang H, Dyrby TB, Alexander DC, Thiran JP. Accelerated Microstructure Imaging via Convex Optimization (AMICO) from diffusion MRI data. NeuroImage 2015; 105:32-44"),
    "esser": ("Esser et al., 2021", "Esser P, Rombach R, Ommer B. Taming transformers for high-resolution image synthesis. CVPR 2021. arXiv:2012.09841"),
    "fonov": ("Fonov et al., 2011", "Fonov V, Evans AC, Botteron K, Almli CR, McKinstry RC, Collins DL. Unbiased average age-appropriate atlases for pediatric studies. NeuroImage 2011; 54(1):313-327"),
    "hang": ("Hang et al., 2023", "Hang T, Gu S, Li C, et al. Efficient diffusion training via min-SNR weighting strategy. ICCV 2023. arXiv:2303.09556"),
    "ho": ("Ho et al., 2020", "Ho J, Jain A, Abbeel P. Denoising diffusion probabilistic models. NeurIPS 2020. arXiv:2006.11239"),
    "guidance": ("Ho and Salimans, 2022", "Ho J, Salimans T. Classifier-free diffusion guidance. 2022. arXiv:2207.12598"),
    "hoogeboom": ("Hoogeboom et al., 2023", "Hoogeboom E, Heek J, Salimans T. simple diffusion: end-to-end diffusion for high resolution images. ICML 2023. arXiv:2301.11093"),
    "hoopes": ("Hoopes et al., 2022", "Hoopes A, Mora JS, Dalca AV, Fischl B, Hoffmann M. SynthStrip: skull-stripping for any brain image. NeuroImage 2022; 260:119474"),
    "isensee": ("Isensee et al., 2019", "Isensee F, Schell M, Pflueger I, et al. Automated brain extraction of multisequence MRI using artificial neural networks. Human Brain Mapping 2019; 40(17):4952-4964"),
    "jabri": ("Jabri et al., 2022", "Jabri A, Fleet D, Chen T. Scalable adaptive computation for iterative generation. 2022. arXiv:2212.11972"),
    "disyre": ("Naval Marimont et al., 2024", "Naval Marimont S, Baugh M, Siomos V, Tzelepis C, Kainz B, Tarroni G. DISYRE: diffusion-inspired synthetic restoration for unsupervised anomaly detection. ISBI 2024. arXiv:2311.15453"),
    "kascenas": ("Kascenas et al., 2022", "Kascenas A, Pugeault N, O'Neil AQ. Denoising autoencoders for unsupervised anomaly detection in brain MRI. MIDL 2022. arXiv:2301.08330"),
    "kingma": ("Kingma and Welling, 2014", "Kingma DP, Welling M. Auto-encoding variational Bayes. ICLR 2014. arXiv:1312.6114"),
    "lin": ("Lin et al., 2024", "Lin S, Liu B, Li J, Yang X. Common diffusion noise schedules and sample steps are flawed. WACV 2024. arXiv:2305.08891"),
    "loshchilov": ("Loshchilov and Hutter, 2019", "Loshchilov I, Hutter F. Decoupled weight decay regularization. ICLR 2019. arXiv:1711.05101"),
    "lowekamp": ("Lowekamp et al., 2013", "Lowekamp BC, Chen DT, Ibanez L, Blezek D. The design of SimpleITK. Frontiers in Neuroinformatics 2013; 7:45"),
    "lu": ("Lu et al., 2022", "Lu C, Zhou Y, Bao F, Chen J, Li C, Zhu J. DPM-Solver++: fast solver for guided sampling of diffusion probabilistic models. 2022. arXiv:2211.01095"),
    "nichol": ("Nichol and Dhariwal, 2021", "Nichol A, Dhariwal P. Improved denoising diffusion probabilistic models. ICML 2021. arXiv:2102.09672"),
    "gal": ("Gal et al., 2023", "Gal R, Alaluf Y, Atzmon Y, et al. An image is worth one word: personalizing text-to-image generation using textual inversion. International Conference on Learning Representations 2023. arXiv:2208.01618"),
    "mardani": ("Mardani et al., 2025", "Mardani M, Brenowitz N, Cohen Y, et al. Residual corrective diffusion modeling for km-scale atmospheric downscaling. Communications Earth and Environment 2025; 6:124. arXiv:2309.15214"),
    "oord": ("van den Oord et al., 2017", "van den Oord A, Vinyals O, Kavukcuoglu K. Neural discrete representation learning. NeurIPS 2017. arXiv:1711.00937"),
    "rombach": ("Rombach et al., 2022", "Rombach R, Blattmann A, Lorenz D, Esser P, Ommer B. High-resolution image synthesis with latent diffusion models. CVPR 2022. arXiv:2112.10752"),
    "molder": ("Mölder et al., 2021", "Mölder F, Jablonski KP, Letcher B, et al. Sustainable data analysis with Snakemake. F1000Research 2021; 10:33"),
    "ronneberger": ("Ronneberger et al., 2015", "Ronneberger O, Fischer P, Brox T. U-Net: convolutional networks for biomedical image segmentation. MICCAI 2015. arXiv:1505.04597"),
    "rueckert": ("Rueckert et al., 1999", "Rueckert D, Sonoda LI, Hayes C, Hill DLG, Leach MO, Hawkes DJ. Nonrigid registration using free-form deformations: application to breast MR images. IEEE Transactions on Medical Imaging 1999; 18(8):712-721"),
    "salimans": ("Salimans and Ho, 2022", "Salimans T, Ho J. Progressive distillation for fast sampling of diffusion models. ICLR 2022. arXiv:2202.00512"),
    "shinohara": ("Shinohara et al., 2014", "Shinohara RT, Sweeney EM, Goldsmith J, et al. Statistical normalization techniques for magnetic resonance imaging. NeuroImage: Clinical 2014; 6:9-19"),
    "song": ("Song et al., 2021", "Song J, Meng C, Ermon S. Denoising diffusion implicit models. ICLR 2021. arXiv:2010.02502"),
    "tustison": ("Tustison et al., 2010", "Tustison NJ, Avants BB, Cook PA, et al. N4ITK: improved N3 bias correction. IEEE Transactions on Medical Imaging 2010; 29(6):1310-1320"),
    "wyatt": ("Wyatt et al., 2022", "Wyatt J, Leach A, Schmon SM, Willcocks CG. AnoDDPM: anomaly detection with denoising diffusion probabilistic models using simplex noise. CVPR Workshops 2022"),
    "zhang": ("Zhang et al., 2012", "Zhang H, Schneider T, Wheeler-Kingshott CA, Alexander DC. NODDI: practical in vivo neurite orientation dispersion and density imaging of the human brain. NeuroImage 2012; 61(4):1000-1016"),
}  # fmt: skip

RULER = (
    "Lateral ventricles were segmented alike in samples and in held-out people, and their share of the brain was compared at "
    "the same slices; intervals are percentile bootstraps over people and over the noises of samples."
)
OPENED = "Every scan was opened, checked and brought to canonical orientation."
EXTRACTION = {
    "learned": "The brain was extracted with the small 3D U-Net that comes with this pipeline.",
    "given": "The brain masks given in the sheet were used.",
    "synthstrip": "The brain was extracted with SynthStrip [hoopes].",
    "hd-bet": "The brain was extracted with HD-BET [isensee].",
    "none": "Scans were taken as already stripped of the skull.",
    "found": "The scan was recognised as already stripped of the skull.",
}
REGISTRATION = {
    "affine": "with an affine transform",
    "deformable": "with an affine transform and a grid of cubic B-splines [rueckert]",
}
INTENSITY = {
    "percentile": "Intensities were scaled linearly between robust percentiles within the brain and clipped.",
    "zscore": "Intensities were standardised to zero mean and unit variance within the brain.",
    "median_mad": "Intensities were standardised by the median and the median absolute deviation within the brain.",
    "whitestripe": "Intensities were standardised to zero mean and unit variance of normal white matter [shinohara].",
    "none": "Intensities were left as they are.",
}
SCHEDULE = {
    "linear": "a linear variance schedule [ho]",
    "scaled_linear": "a variance schedule linear in its square root [rombach]",
    "cosine": "a cosine schedule [nichol]",
    "sigmoid": "a sigmoid schedule [jabri]",
}
PREDICTION = {"eps": "the noise [ho]", "v": "the velocity v [salimans]", "x0": "the clean image"}
TOLD = {
    "group": "the group",
    "age": "the age",
    "sex": "the sex",
    "site": "the site",
    "slice": "the slice's position",
}
LOSS = {"l2": "mean squared error", "l1": "mean absolute error", "huber": "the Huber loss"}
WEIGHT = {
    "v": "weighted as the velocity's error is, by SNR + 1 on the clean image [salimans]",
    "min_snr": "with min-SNR weighting, by SNR on the clean image [hang]",
}
NAMED = {"torch": "PyTorch", "snakemake": "Snakemake [molder]"}
SAMPLER = {
    "ddim": "DDIM [song]",
    "ddpm": "ancestral DDPM sampling [ho]",
    "dpm_solver": "the second-order multistep DPM-Solver++ [lu]",
}


@dataclass(frozen=True)
class Methods:
    """Paragraphs of plain text and the references they cite, in order of appearance, as text and as BibTeX."""

    paragraphs: tuple[str, ...]
    references: tuple[str, ...]
    bibtex: str = ""


def methods_text(*paragraphs: str) -> Methods:
    """Replace markers such as ``[ho]`` by author and year and collect the references cited."""
    cited: dict[str, None] = {}

    def name(match: re.Match[str]) -> str:
        keys = match[1].split()
        cited.update(dict.fromkeys(keys))
        return f"({'; '.join(REFERENCES[key][0] for key in keys)})"

    written = tuple(re.sub(r"\[([a-z ]+)\]", name, paragraph) for paragraph in paragraphs if paragraph)
    entries = [bibtex(f"{key}{REFERENCES[key][0][-4:]}", REFERENCES[key][1]) for key in cited]
    return Methods(written, tuple(REFERENCES[key][1] for key in cited), "\n\n".join(entries))


def preprocess_paragraph(options: PreprocessOptions, modalities: Collection[str]) -> str:
    """How the scans of a cohort with these modalities came to a common space."""
    steps = [OPENED]
    anatomical = bool({*modalities} - {"dwi", "noddi", "image"})
    if anatomical:
        steps.append(_anatomical(options, options.brain_extraction))
        if options.brain_extraction != "given":
            steps.append("Where the sheet gave a brain mask, it was used instead.")
    if "dwi" in modalities:
        steps.append(_diffusion_series(options))
    return " ".join([*steps, _excluded(options, anatomical=anatomical)])


def scan_paragraph(options: PreprocessOptions, row: Mapping[str, str]) -> str:
    """How one scan of the status table came to be what it is."""
    modality = row["modality"]
    if modality == "image":
        return "The slices were opened, checked and taken as they are."
    if modality in ("dwi", "noddi"):
        done = (
            _diffusion_series(options)
            if modality == "dwi"
            else "The maps stayed in their own space, within their mask."
        )
        return f"{OPENED} {done} {_excluded(options, anatomical=False)}"
    method = row.get("brain_method") or options.brain_extraction
    return " ".join(
        [
            OPENED,
            _anatomical(options, "found" if method == "already stripped" else method),
            _excluded(options, anatomical=True),
        ]
    )


def _anatomical(options: PreprocessOptions, extraction: str) -> str:
    steps = [EXTRACTION[extraction]]
    if options.bias_field:
        steps.append("The bias field was corrected with N4 [tustison].")
    if options.space == "MNI152":
        steps.append(
            f"The brain was registered to the MNI152 template [fonov] {REGISTRATION[options.registration]} in SimpleITK "
            f"[lowekamp] and resampled to {options.voxel_size:g} mm isotropic voxels."
        )
    else:
        steps.append(f"The scan stayed in its own space, resampled to {options.voxel_size:g} mm isotropic voxels.")
    return " ".join([*steps, INTENSITY[options.intensity]])


SEEN_OF_DIFFUSION = {
    "shells": "the mean of each shell",
    "moments": "the mean of each shell and its standard deviation between directions",
    "directions": "every weighted volume",
}


def _diffusion_series(options: PreprocessOptions) -> str:
    fitted = (
        " Where no NODDI maps [zhang] were given, they were fitted to multi-shell diffusion MRI with AMICO [daducci]."
        if options.noddi == "amico"
        else ""
    )
    seen = SEEN_OF_DIFFUSION[options.dwi_channels]
    return f"Diffusion MRI stayed in its own space, its signal divided by the mean b0; networks saw the mean b0 and {seen}.{fitted}"


def _excluded(options: PreprocessOptions, *, anatomical: bool) -> str:
    limits = options.quality
    low, high = limits.brain_volume_ml
    reasons = [f"a brain volume outside {low:g} to {high:g} mL"]
    if anatomical:
        if options.space == "MNI152":
            reasons.append(f"a Dice overlap with the template's brain under {limits.min_template_overlap:g}")
            reasons.append(f"a registration cost above {limits.max_registration_cost:g}")
            reasons.append(
                f"more than {limits.max_outside_field:.0%} of the template's brain outside the field of view"
            )
            if limits.contrast:
                reasons.append("a contrast of tissues unlike their modality's")
        dark, bright = limits.brain_median
        reasons.append(f"more than {limits.max_mask_components} pieces of an extracted brain mask")
        reasons.append(f"a median brain intensity outside {dark:g} to {bright:g}")
    listed = reasons[0] if len(reasons) == 1 else f"{', '.join(reasons[:-1])} or {reasons[-1]}"
    return f"Scans with {listed} were kept out of training and evaluation."


def split_paragraph(options: SplitOptions) -> str:
    """How people came into train, validation and test."""
    if options.method == "from_test":
        return (
            "The data came with training and test folders. Whole patients were moved from test to validation, as many "
            "as a hundredth of the number of training images."
        )
    strata = [name.replace("_", " ") for name in options.stratify]
    by = f", stratified by {_and(strata)}" if strata else ""
    return (
        "People, never single scans or slices, were placed in training, validation and test "
        f"({options.train:.0%}, {options.validation:.0%}, {options.test:.0%}){by}. Placements are kept in a ledger that "
        "only grows. A model's checkpoint carries hashed identifiers of the people it was trained on, and inference "
        "refuses them."
    )


def recipe_methods(recipe: RecipeOptions, versions: Mapping[str, str] = MappingProxyType({})) -> Methods:
    """Data, networks, diffusion, sampling and evaluation of one recipe, and the versions of what made its model."""
    applied = (
        f"Nothing was trained on these scans: the model {recipe.weights} was applied as it was trained, which was as follows, "
        "with the thresholds and units that it brings."
        if recipe.weights
        else ""
    )
    networks = (_autoencoder(recipe), _regression(recipe), _denoiser(recipe))
    return methods_text(applied, _data(recipe), *networks, _sampling(recipe), _evaluation(recipe), _software(versions))


def _software(versions: Mapping[str, str]) -> str:
    """Which versions of what a model was made with; empty where nobody knows."""
    named = [f"{NAMED.get(name, name)} {version}" for name, version in versions.items() if version]
    return f"The model was made with {_and(named)}." if named else ""


def _data(recipe: RecipeOptions) -> str:
    data = recipe.data
    size = " x ".join(str(n) for n in data.size)
    what = "images" if data.modality == "image" else f"{_and(list(data.modalities))} scans"
    if data.dimensions == 2 and data.modality != "image":
        cut = data.slices
        text = (
            f"The model saw {cut.plane} slices of {what}, one every {cut.every_mm:g} mm from {cut.from_mm:g} to "
            f"{cut.to_mm:g} mm, as images of {size} pixels"
        )
    else:
        text = f"The model saw {what} of {size} {'pixels' if data.dimensions == 2 else 'voxels'}"
    if data.voxel_size is not None:
        text += f", resampled to {data.voxel_size:g} mm"
    text += f", with {data.channels} channel{'s' if data.channels > 1 else ''} scaled to [-1, 1]."
    if data.target is not None:
        text += (
            f" The target was {data.target} of the same person and session, with {data.target_channels} "
            f"channel{'s' if data.target_channels > 1 else ''}."
        )
    if data.train_groups:
        text += f" Only people of {_and(data.train_groups)} were used for training."
    if data.lesion_free:
        text += " Only images without a lesion were used for training."
    return text


def _autoencoder(recipe: RecipeOptions) -> str:
    if recipe.autoencoder is None:
        return ""
    options: AutoencoderOptions = recipe.autoencoder
    factor = options.fold * 2 ** (len(options.channels) - 1)
    widths = ", ".join(str(n) for n in options.channels)
    if options.kind == "vae":
        text = (
            f"Images were compressed by a KL-regularised autoencoder [kingma rombach]{_folded(options.fold)} with {widths} channels, "
            f"a spatial factor of {factor} and {options.latent_channels} latent channels (KL weight {options.kl_weight:g})."
        )
    else:
        text = (
            f"Images were compressed by a VQGAN [oord esser]{_folded(options.fold)} with {widths} channels, a spatial factor of {factor}, "
            f"{options.latent_channels} latent channels and a codebook of {options.codes:,} entries updated by "
            f"exponential moving averages (commitment {options.commitment:g}). A patch discriminator with weight "
            f"{options.adversarial_weight:g} joined after step {options.adversarial_start:,}."
        )
    if TASKS[recipe.task].source_and_target:
        text += " Source and target each had their own."
    train = options.training
    return (
        f"{text}{_started(options)} It was trained for {train.length}, {train.batch_size * train.accumulate} images a step, with AdamW "
        f"[loshchilov], {_rate(train)}. Latents were scaled per channel to unit variance "
        f"over the training set.{_augmentation(train, recipe.data)}"
    )


def _regression(recipe: RecipeOptions) -> str:
    if recipe.regression is None:
        return ""
    options, train = recipe.regression, recipe.regression.training
    return (
        f"A {recipe.data.dimensions}D U-Net [ronneberger]{_folded(options.fold)} with "
        f"{', '.join(str(n) for n in options.channels)} channels and {options.blocks} residual "
        f"block{'s' if options.blocks > 1 else ''} a level, without attention and normalised at each voxel, was added to the "
        "linear fit of the target. Its last layer started at zero. It was trained on the squared error inside the brain, each "
        f"map's over that of the linear fit, on random patches of {options.patch} voxels an axis, for {train.length}, "
        f"{train.batch_size * train.accumulate} patches a step, with AdamW [loshchilov], {_rate(train)}. Whole images were done in "
        f"overlapping, blended tiles.{_augmentation(train, recipe.data)}"
    )


def _denoiser(recipe: RecipeOptions) -> str:
    if recipe.draws_nothing:
        return ""
    diffusion, denoiser, train = recipe.diffusion, recipe.denoiser, recipe.denoiser.training
    noise = "Gaussian noise"
    if diffusion.noise.kind == "simplex":
        noise = (
            f"simplex noise [wyatt] of {diffusion.noise.octaves} octaves, decay {diffusion.noise.decay:g}, lowest "
            f"frequency {diffusion.noise.frequency:.4g} cycles per voxel"
        )
    elif diffusion.noise.kind == "coarse":
        noise = f"coarse Gaussian noise [kascenas] of {diffusion.noise.spacing} voxels between independent values"
    text = f"A denoising diffusion model [ho] used {noise}, {diffusion.timesteps:,} timesteps and {SCHEDULE[diffusion.schedule]}"
    if diffusion.zero_terminal_snr:
        text += ", rescaled to zero terminal signal-to-noise ratio [lin]"
    if diffusion.shift == "auto":
        text += ", its log SNR shifted with the number of voxels above 128 x 128 [hoogeboom]"
    elif diffusion.shift:
        text += f", its log SNR shifted by {diffusion.shift:g} [hoogeboom]"
    text += f". A {recipe.data.dimensions}D U-Net [ronneberger]{_folded(denoiser.fold)} with {', '.join(str(n) for n in denoiser.channels)} channels, "
    text += f"{denoiser.blocks} residual block{'s' if denoiser.blocks > 1 else ''} a level"
    levels = [str(level) for level, marked in enumerate(denoiser.attention, 1) if marked]
    if levels:
        text += f" and self-attention at level{'s' if len(levels) > 1 else ''} {_and(levels)}"
    if denoiser.detail:
        text += f", behind it convolutions of {denoiser.detail} channels at full resolution,"
    text += f" predicted {PREDICTION[diffusion.prediction]} and was trained on {LOSS[diffusion.loss]}"
    if diffusion.loss_weight != "none":
        text += f" {WEIGHT[diffusion.loss_weight]}, at most {diffusion.loss_weight_cap:g}"
    text += "."
    if denoiser.condition:
        several = len(denoiser.condition) > 1
        text += (
            f" It was told {_and([TOLD.get(name, name) for name in denoiser.condition])}, each through tokens of its own by "
            "cross-attention and with the timestep"
        )
        if denoiser.drop_condition:
            text += f"; {'all were' if several else 'it was'} hidden in {denoiser.drop_condition:.0%} of the training images"
            text += " and each by chance in as many again [guidance]" if several else " [guidance]"
        text += "."
    if denoiser.synthetic_lesions:
        lesions = denoiser.synthetic_lesions
        text += (
            f" {lesions.share:.0%} of the training images had lesions drawn at random put into them, {lesions.bright:.0%} of them "
            "bright, which the network learned to take out and to mark: no real lesion was seen [disyre]."
        )
    if TASKS[recipe.task].source_and_target:
        text += (
            " The source's latent was concatenated to the input."
            if recipe.autoencoder
            else " What it learned is the target less the regression, each map scaled to unit variance over the training set; source "
            "and regression were concatenated to the input [mardani]."
        )
    return (
        f"{text}{_started(denoiser)} Training took {train.length}, {train.batch_size * train.accumulate} images a step, with AdamW "
        f"[loshchilov], {_rate(train)}, gradients clipped to "
        f"norm {train.clip:g}, {train.precision} precision and seed {train.seed}. The weights used are an exponential "
        f"moving average with decay {train.ema:g}{_stopped(train)}.{_augmentation(train, recipe.data)}"
    )


def _started(options: AutoencoderOptions | DenoiserOptions) -> str:
    """What a network's weights were before its training; empty where they were random."""
    if not options.start_from:
        return ""
    told = options.condition if isinstance(options, DenoiserOptions) else ()
    may_be_new = any(name not in NUMBERS for name in told)
    rate = (
        f"; a condition with categories that these did not know is learned at a highest rate of {NEW_CATEGORIES:g} [gal]"
        if may_be_new
        else ""
    )
    return f" Its weights started from those of {options.start_from}{rate}."


def _rate(train: TrainingOptions) -> str:
    """The learning rate over the training, and the weight decay."""
    return (
        f"weight decay {train.weight_decay:g}, learning rate {train.learning_rate:g} after {train.warmup:,} steps of warm-up and "
        "from there down to 0 by half a cosine"
    )


def _stopped(train: TrainingOptions) -> str:
    """Which step's weights are used where a training may end early."""
    if not train.patience:
        return ""
    return f", at the lowest validation loss; training stopped after {train.patience} validations without a lower one"


def _augmentation(train: TrainingOptions, data: DataOptions) -> str:
    """How training images were changed; empty where they were not."""
    options = train.augment
    sides = data.dimensions == 3 or data.modality == "image" or data.slices.plane != "sagittal"
    parts = ["left and right exchanged in half of them"] if options.flip and sides else []
    parts += [f"rotated by up to {options.rotate:g} degrees"] if options.rotate else []
    parts += [f"scaled by up to {100 * options.scale:.3g} %"] if options.scale else []
    parts += [f"shifted by up to {100 * options.shift:.3g} % of each side"] if options.shift else []
    if options.gamma and data.target is None:
        parts.append(f"raised to a power of {2**-options.gamma:.2f} to {2**options.gamma:.2f}")
    return f" Each time they were seen, images were changed at random: {_and(parts)}." if parts else ""


def _folded(fold: int) -> str:
    """What stands behind a network's name where voxels are folded into channels."""
    return f" on voxels folded into channels by {fold} along each axis" if fold > 1 else ""


def _sampling(recipe: RecipeOptions) -> str:
    if recipe.draws_nothing:
        return "For each person the regression is the prediction; nothing was drawn."
    sampling = recipe.sampling
    how = f"{SAMPLER[sampling.sampler]} over {min(sampling.steps, _undone(recipe))} steps"
    if sampling.sampler == "ddim":
        how += f" with eta {sampling.eta:g}"
    if recipe.denoiser.condition and sampling.guidance != 1:
        how += f" and guidance scale {sampling.guidance:g} [guidance]"
    told = {"combinations": _combinations(recipe), "drawn": _drawn_after(recipe), "map": _map(recipe, how)}
    told["translated"] = "the target's latent" if recipe.autoencoder else "what the regression leaves of the target"
    return TASKS[recipe.task].inferred.format(recipe=recipe, sampler=how, **told)


def _undone(recipe: RecipeOptions) -> int:
    """Timesteps from where sampling starts down to the image: as many steps are taken at most."""
    timesteps = recipe.diffusion.timesteps
    part = covers(TASKS[recipe.task].reads, "sampling.start")
    return max(1, round(recipe.sampling.start * timesteps)) if part else timesteps


PARTS = {
    "residual": "the residual",
    "residual_asymmetry": "the residual's excess over the mirrored neighbourhood",
    "residual_by_place": "the residual in standard deviations of healthy training images around the same place",
    "intensity": "intensity by median and MAD",
    "intensity_asymmetry": "the excess of intensity over the mirrored neighbourhood",
    "segmentation": "the network's own mark of a lesion",
}
RESIDUAL = {
    "squared": "squared difference",
    "l1": "absolute difference",
    "signed": "signed difference",
    "ssim": "structural dissimilarity (1 - SSIM)",
}


def _map(recipe: RecipeOptions, how: str) -> str:
    """How an anomaly map came about."""
    score, evaluation = recipe.evaluation.score, recipe.evaluation
    if score.levels:
        levels = _and([f"{level:g}" for level in score.levels])
        text = (
            f"Each scan was noised until the share of signal was {levels}, {score.draws} draw{'s' if score.draws > 1 else ''} each, "
            f"and restored in one step [kascenas]"
        )
    else:
        text = f"To each scan noise was added up to {recipe.sampling.start:.0%} of the timesteps and removed again by {how} [wyatt]"
    text += f". The residual is the {RESIDUAL[score.residual]} of scan and reconstruction."
    if len(score.weights) > 1:
        parts = [f"{PARTS[name]} (weight {weight:g})" for name, weight in score.weights.items()]
        text += f" The anomaly map is the sum of {_and(parts)}, each in standard deviations of healthy training images,"
    else:
        text += f" The anomaly map is {PARTS[next(iter(score.weights))]}"
    kernel = "a box" if evaluation.smoothing == "box" else "a Gaussian"
    unit = "pixels" if recipe.data.modality == "image" else "mm"
    text += f" within the brain, smoothed by {kernel} of {evaluation.smoothing_mm:g} {unit}."
    if evaluation.erosion_mm:
        text += f" The rim of the brain, {evaluation.erosion_mm:g} {unit} deep, has the lowest score."
    return text


def _combinations(recipe: RecipeOptions) -> str:
    """Whether so many samples are of each combination of conditions, or in all."""
    every = (recipe.sampling.others or TASKS[recipe.task].others) == "every"
    varied = recipe.sampling.conditions or (every and set(recipe.denoiser.condition) - {"age", "slice"})
    return " of each combination of conditions" if varied else ""


def _drawn_after(recipe: RecipeOptions) -> str:
    """What samples were told that nobody listed."""
    every = (recipe.sampling.others or TASKS[recipe.task].others) == "every"
    rest = [name for name in recipe.denoiser.condition if name not in recipe.sampling.conditions]
    if every:
        rest = [name for name in rest if name not in ("group", "sex", "site")]
    if not rest:
        return ""
    words = _and([TOLD.get(name, name) for name in rest])
    return f" What was not varied ({words}) was drawn as held-out people have it, together."


def _evaluation(recipe: RecipeOptions) -> str:
    said = TASKS[recipe.task].judged.format(recipe=recipe)
    return f"{said} {RULER}" if recipe.evaluation.segmenter is not None else said


def _and(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
