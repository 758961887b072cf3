"""How close predicted maps are to the measured ones, between a floor and a ceiling.

The ceiling is the target autoencoder's own reconstruction of the measured maps, which no latent model
passes; the floor is the interpolated source fitted linearly to each map on training people.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.errors import UserError
from pipeline_lib.files import atomic_directory, read_json
from pipeline_lib.inference.chunks import matching, open_array, read_index
from pipeline_lib.inference.pictures import Row, Tile, mosaic, plane, save
from pipeline_lib.inference.refusal import caution
from pipeline_lib.metrics.bootstrap import bootstrap_mean
from pipeline_lib.metrics.image import mae, psnr, ssim
from pipeline_lib.metrics.table import Metric, metric, write_metrics

METHODS = {
    "diffusion": "prediction",
    "floor: linear fit of the interpolated source": "floor",
    "ceiling: target autoencoder": "ceiling",
}
CHANNELS = {"noddi": ("ICVF", "ODI", "ISOVF")}
MEASURES = {
    "PSNR": ("dB", "inside the brain"),
    "SSIM": ("", "inside the brain"),
    "MAE": ("fraction of the map's range", "inside the brain"),
}
DATA_RANGE = 2.0
EXAMPLES = 2


def evaluate_translation(
    recipe: RecipeOptions,
    diffusion: Path,
    inference: list[Path],
    datasets: list[Path],
    out: Path,
) -> None:
    """PSNR, SSIM and MAE inside the brain of each target channel, with floor and ceiling.

    Args:
        recipe: ``evaluation`` says resamples and seed.
        diffusion: folder of the trained denoiser, for who was in its training.
        inference: chunk folders of `infer_translation`; only those of the test split are judged.
        datasets: packed chunk folders of the same names.
        out: folder for ``metrics.json``, ``metrics.tsv``, ``per_subject.tsv`` and ``examples.png``.

    Raises:
        UserError: there is no test image, a chunk is missing, or people were in training.
    """
    pairs = [pair for pair in matching(inference, datasets) if not read_index(pair[0]).empty]
    tested = [pair for pair in pairs if read_index(pair[0])["split"].iloc[0] == "test"]
    if not tested:
        raise UserError("no test pair was translated: put people with source and target in the test split")
    index = pd.concat([read_index(chunk) for chunk, _ in tested], ignore_index=True)
    note = caution(index, read_json(diffusion / "model.json"), recipe.sampling.allow_trained_people)

    images = pd.concat([_measured(pair, recipe) for pair in tested], ignore_index=True)
    keys = ["participant", "group", "split", "method", "channel"]
    people = images.groupby(keys, as_index=False, sort=False)
    per_subject = people.agg(images=("PSNR", "size"), **{name: (name, "mean") for name in MEASURES})
    metrics: list[Metric] = []
    for group in ["all", *sorted(set(per_subject["group"]) - {""})]:
        members = per_subject if group == "all" else per_subject[per_subject["group"] == group]
        metrics += _summary(members, recipe, group, note)
    with atomic_directory(out) as folder:
        write_metrics(folder, metrics, per_subject)
        save(_examples(tested, recipe), folder / "examples.png")


def channel_names(recipe: RecipeOptions) -> tuple[str, ...]:
    """Names of the target's channels."""
    names = CHANNELS.get(recipe.data.target or "", ())
    number = recipe.data.target_channels
    return names if len(names) == number else tuple(f"channel {n + 1}" for n in range(number))


def _measured(pair: tuple[Path, Path], recipe: RecipeOptions) -> pd.DataFrame:
    """A row an image, method and channel."""
    inferred, packed = pair
    index = read_index(inferred)
    rows = []
    for method, name in METHODS.items():
        results = open_array(inferred, name)
        for place, entry in enumerate(index.to_dict("records")):
            target = np.asarray(open_array(packed, "target")[entry["row"]])
            mask = np.asarray(open_array(packed, "mask")[entry["row"]])[0] > 0
            for number, channel in enumerate(channel_names(recipe)):
                predicted, true = np.asarray(results[place][number]), target[number]
                rows.append(
                    {
                        "participant": entry["participant"],
                        "group": entry["group"],
                        "split": entry["split"],
                        "method": method,
                        "channel": channel,
                        "PSNR": psnr(predicted, true, data_range=DATA_RANGE, mask=mask),
                        "SSIM": ssim(predicted, true, data_range=DATA_RANGE, mask=mask),
                        "MAE": mae(predicted, true, mask) / DATA_RANGE,
                    }
                )
    return pd.DataFrame(rows)


def _summary(per_subject: pd.DataFrame, recipe: RecipeOptions, group: str, note: str) -> list[Metric]:
    options = recipe.evaluation
    rows = []
    for method in METHODS:
        for channel in channel_names(recipe):
            chosen = per_subject[(per_subject["method"] == method) & (per_subject["channel"] == channel)]
            for name, (unit, remark) in MEASURES.items():
                values: NDArray[np.floating] = chosen[name].to_numpy(dtype=float)
                rows.append(
                    metric(
                        f"{name}, {channel}",
                        bootstrap_mean(values, resamples=options.bootstrap, seed=options.seed),
                        n_subjects=len(chosen),
                        n_images=int(chosen["images"].sum()),
                        unit=unit,
                        group=group,
                        method=method,
                        note="; ".join(part for part in (remark, note) if part),
                    )
                )
    return rows


def _examples(pairs: Sequence[tuple[Path, Path]], recipe: RecipeOptions) -> Figure:
    """One image of each of the first test people: source, floor, prediction, ceiling, target and error."""
    rows: list[Row] = []
    shown: set[str] = set()
    for inferred, packed in pairs:
        for place, entry in enumerate(read_index(inferred).to_dict("records")):
            if entry["participant"] in shown or len(shown) == EXAMPLES:
                continue
            shown.add(entry["participant"])
            source = plane(np.asarray(open_array(packed, "data")[entry["row"]])[:1])
            target = np.asarray(open_array(packed, "target")[entry["row"]])
            results = {name: np.asarray(open_array(inferred, name)[place]) for name in METHODS.values()}
            for number, channel in enumerate(channel_names(recipe)):
                views = {name: plane(result[number : number + 1]) for name, result in results.items()}
                true = plane(target[number : number + 1])
                error = views["prediction"] - true
                tiles = [
                    Tile(source, float(source.min()), float(source.max()), title="source, channel 1"),
                    Tile(views["floor"], title="floor"),
                    Tile(views["prediction"], title="prediction"),
                    Tile(views["ceiling"], title="ceiling"),
                    Tile(true, title="target"),
                    Tile(error, -0.5, 0.5, "RdBu_r", title="prediction - target"),
                ]
                tiles = tiles if number == 0 else [Tile(t.image, t.low, t.high, t.colours) for t in tiles]
                rows.append(Row(tiles, f"{entry['participant']}\n{channel}"))
    return mosaic(rows, "Test people")
