"""How close predicted maps are to the measured ones, beside a floor and a ceiling.

The floor is the interpolated source fitted linearly to each map on training people. The ceiling is the target
autoencoder's own reconstruction of the measured maps: what its latents keep of them. A prediction comes through the
same decoder, but it need not be the measured map's own latent, and a smoother one can score higher.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.metric import Direction, Metric, Role, joined, write_metrics
from pipeline_lib.files import atomic_directory, read_json
from pipeline_lib.inference.chunks import matching, open_array, read_index
from pipeline_lib.inference.pictures import plane
from pipeline_lib.inference.refusal import caution
from pipeline_lib.metrics.bootstrap import bootstrap_mean
from pipeline_lib.metrics.image import mae, psnr, ssim

RESULT = "diffusion"
METHODS: dict[str, tuple[Role, str]] = {
    RESULT: ("result", "prediction"),
    "linear fit of the interpolated source": ("floor", "floor"),
    "target autoencoder": ("ceiling", "ceiling"),
}
"""Method -> its role and its file."""
CHANNELS = {"noddi": ("ICVF", "ODI", "ISOVF")}
MEASURES: dict[str, tuple[str, Direction]] = {
    "PSNR": ("dB", "higher"),
    "SSIM": ("", "higher"),
    "MAE": ("fraction of the map's range", "lower"),
}
CEILING = "the measured map through the autoencoder: not a limit, since a smoother prediction can score higher"
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
        out: folder for ``metrics.json``, ``metrics.tsv``, ``per_subject.tsv`` and ``examples.npz``.

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
    metrics: list[Metric] = []
    for group in ["all", *sorted(set(images["group"]) - {""})]:
        members = images if group == "all" else images[images["group"] == group]
        metrics += _summary(_means(members), recipe, group, note)
    with atomic_directory(out) as folder:
        write_metrics(folder, metrics, _means(images, "group"))
        _write_examples(folder / "examples.npz", tested, recipe)


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
    for method, (_, name) in METHODS.items():
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


def _means(images: pd.DataFrame, *by: str) -> pd.DataFrame:
    """A row a person, method and channel: a person is one, also where sessions are of two groups."""
    people = images.groupby(["participant", *by, "split", "method", "channel"], as_index=False, sort=False)
    return people.agg(images=("PSNR", "size"), **{name: (name, "mean") for name in MEASURES})


def _summary(per_subject: pd.DataFrame, recipe: RecipeOptions, group: str, note: str) -> list[Metric]:
    """Means over people, and the differences of the result to the other methods, person by person."""
    settings = {"resamples": recipe.evaluation.bootstrap, "seed": recipe.evaluation.seed}
    rows = []
    for channel in channel_names(recipe):
        own = per_subject[per_subject["channel"] == channel]
        of = {method: table.set_index("participant").sort_index() for method, table in own.groupby("method")}
        for name, (unit, direction) in MEASURES.items():
            for method, (role, _) in METHODS.items():
                table = of[method]
                about = Metric(
                    name, None, unit=unit, direction=direction, role=role, method=method, part=channel, group=group,
                    people=len(table), images=int(table["images"].sum()), note=joined("inside the brain", note),
                )  # fmt: skip
                values = table[name].to_numpy(dtype=float)
                remark = CEILING if role == "ceiling" else ""
                rows.append(about.measured(bootstrap_mean(values, **settings), remark))
                if role == "result":
                    continue
                paired = (of[RESULT][name] - table[name]).to_numpy(dtype=float)
                about = replace(about, role="result", method=RESULT, against=method)
                rows.append(about.measured(bootstrap_mean(paired, **settings), "paired over people"))
    return rows


def _write_examples(path: Path, pairs: Sequence[tuple[Path, Path]], recipe: RecipeOptions) -> None:
    """2D views of one image of each of the first test people, a row a channel: source, methods, target."""
    views: dict[str, list[NDArray[np.floating]]] = {}
    labels, shown = [], set[str]()
    for inferred, packed in pairs:
        for place, entry in enumerate(read_index(inferred).to_dict("records")):
            if entry["participant"] in shown or len(shown) == EXAMPLES:
                continue
            shown.add(entry["participant"])
            source = plane(np.asarray(open_array(packed, "data")[entry["row"]])[:1])
            target = np.asarray(open_array(packed, "target")[entry["row"]])
            results = {name: np.asarray(open_array(inferred, name)[place]) for _, name in METHODS.values()}
            for number, channel in enumerate(channel_names(recipe)):
                views.setdefault("source", []).append(source)
                for name, result in {**results, "target": target}.items():
                    views.setdefault(name, []).append(plane(result[number : number + 1]))
                labels.append(f"{entry['participant']}\n{channel}")
    arrays = {name: np.stack(images) for name, images in views.items()}
    np.savez(path, labels=np.array(labels), **arrays)  # type: ignore[arg-type]
