"""Where real and generated images lie in the networks' inner spaces, and what can be read off there.

Two spaces: the autoencoder's latents, and the bottleneck of the denoiser's U-Net, for images that are lightly noised and of
which the network is told nothing, so that no label reaches its features but through the image. The picture is UMAP
(McInnes, 2018), which shows neighbourhoods and proves nothing; the table beside it says how well a linear classifier tells
the group, and the site, of people it was not fitted to, and how often chance would do as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.errors import UserError
from pipeline_lib.files import atomic_directory, write_json
from pipeline_lib.inference.chunks import open_array, read_indices
from pipeline_lib.inference.denoise import Denoiser, load_denoiser
from pipeline_lib.inference.latent import LatentSpace, load_latent_space
from pipeline_lib.inference.pictures import save
from pipeline_lib.training.steps import seed_of

Features = NDArray[np.float32]
SHARE_OF_SIGNAL = 0.9
"""abar of the noise that images get before the bottleneck is read; schedules are compared by it, not by t."""
CELLS = {"latents": 8, "bottleneck": 2}
"""Cells an axis that features are averaged to."""
MOST_IMAGES = 4000
COMPONENTS = 50
NEIGHBOURS = 15
FEWEST_FOR_UMAP = 6
FOLDS = 5
PERMUTATIONS = 999
LABELS = ("group", "site")
COLOURED = ("group", "age", "sex", "site", "split", "slice")
KEPT = ("scan", "participant", "group", "age", "sex", "site", "split", "slice")


def embed(
    recipe: RecipeOptions,
    diffusion: Path,
    data: list[Path],
    out: Path,
    autoencoder: Path | None = None,
    samples: Path | None = None,
) -> None:
    """Place real images, and samples where given, in each space; ask a linear classifier for group and site.

    Args:
        recipe: ``data.train_groups`` limits who takes part; ``evaluation.seed`` seeds UMAP, folds, permutations and noise.
        diffusion: folder of the trained denoiser.
        data: chunks of latents, or of the dataset without an autoencoder, of any split.
        out: folder for ``embedding.tsv`` (an image a row, columns ``latents_x`` ... ``bottleneck_y``), ``probes.tsv`` (a
            space and label a row: AUC, p-value), ``embedding.png`` and ``embedding.json``.
        autoencoder: folder of the trained autoencoder; None: the denoiser works on images.
        samples: folder of `sample_synthesis`, or None.

    Raises:
        UserError: there is no image.
    """
    denoiser = load_denoiser(recipe, diffusion)
    space = None if autoencoder is None else load_latent_space(autoencoder)
    index, clean = _real(recipe, data, space)
    if samples is not None:
        told, drawn = _generated(samples, space)
        index, clean = pd.concat([index, told], ignore_index=True), torch.cat([clean, drawn])
    seed = recipe.evaluation.seed
    features = {} if space is None else {"latents": pooled(clean, CELLS["latents"])}
    features["bottleneck"], t = bottleneck(denoiser, clean, index, seed)
    real = (index["split"] != "sample").to_numpy()
    probes = [
        probe(features[name][real], index[real], label, seed) | {"space": name} for name in features for label in LABELS
    ]
    agreement = {name: _agreement(features[name], index, real, seed) for name in features}
    methods = {}
    for name, values in features.items():
        points, methods[name] = project(values, seed)
        index[f"{name}_x"], index[f"{name}_y"] = points[:, 0], points[:, 1]
    table = pd.DataFrame(probes)
    with atomic_directory(out) as folder:
        index.to_csv(folder / "embedding.tsv", sep="\t", index=False)
        table[["space", *table.columns.drop("space")]].to_csv(folder / "probes.tsv", sep="\t", index=False)
        noise = {"t": t, "share_of_signal": denoiser.process.abar(t), "timesteps": denoiser.process.timesteps}
        write_json(
            folder / "embedding.json",
            {
                "methods": methods,
                "noise": noise,
                "probes": probes,
                "samples_classified_as_their_group": agreement,
                "n_points": len(index),
            },
        )
        save(_picture(index, methods, table, noise), folder / "embedding.png")


def _real(recipe: RecipeOptions, chunks: Sequence[Path], space: LatentSpace | None) -> tuple[pd.DataFrame, Tensor]:
    """Index and what the denoiser works on, (N, C, *spatial), of at most `MOST_IMAGES` real images, evenly spread."""
    index = read_indices(chunks)
    if recipe.data.train_groups:
        index = index[index["group"].isin(recipe.data.train_groups)].reset_index(drop=True)
    if index.empty:
        raise UserError("no image to embed: put scans of the recipe's groups in its dataset")
    index = index.iloc[np.unique(np.linspace(0, len(index) - 1, MOST_IMAGES).round().astype(int))].reset_index(
        drop=True
    )
    name = "data" if space is None else "mean"
    arrays = {chunk.name: open_array(chunk, name) for chunk in chunks}
    images = np.stack(
        [np.asarray(arrays[chunk][row], np.float32) for chunk, row in zip(index["chunk"], index["row"], strict=True)]
    )
    kept = index[list(KEPT)].copy()
    for number in ("age", "slice"):
        kept[number] = pd.to_numeric(kept[number], errors="coerce")
    return kept, torch.from_numpy(images) * (1.0 if space is None else space.scale)


def _generated(samples: Path, space: LatentSpace | None) -> tuple[pd.DataFrame, Tensor]:
    """Likewise of samples; what they were told stands where real images have what they are."""
    table = pd.read_csv(samples / "samples.tsv", sep="\t", dtype=str, keep_default_na=False)
    told = pd.DataFrame({name: table.get(name, "") for name in KEPT}, index=table.index)
    told = told.assign(scan=table["id"], participant="", split="sample", group=told["group"].replace("all", ""))
    for number in ("age", "slice"):
        told[number] = pd.to_numeric(told[number], errors="coerce")
    images = torch.from_numpy(np.load(samples / "samples.npy"))
    return told, images if space is None else space.encode(images)


def bottleneck(denoiser: Denoiser, clean: Tensor, index: pd.DataFrame, seed: int) -> tuple[Features, int]:
    """Pooled features (N, D) at the bottom of the U-Net, and the timestep to which images were noised.

    The network is told nothing: features of a network that is told the group would show the group whatever the image.

    Args:
        clean: images or latents as the denoiser was trained on, (N, C, *spatial).
        index: their ``scan`` and ``slice``, on which an image's noise depends.
    """
    process = denoiser.process
    t = min(range(process.timesteps), key=lambda t: abs(process.abar(t) - SHARE_OF_SIGNAL))
    device = next(denoiser.network.parameters()).device
    seeds = [seed_of(seed, scan, place) for scan, place in zip(index["scan"], index["slice"], strict=True)]
    size = denoiser.sampling.batch_size
    parts = []
    with torch.inference_mode():
        for first in range(0, len(clean), size):
            x0 = clean[first : first + size]
            noise = denoiser.streams(seeds[first : first + size])(x0.shape)
            steps = torch.full((len(x0),), t)
            noisy = process.forward_diffusion(x0, noise, steps).to(device)
            bottom: Tensor = denoiser.network.bottleneck(noisy, steps.to(device))  # type: ignore[operator]
            parts.append(pooled(bottom.float().cpu(), CELLS["bottleneck"]))
    return np.concatenate(parts), t


def pooled(features: Tensor, cells: int) -> Features:
    """Features ``(N, C, *spatial)`` averaged down to at most ``cells`` an axis and flattened: ``(N, D)``."""
    size = tuple(min(length, cells) for length in features.shape[2:])
    pool = torch.nn.AdaptiveAvgPool2d if len(size) == 2 else torch.nn.AdaptiveAvgPool3d
    flat: Features = pool(size)(features).flatten(1).numpy()
    return flat


def project(features: NDArray[np.floating], seed: int) -> tuple[NDArray[np.floating], str]:
    """Points ``(N, 2)`` and the name of what made them: UMAP, or principal axes where images are few."""
    number = len(features)
    scaled = StandardScaler().fit_transform(features)
    components = min(COMPONENTS, number - 1, scaled.shape[1])
    if number < FEWEST_FOR_UMAP:
        points = np.zeros((number, 2))
        if components > 0:
            axes = PCA(min(2, components), random_state=seed).fit_transform(scaled)
            points[:, : axes.shape[1]] = axes
        return points, f"principal axes (only {number} images)"
    import umap  # seconds to import, so only where it is used

    reduced = PCA(components, random_state=seed).fit_transform(scaled)
    neighbours = min(NEIGHBOURS, number - 1)
    # The spectral start needs more points than it has eigenvectors to find.
    start = "spectral" if number > 2 * neighbours else "random"
    model = umap.UMAP(n_neighbors=neighbours, random_state=seed, n_jobs=1, init=start)
    return model.fit_transform(reduced), f"UMAP ({neighbours} neighbours, seed {seed})"


def probe(features: NDArray[np.floating], index: pd.DataFrame, label: str, seed: int) -> dict[str, Any]:
    """How well a linear classifier tells a label of people it was not fitted to, and whether that could be chance.

    A person is one observation, the mean of the features of their images, with their first label. The classifier is ridge
    regression on the classes; the AUC is the mean over stratified folds (with several classes: of one against the rest,
    averaged). Its p-value is the share of `PERMUTATIONS` of the labels, the true one counted among them, that do as well;
    labels change places within a fold, which keeps the folds stratified.

    Returns:
        ``label``, ``auc`` and ``p_value`` (None with a ``note`` where they cannot be computed), ``permutations``, ``folds``,
        ``people``, ``classes``.
    """
    known = (index[label].fillna("") != "").to_numpy()
    people = pd.DataFrame(features[known]).groupby(index["participant"][known].to_numpy(dtype=str))
    means, names = people.mean().to_numpy(), index[label][known].groupby(index["participant"][known]).first()
    labels = names.sort_index().to_numpy(dtype=str)
    classes, counts = np.unique(labels, return_counts=True)
    result = {"label": label, "people": len(labels), "classes": ", ".join(classes)}
    nothing = {"auc": None, "p_value": None, "permutations": 0, "folds": 0}
    if len(classes) < 2:
        return {**result, **nothing, "note": "needs two classes or more"}
    if counts.min() < 2:
        return {**result, **nothing, "note": f"needs two people or more in each; {classes[counts.argmin()]} has one"}
    splits = StratifiedKFold(min(FOLDS, int(counts.min())), shuffle=True, random_state=seed)
    folds = [tested for _, tested in splits.split(means, labels)]
    rng = np.random.default_rng(seed)
    orders = np.tile(np.arange(len(labels)), (PERMUTATIONS + 1, 1))
    for tested in folds:
        orders[1:, tested] = rng.permuted(orders[1:, tested], axis=1)
    found = _cross_validated_auc(means, labels[orders].T, classes, folds)
    p_value = (1 + int((found[1:] >= found[0] - 1e-12).sum())) / (PERMUTATIONS + 1)
    done = {"auc": float(found[0]), "p_value": p_value, "permutations": PERMUTATIONS, "folds": len(folds)}
    return {**result, **done, "note": "mean features of a person, linear, cross-validated by person"}


def _cross_validated_auc(
    features: NDArray[np.floating],
    labels: NDArray[np.str_],
    classes: NDArray[np.str_],
    folds: Sequence[NDArray[np.intp]],
) -> NDArray[np.float64]:
    """AUC (L,) of each of L labellings ``(N, L)``: ridge regression solves for all of them at once."""
    total = np.zeros(labels.shape[1])
    for tested in folds:
        fitted = np.setdiff1d(np.arange(len(features)), tested)
        scaler = StandardScaler().fit(features[fitted])
        model = Ridge(alpha=features.shape[1])
        for name in classes:
            of_class = labels == name
            model.fit(scaler.transform(features[fitted]), of_class[fitted].astype(float))
            ranks = rankdata(model.predict(scaler.transform(features[tested])), axis=0)
            positive = of_class[tested]
            ones = positive.sum(axis=0)
            below = (ranks * positive).sum(axis=0) - ones * (ones + 1) / 2
            total += below / (ones * (len(tested) - ones))
    return total / (len(folds) * len(classes))


def _agreement(features: NDArray[np.floating], index: pd.DataFrame, real: NDArray[np.bool_], seed: int) -> float | None:
    """Share of samples that a classifier of all real images puts into the group they were sampled for."""
    known = real & (index["group"] != "").to_numpy()
    names = set(index["group"][known])
    drawn = ~real & index["group"].isin(names).to_numpy()
    if len(names) < 2 or not drawn.any():
        return None
    classifier = make_pipeline(StandardScaler(), RidgeClassifier(alpha=features.shape[1], class_weight="balanced"))
    classifier.fit(features[known], index["group"][known].to_numpy(dtype=str))
    return float((classifier.predict(features[drawn]) == index["group"][drawn].to_numpy(dtype=str)).mean())


def _picture(
    placed: pd.DataFrame, methods: Mapping[str, str], probes: pd.DataFrame, noise: Mapping[str, Any]
) -> Figure:
    """A row a space, a column for each thing that differs between images."""
    known = {name: placed[name] if placed[name].dtype.kind == "f" else placed[name].fillna("") for name in COLOURED}
    shown = [name for name, column in known.items() if column.replace("", np.nan).dropna().nunique() > 1] or ["split"]
    figure = Figure(figsize=(2.6 * len(shown) + 0.6, 2.9 * len(methods) + 0.6), layout="constrained")
    axes = figure.subplots(len(methods), len(shown), squeeze=False)
    for line, (space, method) in zip(axes, methods.items(), strict=True):
        for axis, name in zip(line, shown, strict=True):
            _scatter(axis, placed, space, name)
            found = probes[(probes["space"] == space) & (probes["label"] == name)].dropna(subset=["auc"])
            told = "".join(
                f"\nAUC {row.auc:.2f}, p {row.p_value:.3f}, {row.people} people" for row in found.itertuples()
            )
            axis.set_title(f"{name}{told}", fontsize=8)
        where = f"\nt = {noise['t']} of {noise['timesteps']}" if space == "bottleneck" else ""
        line[0].set_ylabel(f"{space}{where}\n{method}", fontsize=8)
    figure.suptitle("Dots: real images; crosses: samples. Neighbourhoods, not distances.", fontsize=9)
    return figure


def _scatter(axis: Axes, placed: pd.DataFrame, space: str, name: str) -> None:
    axis.set(xticks=[], yticks=[])
    colours: Any = placed[name]
    if colours.dtype.kind != "f":
        classes = sorted(set(placed[name].fillna("")) - {""})
        colours = placed[name].map({value: f"C{number % 10}" for number, value in enumerate(classes)})
        for number, value in enumerate(classes[:10]):
            axis.scatter([], [], color=f"C{number}", s=12, label=value)
        axis.legend(fontsize=6, loc="best", framealpha=0.6)
    sampled = (placed["split"] == "sample").to_numpy()
    numbers = colours.dtype.kind == "f"
    limits = {"vmin": colours.min(), "vmax": colours.max()} if numbers else {}
    for rows, marker in ((~sampled, "."), (sampled, "x")):
        x, y, colour = placed[f"{space}_x"][rows], placed[f"{space}_y"][rows], colours[rows]
        missing = colour.isna()
        axis.scatter(x[missing], y[missing], s=14, marker=marker, color="lightgrey", linewidths=0.7)
        drawn = axis.scatter(
            x[~missing], y[~missing], s=14, marker=marker, c=colour[~missing].tolist(), linewidths=0.7, **limits
        )
    if numbers:
        axis.figure.colorbar(drawn, ax=axis, fraction=0.05)
