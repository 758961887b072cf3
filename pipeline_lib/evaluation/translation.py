"""How close predicted maps are to the measured ones, beside a floor, a reference and a ceiling.

The floor is the interpolated source fitted linearly to each map on training people; the reference a regression, where the
recipe has one. The ceiling of a model of latents is the target autoencoder's own reconstruction of the measured maps: what
its latents keep of them. A prediction comes through the same decoder, but it need not be the measured map's own latent, and
a smoother one can score higher.

The mean of the draws is judged by its error, one draw by its power spectrum, their spread by how often it covers the truth.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from skimage.measure import block_reduce

from pipeline_lib.config.schema import RecipeOptions
from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.metric import REMARKS, Direction, Metric, Role, joined, write_metrics
from pipeline_lib.evaluation.regions import Regions, correlations, summary
from pipeline_lib.files import atomic_directory, read_json, write_json
from pipeline_lib.imaging.dwi import LARGEST_RATIO
from pipeline_lib.imaging.planes import plane
from pipeline_lib.inference.chunks import matching, open_array, read_index
from pipeline_lib.inference.refusal import caution
from pipeline_lib.metrics.bootstrap import bootstrap_mean
from pipeline_lib.metrics.calibration import coverage, spread_skill
from pipeline_lib.metrics.image import correlation, mae, psnr, ssim
from pipeline_lib.metrics.powder import powder_mean
from pipeline_lib.metrics.spectrum import radial_power

log = logging.getLogger("pipeline")


@dataclass(frozen=True)
class Method:
    """A way to the target, its role, the array of what it predicts, and the array whose spectrum is looked at."""

    name: str
    role: Role
    file: str
    drawn: str = ""

    @property
    def detailed(self) -> str:
        """The array whose spectrum is looked at."""
        return self.drawn or self.file


RESULT = "diffusion"
METHODS = (
    Method(RESULT, "result", "prediction", drawn="draw"),
    Method("linear fit of the interpolated source", "floor", "floor"),
    Method("regression", "reference", "regression"),
    Method("target autoencoder", "ceiling", "ceiling"),
)
"""All there may be; the last two only in some recipes."""
REGRESSION_ALONE = (Method("regression", "result", "prediction"), METHODS[1])
"""Those of a recipe that draws nothing."""
VIEWS = ("floor", "regression", "prediction", "draw", "spread", "ceiling")
CHANNELS = {"noddi": ("ICVF", "ODI", "ISOVF")}
MEASURES: dict[str, tuple[str, Direction]] = {
    "PSNR": ("dB", "higher"),
    "SSIM": ("", "higher"),
    "MAE": ("fraction of the map's range", "lower"),
    "correlation": ("", "higher"),
    "spectral distance": ("dB", "lower"),
}
HALF_NYQUIST = 0.25
"""Cycles a voxel, from which on spectra are compared."""
LEVELS = (0.5, 0.8, 0.95)
"""Of the intervals whose coverage is measured."""
SPREAD = "spread over error"
CALIBRATION = (*(f"coverage of {level:.0%} intervals" for level in LEVELS), SPREAD)
SCALED = tuple(f"coverage of {level:.0%} intervals, spread scaled" for level in LEVELS)
"""By what validation people's errors ask for: draws of a model that was trained on few people are too sure."""
DETAIL = "above half of Nyquist; of the diffusion, one draw"
CEILING = "the measured map through the autoencoder: not a limit, since a smoother prediction can score higher"
PUBLISHED = (
    "Published of this way, latents of two VQGANs, on other data: PSNR 25.39 dB, SSIM 0.931. Other people, masks and ranges: they are "
    "what its authors saw, and no value on this page can be held against them."
)
SIGNAL = "error of the signal"
MEASURED = "measured maps"
RESIMULATED = "mean over directions, over b0, that NODDI makes of the maps, against the source's; inside the brain"
DATA_RANGE = 2.0
EXAMPLES = 2
REGIONS = "regions.tsv"


def evaluate_translation(
    recipe: RecipeOptions,
    diffusion: Path,
    inference: list[Path],
    datasets: list[Path],
    out: Path,
) -> None:
    """Error, similarity, detail and calibration inside the brain of each target channel, with what stands beside.

    Args:
        recipe: ``evaluation`` says resamples and seed.
        diffusion: folder of the trained denoiser, or of the regression where nothing is drawn, for who was in its training.
        inference: chunk folders of `infer_translation`; only those of the test split are judged, and of these only people
            whose target was measured. Where there is none, the metrics say so.
        datasets: packed chunk folders of the same names.
        out: folder for ``metrics.json``, ``metrics.tsv``, ``per_subject.tsv``, ``spectrum.tsv``, ``calibration.tsv``
            (a row a person and channel, where there are several draws), ``regions.tsv`` (a row a map and region, where
            ``evaluation.regions`` is given), ``examples.npz`` and, of latents, ``remarks.json``.

    Raises:
        UserError: there is no test image, a chunk is missing, or people were in training.
    """
    pairs = [pair for pair in matching(inference, datasets) if not read_index(pair[0]).empty]
    tested = [pair for pair in pairs if read_index(pair[0])["split"].iloc[0] == "test"]
    if not tested:
        raise UserError("no test pair was translated: put people with source and target in the test split")
    index = pd.concat([read_index(chunk) for chunk, _ in tested], ignore_index=True)
    note = caution(index, read_json(diffusion / "model.json"), recipe.sampling.allow_trained_people)

    possible = REGRESSION_ALONE if recipe.draws_nothing else METHODS
    methods = [method for method in possible if (tested[0][0] / f"{method.file}.npy").is_file()]
    judged = [pair for pair in tested if next(_truths(pair, recipe), None)]
    if not judged:
        _write_unjudged(tested, methods[0], recipe, out)
        return
    tested = judged
    images = pd.concat([_measured(pair, methods, recipe) for pair in tested], ignore_index=True)
    spectra = pd.concat([_spectra(pair, methods, recipe) for pair in tested], ignore_index=True)
    images = images.merge(_distances(spectra), on=["image", "method", "channel"])
    signals = pd.concat([_signals(pair, methods, recipe) for pair in tested], ignore_index=True)
    scale = _spread_scale([pair for pair in pairs if read_index(pair[0])["split"].iloc[0] == "validation"], recipe)
    calibrated = pd.concat([_calibration(pair, recipe, scale) for pair in tested], ignore_index=True)
    metrics: list[Metric] = []
    for group in ["all", *sorted(set(images["group"]) - {""})]:
        members, known, of_signal = (
            table if group == "all" or table.empty else table[table["group"] == group]
            for table in (images, calibrated, signals)
        )
        metrics += _summary(_means(members), methods, recipe, group, note)
        metrics += _calibrated(known, recipe, group, note, scale)
        metrics += _resimulated(of_signal, methods, recipe, group, note)
    regions = _regions(tested, methods, recipe)
    with atomic_directory(out) as folder:
        write_metrics(folder, metrics, _means(images, "group"))
        of_people = spectra.groupby(["method", "role", "channel", "frequency", "participant"], sort=False)[
            "decibels"
        ].mean()
        of_all = of_people.groupby(level=[0, 1, 2, 3], sort=False).mean().reset_index()
        of_all.to_csv(folder / "spectrum.tsv", sep="\t", index=False)
        if len(calibrated):
            calibrated.to_csv(folder / "calibration.tsv", sep="\t", index=False)
        if len(regions):
            regions.to_csv(folder / REGIONS, sep="\t", index=False)
        if any(method.role == "ceiling" for method in methods):
            write_json(folder / REMARKS, [PUBLISHED])
        _write_examples(folder / "examples.npz", tested, recipe)


def _write_unjudged(tested: Sequence[Pair], result: Method, recipe: RecipeOptions, out: Path) -> None:
    """Say that nobody could be judged, and show what was predicted."""
    note = f"no test person has a measured {recipe.data.target} to compare with"
    metrics = [
        Metric(name, None, unit=unit, direction=direction, method=result.name, part=channel, note=note)
        for name, (unit, direction) in MEASURES.items()
        for channel in channel_names(recipe)
    ]
    with atomic_directory(out) as folder:
        write_metrics(folder, metrics, pd.DataFrame(columns=["participant", "group", "split", "method", "channel"]))
        _write_examples(folder / "examples.npz", tested, recipe, measured=False)


def channel_names(recipe: RecipeOptions) -> tuple[str, ...]:
    """Names of the target's channels."""
    names = CHANNELS.get(recipe.data.target or "", ())
    number = recipe.data.target_channels
    return names if len(names) == number else tuple(f"channel {n + 1}" for n in range(number))


Pair = tuple[Path, Path]
"""Folders of one chunk: inferred, packed."""


def _truths(
    pair: Pair, recipe: RecipeOptions, *, measured: bool = True
) -> Iterator[tuple[int, dict[str, Any], NDArray, NDArray[np.bool_]]]:
    """Every image of a chunk whose target was ``measured`` (or every one): its place in the results, what is known of it, its
    true maps and its brain."""
    inferred, packed = pair
    for place, entry in enumerate(read_index(inferred).to_dict("records")):
        target = np.asarray(open_array(packed, "target")[entry["row"]])
        if measured and not np.isfinite(target).all():
            continue
        mask = np.asarray(open_array(packed, "mask")[entry["row"]])[0] > 0
        known = {key: entry[key] for key in ("participant", "group", "split")}
        yield place, {"image": f"{inferred.name}/{place}", **known}, target, mask


def _measured(pair: Pair, methods: Sequence[Method], recipe: RecipeOptions) -> pd.DataFrame:
    """A row an image, method and channel."""
    rows = []
    for place, known, target, mask in _truths(pair, recipe):
        for method in methods:
            results = open_array(pair[0], method.file)[place]
            for number, channel in enumerate(channel_names(recipe)):
                predicted, true = np.asarray(results[number]), target[number]
                rows.append(
                    {
                        **known,
                        "method": method.name,
                        "channel": channel,
                        "PSNR": psnr(predicted, true, data_range=DATA_RANGE, mask=mask),
                        "SSIM": ssim(predicted, true, data_range=DATA_RANGE, mask=mask),
                        "MAE": mae(predicted, true, mask) / DATA_RANGE,
                        "correlation": correlation(predicted, true, mask),
                    }
                )
    return pd.DataFrame(rows)


def _spectra(pair: Pair, methods: Sequence[Method], recipe: RecipeOptions) -> pd.DataFrame:
    """A row an image, method, channel and frequency: its power over that of the truth, in decibels."""
    tables = []
    for place, known, target, mask in _truths(pair, recipe):
        for number, channel in enumerate(channel_names(recipe)):
            frequency, truth = radial_power(target[number], mask)
            for method in methods:
                power = radial_power(np.asarray(open_array(pair[0], method.detailed)[place][number]), mask)[1]
                with np.errstate(divide="ignore", invalid="ignore"):
                    decibels = 10 * np.log10(power / truth)
                table = pd.DataFrame({"frequency": frequency, "decibels": decibels})
                tables.append(table.assign(**known, method=method.name, role=method.role, channel=channel))
    return pd.concat(tables, ignore_index=True)


def _signals(pair: Pair, methods: Sequence[Method], recipe: RecipeOptions) -> pd.DataFrame:
    """A row an image, method and shell: how far the signal that the maps stand for is from the source's, in blocks of its voxels
    that lie within the brain."""
    rows = []
    shells = recipe.evaluation.shells
    index = read_index(pair[0]) if shells else pd.DataFrame()
    for place, known, target, mask in _truths(pair, recipe) if shells else ():
        source = np.asarray(open_array(pair[1], "data")[index["row"].iloc[place]], dtype=float)
        each = (len(source) - 1) // len(shells)  # of moments, a mean and a spread
        maps = {method.name: np.asarray(open_array(pair[0], method.file)[place]) for method in methods}
        affine = np.array(json.loads(index["affine"].iloc[place]))
        block = max(1, round((recipe.evaluation.source_voxel_size or 0) / float(np.linalg.norm(affine[:3, 0]))))
        inside = block_reduce(mask, block, np.min)
        for name, values in {**maps, MEASURED: target}.items():
            fractions = (np.asarray(values, dtype=float).clip(-1, 1) + 1) / 2
            for number, b in enumerate(shells):
                measured = (source[1 + each * number] + 1) / 2 * LARGEST_RATIO
                difference = block_reduce(powder_mean(fractions, b) - measured, block, np.mean)
                rows.append({**known, "method": name, "shell": b, SIGNAL: float(np.abs(difference[inside]).mean())})
    return pd.DataFrame(rows)


def _resimulated(
    images: pd.DataFrame, methods: Sequence[Method], recipe: RecipeOptions, group: str, note: str
) -> list[Metric]:
    """Mean error of the signal of each shell, and the result's less that of the others, person by person."""
    settings = {"resamples": recipe.evaluation.bootstrap, "seed": recipe.evaluation.seed}
    roles: dict[str, Role] = {**{method.name: method.role for method in methods}, MEASURED: "reference"}
    rows = []
    for b in recipe.evaluation.shells if len(images) else ():
        people = images[images["shell"] == b].groupby(["method", "participant"])[SIGNAL].mean()
        for name, role in roles.items():
            about = Metric(
                SIGNAL, None, unit="of b0", direction="lower", role=role, method=name, part=f"b{b}", group=group,
                people=len(people[name]), images=int((images["method"] == name).sum() / len(recipe.evaluation.shells)),
                note=joined(RESIMULATED, note),
            )  # fmt: skip
            rows.append(about.measured(bootstrap_mean(people[name].to_numpy(dtype=float), **settings)))
            if role != "result":
                paired = (people[methods[0].name] - people[name]).to_numpy(dtype=float)
                about = replace(about, role="result", method=methods[0].name, against=name)
                rows.append(about.measured(bootstrap_mean(paired, **settings), "paired over people"))
    return rows


def _regions(pairs: Sequence[Pair], methods: Sequence[Method], recipe: RecipeOptions) -> pd.DataFrame:
    """Correlation in each region, means over test people; empty where no regions are given."""
    if recipe.evaluation.regions is None:
        return pd.DataFrame()
    regions = Regions(recipe.evaluation.regions)
    rows, lacking = [], set()
    for pair in pairs:
        entries = read_index(pair[0]).to_dict("records")
        for place, known, target, mask in _truths(pair, recipe):
            labels = regions.of({str(key): value for key, value in entries[place].items()}, mask.shape)
            if labels is None:
                lacking.add(known["participant"])
                continue
            maps = {method.name: np.asarray(open_array(pair[0], method.file)[place]) for method in methods}
            for number, channel in enumerate(channel_names(recipe)):
                predicted = {name: values[number] for name, values in maps.items()}
                found = correlations(labels, mask, predicted, target[number])
                rows += [{"participant": known["participant"], "channel": channel, **row} for row in found]
    if lacking:
        log.warning("evaluation.regions: %d test people have no labels: %s", len(lacking), ", ".join(sorted(lacking)))
    if not rows:
        raise UserError(f"evaluation.regions: {recipe.evaluation.regions} holds no region of a test person's brain")
    settings = {"resamples": recipe.evaluation.bootstrap, "seed": recipe.evaluation.seed}
    others = [method.name for method in methods if method.role != "result"]
    return summary(pd.DataFrame(rows), regions.names, methods[0].name, others, **settings)


def _distances(spectra: pd.DataFrame) -> pd.DataFrame:
    """Mean distance of a spectrum from the truth's above half of Nyquist, a row an image, method and channel."""
    high = spectra[spectra["frequency"] > HALF_NYQUIST].assign(distance=lambda table: table["decibels"].abs())
    means = high.groupby(["image", "method", "channel"], sort=False)["distance"].mean()
    return means.rename("spectral distance").reset_index()


def _spread_scale(validation: Sequence[Pair], recipe: RecipeOptions) -> dict[str, tuple[float, int]]:
    """By what to multiply the spread of each channel, and over how many people it was measured; empty where nobody validates."""
    tables = [_calibration(pair, recipe, {}) for pair in validation]
    known = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    if known.empty:
        return {}
    people = known.groupby(["channel", "participant"], sort=False)[SPREAD].mean().dropna()
    return {
        str(channel): (1 / float(values.mean()), len(values))
        for channel, values in people.groupby(level=0)
        if values.mean() > 0
    }


def _calibration(pair: Pair, recipe: RecipeOptions, scale: Mapping[str, tuple[float, int]]) -> pd.DataFrame:
    """A row an image and channel, where there are several draws."""
    count, rows = recipe.sampling.count, []
    for place, known, target, mask in _truths(pair, recipe) if count > 1 else ():
        mean, spread = (open_array(pair[0], name)[place] for name in ("prediction", "spread"))
        for number, channel in enumerate(channel_names(recipe)):
            about = (np.asarray(mean[number]), np.asarray(spread[number]), count, target[number], mask)
            covered = [coverage(*about, level) for level in LEVELS]
            found = dict(zip(CALIBRATION, [*covered, spread_skill(*about)], strict=True))
            if channel in scale:
                wider = (about[0], scale[channel][0] * about[1], *about[2:])
                found |= {name: coverage(*wider, level) for name, level in zip(SCALED, LEVELS, strict=True)}
            rows.append({**known, "channel": channel} | found)
    return pd.DataFrame(rows)


def _calibrated(
    images: pd.DataFrame, recipe: RecipeOptions, group: str, note: str, scale: Mapping[str, tuple[float, int]]
) -> list[Metric]:
    """How often the spread of the draws covers the truth, means over people."""
    settings = {"resamples": recipe.evaluation.bootstrap, "seed": recipe.evaluation.seed}
    rows = []
    for channel in channel_names(recipe) if len(images) else ():
        own = images[images["channel"] == channel].groupby("participant")
        factor, people = scale.get(channel, (1.0, 0))
        chosen = f"spread times {factor:.2f}, from {people} validation people"
        for name in (*CALIBRATION, *(SCALED if people else ())):
            values = own[name].mean().to_numpy(dtype=float)
            about = Metric(
                name, None, role="result", method=RESULT, part=channel, group=group, people=len(values),
                images=int(own.size().sum()), note=joined("inside the brain", chosen if name in SCALED else "", note),
            )  # fmt: skip
            rows.append(about.measured(bootstrap_mean(values, **settings)))
    return rows


def _means(images: pd.DataFrame, *by: str) -> pd.DataFrame:
    """A row a person, method and channel: a person is one, also where sessions are of two groups."""
    people = images.groupby(["participant", *by, "split", "method", "channel"], as_index=False, sort=False)
    return people.agg(images=("PSNR", "size"), **{name: (name, "mean") for name in MEASURES})


def _summary(
    per_subject: pd.DataFrame, methods: Sequence[Method], recipe: RecipeOptions, group: str, note: str
) -> list[Metric]:
    """Means over people, and the differences of the result to the other methods, person by person."""
    settings = {"resamples": recipe.evaluation.bootstrap, "seed": recipe.evaluation.seed}
    rows = []
    result = methods[0].name
    for channel in channel_names(recipe):
        own = per_subject[per_subject["channel"] == channel]
        of = {method: table.set_index("participant").sort_index() for method, table in own.groupby("method")}
        for name, (unit, direction) in MEASURES.items():
            where = joined("inside the brain", DETAIL if name == "spectral distance" else "", note)
            for method in methods:
                table = of[method.name]
                about = Metric(
                    name, None, unit=unit, direction=direction, role=method.role, method=method.name, part=channel,
                    group=group, people=len(table), images=int(table["images"].sum()), note=where,
                )  # fmt: skip
                values = table[name].to_numpy(dtype=float)
                remark = CEILING if method.role == "ceiling" else ""
                rows.append(about.measured(bootstrap_mean(values, **settings), remark))
                if method.role == "result":
                    continue
                paired = (of[result][name] - table[name]).to_numpy(dtype=float)
                about = replace(about, role="result", method=result, against=method.name)
                rows.append(about.measured(bootstrap_mean(paired, **settings), "paired over people"))
    return rows


def _write_examples(path: Path, pairs: Sequence[Pair], recipe: RecipeOptions, *, measured: bool = True) -> None:
    """2D views of one image of each of the first test people, a row a channel: source, methods, target."""
    views: dict[str, list[NDArray[np.floating]]] = {}
    labels, shown = [], set[str]()
    for pair in pairs:
        there = [name for name in VIEWS if (pair[0] / f"{name}.npy").is_file()]
        rows = read_index(pair[0])["row"]
        for place, known, target, _ in _truths(pair, recipe, measured=measured):
            if known["participant"] in shown or len(shown) == EXAMPLES:
                continue
            shown.add(known["participant"])
            source = plane(np.asarray(open_array(pair[1], "data")[rows[place]])[:1])
            results = {name: np.asarray(open_array(pair[0], name)[place]) for name in there}
            for number, channel in enumerate(channel_names(recipe)):
                views.setdefault("source", []).append(source)
                for name, result in {**results, **({"target": target} if measured else {})}.items():
                    views.setdefault(name, []).append(plane(result[number : number + 1]))
                labels.append(f"{known['participant']}\n{channel}")
    arrays = {name: np.stack(images) for name, images in views.items()}
    np.savez(path, labels=np.array(labels), **arrays)  # type: ignore[arg-type]
