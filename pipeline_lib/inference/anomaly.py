"""Anomaly maps: a scan as a model of healthy brains makes it, compared with the scan itself.

What the model has not learned to make comes back as healthy tissue. As published the map is the squared difference to
what comes back from a partial chain (AnoDDPM, Wyatt 2022); `evaluation.score` says what else it may be made of.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.dataset.prepared import refuse_prepared_otherwise
from pipeline_lib.files import atomic_directory
from pipeline_lib.inference.chunks import read_index
from pipeline_lib.inference.denoise import load_denoiser
from pipeline_lib.inference.mapping import mapped
from pipeline_lib.inference.maps import write_maps
from pipeline_lib.inference.refusal import keep_unseen
from pipeline_lib.inference.score import combined, contrasts_of
from pipeline_lib.inference.standards import DIFFUSION, read_places, read_standards, read_thresholds


def infer_anomaly(recipe: RecipeOptions, diffusion: Path, standards: Path, dataset: Path, out: Path) -> None:
    """Map every image of a chunk that the model was not trained on.

    Args:
        recipe: ``evaluation.score`` says what maps are made of, ``evaluation.smoothing`` how they are smoothed.
        diffusion: folder of the trained denoiser.
        standards: folder of `measure_standards`; of a frozen recipe also with the threshold.
        dataset: packed chunk folder.
        out: folder for ``maps.npy`` float32 ``(N, 1, *spatial)``, smoothed and zero outside the brain,
            ``reconstruction.npy`` float32 ``(N, C, *spatial)``, ``index.tsv`` (with ``row``, the image's place in the
            chunk), ``refused.tsv`` (rows of people trained on) and ``nifti/``, each scan's map as one volume in the space
            of the preprocessed scan.
    """
    denoiser = load_denoiser(recipe, diffusion)
    refuse_prepared_otherwise(diffusion, denoiser.info, dataset)
    kept, refused = keep_unseen(read_index(dataset), denoiser.info, recipe.sampling.allow_trained_people)
    found = mapped(recipe, denoiser, dataset, kept, read_places(recipe, standards))
    weights = {str(name): weight for name, weight in recipe.evaluation.score.weights.items()}
    threshold = (read_thresholds(standards) or {}).get(DIFFUSION)
    maps = combined(found.parts, found.mask, weights, read_standards(standards), contrasts_of(recipe, kept))
    with atomic_directory(out) as folder:
        for name, array in (("maps", maps), ("reconstruction", found.reconstruction)):
            np.save(folder / f"{name}.npy", array.astype(np.float32))
        write_maps(folder / "nifti", maps[:, 0], found.mask[:, 0], kept, recipe.evaluation, threshold)
        kept.to_csv(folder / "index.tsv", sep="\t", index=False)
        refused.to_csv(folder / "refused.tsv", sep="\t", index=False)
