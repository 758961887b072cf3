"""Where images lie in the autoencoder's bottleneck, drawn in two dimensions, and whether groups separate there.

The picture is UMAP (McInnes 2018) and shows neighbourhoods, not distances; the number beside it is the
balanced accuracy of a linear classifier of group, cross-validated by person.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.errors import UserError
from pipeline_lib.files import atomic_directory, write_json
from pipeline_lib.inference.chunks import images_of, read_indices
from pipeline_lib.inference.latent import load_latent_space
from pipeline_lib.inference.pictures import save

LARGEST_SIDE = 8
COMPONENTS = 50
NEIGHBOURS = 15
FEWEST_FOR_UMAP = 6
FOLDS = 5
MARKERS = {"train": "o", "validation": "s", "test": "^", "sample": "x"}


def embed(
    recipe: RecipeOptions,
    autoencoder: Path,
    latents: list[Path],
    samples: Path | None,
    out: Path,
) -> None:
    """Embed real images, and samples where given, by their latent means.

    Args:
        recipe: ``evaluation.seed`` seeds UMAP and the folds.
        autoencoder: folder of the trained autoencoder, which encodes the samples.
        latents: chunk folders of latents, of any split.
        samples: folder of `sample_synthesis`, or None.
        out: folder for ``embedding.tsv`` (an image a row, columns x and y), ``embedding.png`` and
            ``embedding.json`` (balanced accuracy, chance level, N).

    Raises:
        UserError: there is no image.
    """
    index = read_indices(latents)[["scan", "participant", "group", "split", "slice"]]
    if index.empty:
        raise UserError("no latent to embed: put scans in the dataset of this recipe")
    space = load_latent_space(autoencoder)
    features = pooled(torch.from_numpy(images_of(latents, "mean")) * space.scale)
    real = np.ones(len(features), dtype=bool)
    if samples is not None:
        table = pd.read_csv(samples / "samples.tsv", sep="\t", dtype=str, keep_default_na=False)
        encoded = pooled(space.encode(torch.from_numpy(np.load(samples / "samples.npy"))))
        drawn = pd.DataFrame({"scan": table["id"], "participant": "", "group": table["group"], "split": "sample"})
        index = pd.concat([index, drawn.assign(slice="")], ignore_index=True)
        features = np.concatenate([features, encoded])
        real = np.concatenate([real, np.zeros(len(encoded), dtype=bool)])
    seed = recipe.evaluation.seed
    points, method = project(features, seed)
    result = separability(features[real], index[real], seed)
    agreement = _agreement(features, index, real, seed)
    if agreement is not None:
        result["samples_classified_as_their_group"] = agreement
    with atomic_directory(out) as folder:
        placed = index.assign(x=points[:, 0], y=points[:, 1])
        placed.to_csv(folder / "embedding.tsv", sep="\t", index=False)
        write_json(folder / "embedding.json", {**result, "method": method, "n_points": len(placed)})
        save(_picture(placed, result, method), folder / "embedding.png")


def pooled(latents: torch.Tensor) -> NDArray[np.float32]:
    """Latents ``(N, C, *spatial)`` averaged down to at most 8 cells an axis and flattened: ``(N, D)``."""
    size = tuple(min(length, LARGEST_SIDE) for length in latents.shape[2:])
    pool = torch.nn.AdaptiveAvgPool2d if len(size) == 2 else torch.nn.AdaptiveAvgPool3d
    flat: NDArray[np.float32] = pool(size)(latents).flatten(1).numpy()
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


def separability(features: NDArray[np.floating], index: pd.DataFrame, seed: int) -> dict[str, Any]:
    """Balanced accuracy of a linear classifier of group, each person predicted by a fit without them.

    Returns:
        ``balanced_accuracy`` (None with ``note`` where it cannot be computed), ``chance`` (one over the
        number of groups), ``n_images``, ``n_people``, ``folds``, ``groups``.
    """
    known = (index["group"] != "").to_numpy()
    groups, people = index["group"][known].to_numpy(dtype=str), index["participant"][known].to_numpy(dtype=str)
    names = sorted(set(groups))
    result: dict[str, Any] = {"groups": names, "n_images": len(groups), "n_people": len(set(people))}
    fewest = min((len(set(people[groups == name])) for name in names), default=0)
    if len(names) < 2 or fewest < 2:
        note = "needs two groups or more" if len(names) < 2 else "needs two people or more in every group"
        return {**result, "balanced_accuracy": None, "chance": None, "folds": 0, "note": note}
    folds = StratifiedGroupKFold(min(FOLDS, fewest), shuffle=True, random_state=seed)
    predicted = cross_val_predict(_classifier(seed), features[known], groups, groups=people, cv=folds)
    return {
        **result,
        "balanced_accuracy": float(balanced_accuracy_score(groups, predicted)),
        "chance": 1 / len(names),
        "folds": folds.get_n_splits(),
        "note": "linear classifier of pooled latent means, cross-validated by person",
    }


def _agreement(features: NDArray[np.floating], index: pd.DataFrame, real: NDArray[np.bool_], seed: int) -> float | None:
    """Share of samples that a classifier of all real images puts into the group they were sampled for."""
    known = real & (index["group"] != "").to_numpy()
    names = set(index["group"][known])
    drawn = ~real & index["group"].isin(names).to_numpy()
    if len(names) < 2 or not drawn.any():
        return None
    classifier = _classifier(seed).fit(features[known], index["group"][known].to_numpy(dtype=str))
    return float((classifier.predict(features[drawn]) == index["group"][drawn].to_numpy(dtype=str)).mean())


def _classifier(seed: int) -> Pipeline:
    return make_pipeline(
        StandardScaler(), LogisticRegression(C=0.01, max_iter=2000, class_weight="balanced", random_state=seed)
    )


def _picture(placed: pd.DataFrame, result: Mapping[str, Any], method: str) -> Figure:
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axis = figure.subplots()
    groups = sorted(set(placed["group"]))
    for number, group in enumerate(groups):
        for split, marker in MARKERS.items():
            rows = placed[(placed["group"] == group) & (placed["split"] == split)]
            if len(rows):
                label = f"{group or 'no group'}, {split} ({len(rows)})"
                axis.scatter(rows["x"], rows["y"], s=22, marker=marker, color=f"C{number}", alpha=0.75, label=label)
    axis.set(xticks=[], yticks=[], xlabel=f"{method}, axis 1", ylabel="axis 2")
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    accuracy = result["balanced_accuracy"]
    told = (
        f"group from the latent, linear, by person:\nbalanced accuracy {accuracy:.2f} (chance {result['chance']:.2f}), "
        f"{result['n_people']} people"
        if accuracy is not None
        else f"group from the latent: {result['note']}"
    )
    axis.set_title(told, fontsize=8)
    return figure
