"""A whole report of made-up results: every kind of page, plot and table, with strings that must stay text."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pipeline_lib.config.schema import CohortOptions, PreprocessOptions, RecipeOptions, SplitOptions
from pipeline_lib.evaluation.metric import Metric
from pipeline_lib.files import write_json, write_table
from pipeline_lib.imaging.nifti import Volume, write_volume
from pipeline_lib.imaging.registration import template
from pipeline_lib.imaging.stacks import FILE, Place
from pipeline_lib.report.index import write_index
from pipeline_lib.report.recipe import write_recipe_page
from pipeline_lib.report.scans import write_scan_pages
from pipeline_lib.report.view import Inferred

EVIL = "<img src=x onerror=alert(1)><script>alert(1)</script>'\"&{{ 7 * 7 }}"
COHORT = CohortOptions(
    name=f"Made-up cohort <b> {'long' * 40}", note="Nobody lives who was measured here & nothing is true."
)
MEASURED = (
    "brain_volume_ml", "template_overlap", "registration_cost", "snr", "cnr", "efc", "fber", "mask_components", "brain_median",
    "outside_field", "empty_inside", "below_background", "white_over_grey", "grey_over_fluid", "intensity_centre", "intensity_scale",
)  # fmt: skip
CHUNK = "train-anat-0001"
VIEWED = "sub-00001_ses-1_T1w"
"""Whose page has a viewer."""
WITH_PAGES = 6
"""Scans that have a page of their own; the others are rows of the table only."""


def make_report(folder: Path, scans: int = 200) -> Path:
    """Write a report below ``folder`` and give its index."""
    out = folder / "report"
    rows, table = _scans(folder, out, scans)
    write_json(folder / "checks.json", _checks(rows))
    write_table(folder / "cohort.tsv", list(rows[0]), rows)
    pages = {name: out / f"{name}.html" for name in ("anomaly", "synthesis", "generation")}
    datasets = _datasets(folder, rows)
    _recipe("anomaly", _anomaly(folder), datasets, out)
    _recipe("synthesis", _synthesis(folder), datasets, out)
    _recipe("generation", _generation(folder), datasets, out)
    write_index(
        COHORT,
        SplitOptions(),
        PreprocessOptions(),
        [folder / "cohort.tsv"],
        folder / "checks.json",
        [table],
        pages,
        out / "index.html",
    )
    return out / "index.html"


def _recipe(task: str, folders: dict[str, Path], datasets: list[Path], out: Path) -> None:
    options: dict[str, Any] = {"task": task}
    if task == "synthesis":
        options |= {"autoencoder": {"kind": "vae"}, "denoiser": {"condition": ["group"]}}
    write_recipe_page(task, RecipeOptions.model_validate(options), COHORT, folders, out / f"{task}.html", datasets)


def _person(n: int) -> dict[str, str]:
    rng = np.random.default_rng(n)
    split = ("train", "train", "train", "validation", "test")[n % 5]
    group = ("CN", "AD", "MCI")[n % 3]
    return {
        "scan": f"sub-{n:05d}_ses-1_T1w",
        "participant": f"{n:05d}",
        "session": "1",
        "modality": "T1w" if n % 4 else "FLAIR",
        "split": split,
        "chunk": f"{split}-anat-0001",
        "group": group,
        "age": f"{rng.integers(50, 90)}",
        "sex": "FM"[n % 2],
        "site": ("north", "south", EVIL)[n % 3],
    }


def _scans(folder: Path, out: Path, number: int) -> tuple[list[dict[str, str]], Path]:
    """Rows of the cohort table, and the table of the scan pages."""
    rng = np.random.default_rng(0)
    rows, statuses = [], []
    for n in range(number):
        failed = n % 17 == 3
        reason = f"data/{n}.nii.gz (row {n + 2} of the sheet): {n % 7} slices are empty {EVIL}" if failed else ""
        verdict = {"stage": "quality" if failed else "", "reason": reason}
        row = _person(n) | verdict | {"included": str(not failed).lower(), "sha256": "0"}
        rows.append(row)
        values = {name: f"{value:.6f}" for name, value in zip(MEASURED, rng.standard_t(4, len(MEASURED)), strict=True)}
        if n == 1:  # whose page has a viewer: one number that stands for none, one beyond which no scan is
            values |= {"fber": "-1.000000", "brain_volume_ml": "1234567.891234"}
        statuses.append(row | values | {"ok": row["included"], "log": "", "outputs": '{"figure": "figure.png"}'})
    unknown = ("split", "chunk", "included")  # to the stages that write these tables
    shown = [{name: value for name, value in row.items() if name not in unknown} for row in statuses[:WITH_PAGES]]
    opened, prepared = make_volumes(folder, VIEWED)
    make_translation(folder, VIEWED)
    for stage, outputs in (("ingest", opened), ("preprocess", prepared | {"figure": "figure.png"})):
        own = [row | ({"outputs": json.dumps(outputs)} if row["scan"] == VIEWED else {}) for row in shown]
        write_table(folder / stage / CHUNK / "status.tsv", list(own[0]), own)
    _picture(folder / "preprocess" / CHUNK / "figure.png", rng)
    pages = out / "scans" / CHUNK
    write_scan_pages(
        folder / "ingest" / CHUNK,
        folder / "preprocess" / CHUNK,
        PreprocessOptions(),
        COHORT,
        pages,
        [
            Inferred.of(*(folder / recipe / part for part in (f"inference/{CHUNK}", f"dataset/{CHUNK}", "evaluation")))
            for recipe in ("anomaly", "translation")
        ],
    )
    names = [*_person(0), "page", "ok", "stage", "reason", *MEASURED]
    write_table(pages / "scans.tsv", names, [row | {"page": f"{row['scan']}.html"} for row in statuses])
    return rows, pages / "scans.tsv"


def make_volumes(folder: Path, scan: str, threshold: str = "0.5") -> tuple[dict[str, str], dict[str, str]]:
    """A brain at 4 mm with a lesion that an anomaly map finds, and a place that it marks in vain.

    Returns:
        Names to paths in the folders of the ingested and of the preprocessed chunk.
    """
    reference, brain = template()
    image = Volume(reference.data[::2, ::2, ::2].copy(), reference.affine @ np.diag([2, 2, 2, 1]))
    mask = brain[::2, ::2, ::2]
    scores, lesion = np.zeros_like(image.data), np.zeros_like(image.data)
    scores[30:33, 26:29, 22:25], scores[14, 20, 20] = 0.8, 0.9
    lesion[31:34, 26:29, 22:25] = 1
    ingested, preprocessed = folder / "ingest" / CHUNK, folder / "preprocess" / CHUNK
    inference, dataset = folder / "anomaly" / "inference" / CHUNK, folder / "anomaly" / "dataset" / CHUNK
    write_volume(ingested / "native.nii.gz", image)
    write_volume(preprocessed / "image.nii.gz", image)
    for name, values in (("mask", mask), ("native_mask", mask), ("lesion", lesion)):
        write_volume(preprocessed / f"{name}.nii.gz", Volume(values.astype(np.float32), image.affine), np.uint8)
    (preprocessed / "to.tfm").write_text("#")
    write_volume(inference / "nifti" / f"{scan}_desc-anomaly_map.nii.gz", Volume(scores, image.affine))
    slices = np.moveaxis(image.data[:, :, 15:25], 2, 0)[:, None] * 2 - 1
    dataset.mkdir(parents=True)
    np.save(dataset / "data.npy", slices)
    np.save(inference / "reconstruction.npy", slices * 0.8)
    index = pd.DataFrame({"scan": scan, "participant": "00001", "age": "50", "affine": "", "slice": range(10)})
    index.to_csv(inference / "index.tsv", sep="\t", index=False)
    row = {"method": "diffusion", "role": "result", "threshold": threshold}
    write_table(folder / "anomaly" / "evaluation" / "thresholds.tsv", list(row), [row])
    names = {name: f"{name}.nii.gz" for name in ("image", "mask", "native_mask", "lesion")}
    return {"image": "native.nii.gz"}, names | {"to_MNI152": "to.tfm"}


def make_pictures(folder: Path, number: int) -> list[dict[str, str]]:
    """The status of a chunk of pictures, each brighter than the one before; every tenth, from the eighth, cannot be read."""
    stacks = np.concatenate([np.full(20 * 20, min(255, 8 * n), np.uint8) for n in range(number)])
    rows = []
    for n in range(number):
        ok = n % 10 != 7
        rows.append(
            _person(n)
            | {"scan": f"p{n}", "participant": f"p{n}", "modality": "image", "group": "cat" if n % 2 else "dog"}
            | {"ok": str(ok).lower(), "stage": "" if ok else "ingest", "reason": "" if ok else f"p{n}.png: {EVIL}"}
            | {"log": "", "sha256": "0", "slices": "1"}
            | {"outputs": json.dumps({"image": str(Place(400 * n, (1, 20, 20, 1)))} if ok else {})}
        )
    for stage in ("ingest", "preprocess"):
        write_table(folder / stage / "status.tsv", list(rows[0]), rows)
        (folder / stage / FILE).parent.mkdir(parents=True)
        np.save(folder / stage / FILE, stacks)
    return rows


def make_translation(folder: Path, scan: str, volumes: int = 3) -> None:
    """Predicted volumes of a scan, whose draws differ in one place each."""
    reference, brain = template()
    inference, dataset = folder / "translation" / "inference" / CHUNK, folder / "translation" / "dataset" / CHUNK
    for path in (inference, dataset):
        path.mkdir(parents=True)
    spread = np.zeros((1, volumes, *brain[::4, ::4, ::4].shape), np.float32)
    for n in range(volumes):
        spread[0, n, 10 + n, 10, 10] = 0.2 * (n + 1)
    np.save(inference / "spread.npy", spread)
    inside = brain[::4, ::4, ::4]
    np.save(inference / "prediction.npy", np.stack([np.where(inside, 0.5 * n, -1.0) for n in range(volumes)])[None])
    affine = (reference.affine @ np.diag([4, 4, 4, 1])).tolist()
    index = pd.DataFrame(
        {"scan": [scan], "participant": "00001", "age": "50", "affine": json.dumps(affine), "slice": ""}
    )
    index.to_csv(inference / "index.tsv", sep="\t", index=False)
    write_json(dataset / "prepared.json", {"data": {"target": "noddi"}})


def _checks(rows: list[dict[str, str]]) -> dict[str, Any]:
    cells = sorted({(row["split"], row["group"]) for row in rows})
    balance = [
        {"split": split, "group": group, "people": 5, "sex": {"F": 2, "M": 3}, "age_mean": 70.5, "age_sd": 6.1}
        for split, group in cells
    ]
    refused = [{"row": 3, "scan": f"row 3 {EVIL}", "participant": "", "reason": f"row 3: no modality {EVIL}"}]
    problems = [f"row 3: modality: {EVIL}"]
    return {
        "duplicates": [],
        "people_in_two_splits": [],
        "balance": balance,
        "excluded_rows": refused,
        "sheet_problems": problems,
    }


def _datasets(folder: Path, rows: list[dict[str, str]]) -> list[Path]:
    folders = []
    for split in ("train", "validation", "test"):
        own = [row for row in rows if row["split"] == split and row["included"] == "true"]
        place = folder / "dataset" / f"{split}-anat-0001"
        write_table(place / "index.tsv", ["scan", "participant"], own[2:])
        write_table(
            place / "left_out.tsv",
            ["scan", "reason"],
            [{"scan": row["scan"], "reason": "no brain in the slices"} for row in own[:2]],
        )
        folders.append(place)
    return folders


def _metric(name: str, method: str, role: str, value: float, width: float, **about: Any) -> dict[str, Any]:
    return asdict(
        Metric(name, value, value - width, value + width, role=role, method=method, people=64, images=640, **about)
    )  # type: ignore[arg-type]


def _network(folder: Path) -> Path:
    steps = np.arange(1, 2001)
    rng = np.random.default_rng(1)
    loss = 0.5 * steps**-0.3 + 0.01 * rng.random(len(steps))
    validation = np.where(steps % 100 == 0, loss * 1.05, np.nan)
    folder.mkdir(parents=True)
    pd.DataFrame({"step": steps, "train_loss": loss, "validation_loss": validation}).to_csv(
        folder / "history.csv", index=False
    )
    snr = np.linspace(6, -6, 10)
    error = 1 / (1 + np.exp(snr))
    levels = {"log_snr": snr, "loss": error**0.5, "x0_mse": 0.4 * error, "eps_mse": 1 - error, "x0_mse_linear": error}
    levels |= {"eps_autocorrelation": 0.01 + 0.1 * error, "eps_limit": 0.012 + 0 * error}
    pd.DataFrame(levels).to_csv(folder / "noise_levels.tsv", sep="\t", index=False)
    model = {"steps": 2000, "train_people": 90, "train_images": 900, "train_scans": 100, "best_step": 1900}
    write_json(folder / "model.json", model | {"data": {"train_groups": ["CN"]}})
    _picture(folder / "strip.png", rng)
    return folder


def _anomaly(folder: Path) -> dict[str, Path]:
    evaluation = folder / "anomaly" / "evaluation"
    about = {"direction": "higher"}
    floor = f"asymmetry {EVIL}"
    write_json(
        evaluation / "metrics.json",
        [
            _metric("pixel AP", "diffusion", "result", 0.71, 0.05, **about),
            _metric("pixel AP", floor, "floor", 0.65, 0.05, **about),
            _metric("pixel AP", "chance", "floor", 0.02, 0.0, **about),
            _metric("pixel AP", "diffusion", "result", 0.06, 0.02, against=floor, **about),
            _metric("pixel AP", "diffusion", "result", 0.69, 0.05, against="chance", **about),
        ],
    )
    rng = np.random.default_rng(2)
    people = [
        {
            "participant": f"{n:05d}",
            "group": "AD",
            "split": "test",
            "method": "diffusion",
            "images": 10,
            "pixel_ap": rng.random(),
        }
        for n in range(4, 60, 5)
    ]
    pd.DataFrame(people).to_csv(evaluation / "per_subject.tsv", sep="\t", index=False)
    recall = np.linspace(0, 1, 300)
    curves = [
        pd.DataFrame({"method": name, "role": role, "recall": recall, "precision": 1 - at * recall**2, "chance": 0.02})
        for name, role, at in (("diffusion", "result", 0.4), (floor, "floor", 0.6))
    ]
    pd.concat(curves).to_csv(evaluation / "precision_recall.tsv", sep="\t", index=False)
    _picture(evaluation / "examples.png", rng)
    return {"evaluation": evaluation, "diffusion": _network(folder / "anomaly" / "diffusion")}


def _generation(folder: Path) -> dict[str, Path]:
    evaluation = folder / "generation" / "evaluation"
    about = {"direction": "lower", "split": "held-out"}
    floor = "held-out people, half against half"
    steps = [
        _metric(name, "diffusion", "checkpoint", value * scale, 0.05 * scale, step=step, **about)
        for name, scale in (("FID", 1.0), ("KID", 0.01))
        for step, value in ((500, 3.0), (1000, 1.5), (1500, 0.9), (2000, 1.0))
    ]
    finished = [
        _metric("FID", "diffusion", "result", 1.0, 0.05, **about),
        _metric("FID", floor, "floor", 0.4, 0.05, **about),
        _metric("FID", "diffusion", "result", 0.6, 0.1, against=floor, **about),
    ]
    write_json(evaluation / "metrics.json", [*finished, *steps])
    return {"evaluation": evaluation, "diffusion": _network(folder / "generation" / "diffusion")}


def _synthesis(folder: Path) -> dict[str, Path]:
    evaluation, embedding = folder / "synthesis" / "evaluation", folder / "synthesis" / "embedding"
    about = {"direction": "lower", "split": "held-out"}
    floor = "held-out people, half against half"
    write_json(
        evaluation / "metrics.json",
        [
            _metric("FID", "diffusion", "result", 0.42, 0.05, **about),
            _metric("FID", floor, "floor", 0.4, 0.05, **about),
            _metric("FID", "diffusion", "result", 0.02, 0.1, against=floor, **about),
        ],
    )
    rng = np.random.default_rng(3)
    number = 600
    table = pd.DataFrame(
        {
            "scan": [f"sub-{n:05d}" for n in range(number)],
            "participant": [f"{n:05d}" for n in range(number)],
            "group": rng.choice(["CN", "AD", EVIL], number),
            "age": rng.integers(50, 90, number),
            "split": rng.choice(["train", "test", "sample"], number),
        }
        | {f"{space}_{axis}": rng.normal(size=number) for space in ("latents", "bottleneck") for axis in "xy"}
    )
    embedding.mkdir(parents=True)
    table.to_csv(embedding / "embedding.tsv", sep="\t", index=False)
    _picture(folder / "synthesis" / "samples" / "grid.png", rng)
    changed = folder / "synthesis" / "counterfactuals"
    asked = {"age": [20.5, 60.0, EVIL], "group": ["CN", EVIL]}
    for condition, values in asked.items():
        (changed / condition).mkdir(parents=True)
        np.save(changed / condition / "scans.npy", np.full((2, 1, 12, 10), -1, np.float32))
        frames = [np.full((2, 1, 12, 10), n / 5, np.float32) for n in range(len(values))]
        np.save(changed / condition / "changed.npy", np.stack(frames, axis=1))
        _picture(changed / f"counterfactuals_{condition}.png", rng)
    write_json(changed / "counterfactuals.json", asked)
    return {
        "samples": folder / "synthesis" / "samples",
        "counterfactuals": changed,
        "embedding": embedding,
        "evaluation": evaluation,
        "diffusion": _network(folder / "synthesis" / "diffusion"),
    }


def _picture(path: Path, rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(6, 2))
    figure.subplots().imshow(rng.random((20, 60)), cmap="gray")
    figure.savefig(path)
