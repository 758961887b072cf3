"""What would this scan look like at another age, or in another group?

A held-out scan is inverted to the noise from which deterministic DDIM makes it under the person's own conditions, and made again
from that noise under others: everything that the conditions do not say stays in the noise (Song et al., 2021, sec. 4.3; for
counterfactuals Sanchez and Tsaftaris, 2022). Made again under the person's own conditions it should come back as it was: what is
lost on this round trip bounds what a difference can mean.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.dataset.conditions import Condition, Value
from pipeline_lib.dataset.people import refuse_trained_people
from pipeline_lib.errors import UserError
from pipeline_lib.files import atomic_directory, sha256_file, write_json
from pipeline_lib.imaging.planes import ortho
from pipeline_lib.inference.chunks import open_array
from pipeline_lib.inference.denoise import Denoiser, load_denoiser
from pipeline_lib.inference.geometry import write_nifti
from pipeline_lib.inference.latent import LatentSpace, load_latent_space
from pipeline_lib.inference.pictures import Row, Tile, mosaic, save
from pipeline_lib.inference.sampling import held_out_people, write_png

COUNTERFACTUAL = (
    "Counterfactual image: a real scan inverted through a generative model and made again under another condition. It shows what "
    "the model learned of a group, not what this person will look like."
)
NUMBERS = 5
"""Values of a number, evenly from what a tenth of the training images lie below to what a tenth lie above."""
CORRECTIONS = 1
COLUMNS = ("scan", "participant", "group", "age", "sex", "slice", "modality", "affine", "space")
"""Of the index, kept of every scan; the modality is there where a recipe has several."""
SHOWN = 6
Images = NDArray[np.float32]


@dataclass(frozen=True)
class Made:
    """Images ``(N, C, *spatial)`` in [-1, 1]: as they were, back from the round trip, and under each value, ``(N, V, ...)``."""

    scans: Images
    returned: Images
    changed: Images


def make_counterfactuals(
    recipe: RecipeOptions, diffusion: Path, held_out: list[Path], out: Path, autoencoder: Path | None = None
) -> None:
    """Make held-out scans again under other values of each condition but the slice, one condition at a time.

    Args:
        recipe: ``sampling.counterfactuals`` says of how many people; ``sampling.steps`` how finely they are inverted. Values are
            those of ``sampling.conditions``, else every category, or `NUMBERS` of a number.
        diffusion: folder of the trained denoiser.
        held_out: packed chunks of people it has not seen.
        out: folder for ``counterfactuals.json`` (each condition's values); of each condition ``<condition>/`` with
            ``scans.npy``, ``returned.npy`` and ``changed.npy`` (see `Made`), ``counterfactuals_<condition>.tsv`` (a row a scan:
            its own value, the round trip's error) and ``.png``; and in ``png/`` and ``nifti/`` every image, and its difference
            from the round trip, with a sidecar.
        autoencoder: folder of the autoencoder whose latents the denoiser was trained on; None: it was trained on images.

    Raises:
        UserError: every held-out person was in the model's training.
    """
    denoiser = _deterministic(load_denoiser(recipe, diffusion))
    varied = [each for each in denoiser.conditions if each.name != "slice"]
    people = held_out_people(recipe, held_out)
    if len(people):
        people = refuse_trained_people(people, denoiser.info, recipe.sampling.allow_trained_people)
    space = None if autoencoder is None else load_latent_space(autoencoder)
    asked: dict[str, list[Value]] = {}
    with atomic_directory(out) as folder:
        for each in varied:
            chosen = _chosen(people, each, recipe.sampling.counterfactuals)
            if chosen.empty:
                continue
            values = values_of(each, recipe)
            made = _made(denoiser, space, held_out, chosen, each, values)
            table = _table(chosen, made, each)
            _write(folder, made, table, each)
            _write_images(folder, made, table, each, values, diffusion / "model.safetensors", recipe)
            save(_picture(made, table, each, values), folder / f"counterfactuals_{each.name}.png")
            asked[each.name] = list(values)
        write_json(folder / "counterfactuals.json", asked)


def values_of(varied: Condition, recipe: RecipeOptions) -> tuple[Value, ...]:
    """Under which values scans are made again."""
    if asked := recipe.sampling.conditions.get(varied.name):
        return tuple(varied.check(value) for value in asked)
    if varied.kind == "category":
        return varied.categories
    low, high = (float(end) for end in varied.ends)
    return tuple(float(round(value, 1)) for value in np.linspace(low, high, NUMBERS))


def _deterministic(denoiser: Denoiser) -> Denoiser:
    """With the sampler that can be inverted: DDIM without noise, guidance or clipping."""
    sampling = denoiser.sampling.model_copy(update={"sampler": "ddim", "eta": 0.0, "guidance": 1.0})
    return replace(denoiser, sampling=sampling, clip=False)


def _chosen(people: pd.DataFrame, varied: Condition, count: int) -> pd.DataFrame:
    """One image each of at most ``count`` people, evenly spread over their own values: of slices, the middle one."""
    if people.empty or not count:
        return people.iloc[:0]
    if varied.name not in people:
        raise UserError(f"counterfactuals of {varied.name}: no held-out scan has one")
    known = people[varied.encode(people[varied.name]) == varied.encode(people[varied.name])]  # NaN is unequal to itself
    places = pd.to_numeric(known["slice"], errors="coerce")
    if places.notna().any():
        middle = float(np.median(places.unique()))
        nearest = (places - middle).abs().groupby(known["scan"]).transform("min")
        known = known[(places - middle).abs() == nearest]
    one = known.drop_duplicates("participant").sort_values([varied.name, "participant"], kind="stable")
    rows = np.unique(np.linspace(0, len(one) - 1, min(count, len(one))).round().astype(int))
    return one.iloc[rows].reset_index(drop=True)


@torch.inference_mode()
def _made(
    denoiser: Denoiser,
    space: LatentSpace | None,
    chunks: Sequence[Path],
    chosen: pd.DataFrame,
    varied: Condition,
    values: Sequence[Value],
) -> Made:
    arrays = {chunk.name: open_array(chunk, "data") for chunk in chunks}
    rows = zip(chosen["chunk"], chosen["row"], strict=True)
    scans = np.stack([np.asarray(arrays[chunk][row], np.float32) for chunk, row in rows])
    size = denoiser.sampling.batch_size
    returned, changed = [], []
    for first in range(0, len(scans), size):
        part, index = torch.from_numpy(scans[first : first + size]), chosen.iloc[first : first + size]
        noise = denoiser.invert(_encoded(part, space), denoiser.told(index), corrections=CORRECTIONS)

        def again(told: Tensor | None, noise: Tensor = noise) -> Images:
            clean = denoiser.denoise(noise, condition=told, streams=denoiser.streams([0] * len(noise)))
            images: Images = (clean if space is None else space.decode(clean)).clamp(-1, 1).numpy()
            return images

        returned.append(again(denoiser.told(index)))
        changed.append(
            np.stack([again(denoiser.told(index.assign(**{varied.name: value}))) for value in values], axis=1)
        )
    return Made(scans, np.concatenate(returned), np.concatenate(changed))


def _encoded(images: Tensor, space: LatentSpace | None) -> Tensor:
    return images if space is None else space.encode(images)


def _table(chosen: pd.DataFrame, made: Made, varied: Condition) -> pd.DataFrame:
    """A row a scan: whose it is, its own value, and the error of the round trip."""
    table = chosen[[name for name in COLUMNS if name in chosen]].copy()
    table["own"] = chosen[varied.name]
    axes = tuple(range(1, made.scans.ndim))
    table["mean_absolute_error"] = np.abs(made.returned - made.scans).mean(axis=axes)
    table["psnr"] = 10 * np.log10(4 / np.maximum(((made.returned - made.scans) ** 2).mean(axis=axes), 1e-12))
    return table


def _write(folder: Path, made: Made, table: pd.DataFrame, varied: Condition) -> None:
    (folder / varied.name).mkdir()
    for name in ("scans", "returned", "changed"):
        np.save(folder / varied.name / f"{name}.npy", getattr(made, name))
    told = table.drop(columns=["affine", "space"])
    told.to_csv(folder / f"counterfactuals_{varied.name}.tsv", sep="\t", index=False)


def _write_images(
    folder: Path,
    made: Made,
    table: pd.DataFrame,
    varied: Condition,
    values: Sequence[Value],
    weights: Path,
    recipe: RecipeOptions,
) -> None:
    model = sha256_file(weights)
    for number, row in enumerate(table.to_dict("records")):
        for place, value in enumerate(values):
            text = f"{value:g}" if isinstance(value, float) else str(value)
            name = f"{row['scan']}_{varied.name}-{text}"
            sidecar: dict[str, Any] = {
                "Description": COUNTERFACTUAL,
                "Synthetic": True,
                "Sources": [row["scan"]],
                "Model": {"sha256": model},
                "Conditions": {varied.name: value},
                "OwnCondition": row["own"],
                "Guidance": 1.0,
                "Sampler": "ddim",
                "Steps": recipe.sampling.steps,
                "RoundTripMeanAbsoluteError": round(float(row["mean_absolute_error"]) / 2, 6),
                "Units": "intensity from 0 to 1",
            }
            image, difference = made.changed[number, place], made.changed[number, place] - made.returned[number]
            write_png(folder / "png" / f"{name}.png", image, sidecar)
            if not row["affine"]:
                continue
            affine = np.array(json.loads(row["affine"]))
            sidecar["SpatialReference"] = row["space"]
            contrast = value if varied.name == "modality" else row.get("modality", recipe.data.modality)
            for kind, values_of_voxels in (("counterfactual", (image + 1) / 2), ("difference", difference / 2)):
                path = folder / "nifti" / f"{name}_desc-{kind}_{contrast}.nii.gz"
                write_nifti(path, values_of_voxels, affine, sidecar, space=row["space"])


def _picture(made: Made, table: pd.DataFrame, varied: Condition, values: Sequence[Value]) -> Any:
    """A row a person: scan, round trip, every value, and below it what each changes."""
    rows = []
    shown = np.unique(np.linspace(0, len(table) - 1, min(SHOWN, len(table))).round().astype(int))
    limit = float(max(np.percentile(np.abs(made.changed - made.returned[:, None])[shown], 99.5), 1e-3))
    look: dict[str, Any] = {"low": -limit, "high": limit, "colours": "RdBu_r"}
    for number in shown:
        own = table["own"].iloc[number]
        titles = [
            "scan",
            "round trip",
            *(f"{varied.name} {value:g}" if isinstance(value, float) else str(value) for value in values),
        ]
        images = [made.scans[number], made.returned[number], *made.changed[number]]
        tiles = [
            Tile(ortho(image), title=title if number == shown[0] else "")
            for image, title in zip(images, titles, strict=True)
        ]
        rows.append(Row(tiles, f"{varied.name} {own:g}" if isinstance(own, float) else str(own)))
        lost = Tile(ortho(made.returned[number] - made.scans[number], ground=0), **look)
        blank = Tile(np.zeros_like(ortho(made.scans[number])), **look)
        differences = [Tile(ortho(image - made.returned[number], ground=0), **look) for image in made.changed[number]]
        rows.append(Row([blank, lost, *differences], f"difference\n(+-{limit:.2g})"))
    return mosaic(
        rows, f"The same person under another {varied.name}; lost on the round trip below it", tile_inches=1.2
    )
