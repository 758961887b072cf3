"""One quality-control page per scan, failed scans too; of pictures, which are many, one per chunk."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline_lib.config.schema import CohortOptions, PreprocessOptions
from pipeline_lib.files import read_table, write_table
from pipeline_lib.imaging.contrasts import CONTRASTS, MOST_BELOW
from pipeline_lib.report.atlas import Atlas
from pipeline_lib.report.measures import MEASURES, Measure
from pipeline_lib.report.methods import methods_text, scan_paragraph
from pipeline_lib.report.page import PICTURES, Picture, Provenance, load_picture, number, read_provenance, write_page
from pipeline_lib.report.pictures import mapped_pictures, table_of_pictures
from pipeline_lib.report.tables import Download, download
from pipeline_lib.report.view import UNCERTAINTY, Inferred, View, view_of

PERSON = ("scan", "participant", "session", "modality", "group", "age", "sex", "site")
VERDICT = ("ok", "stage", "reason")
BOOKKEEPING = ("pair", "log", "source", "sha256", "voxels_sha256", "outputs")
VIEWER, COHORT = "../../niivue.umd.js", "../../cohort.js"
"""From a page; the index puts them there."""
MOST_EXCLUDED, MOST_LOG = 500, 100_000
"""Excluded pictures that a page lists, and characters of a log that it shows."""


@dataclass(frozen=True)
class Row:
    """A line of the numbers table; ``name`` and ``exact`` are for its place in the cohort, where it has one."""

    name: str
    exact: str
    measure: Measure
    value: str
    limits: str


def write_scan_pages(
    ingest: Path,
    preprocess: Path,
    options: PreprocessOptions,
    cohort: CohortOptions,
    out: Path,
    inferred: Sequence[Inferred] = (),
    atlas: Atlas | None = None,
) -> None:
    """Write ``out/{scan}.html`` for every scan of a chunk, or ``out/pictures.html`` for all, and ``out/scans.tsv``.

    The pages link to the index two folders up, as in ``results/report/scans/{chunk}/``.

    Args:
        ingest: the chunk's folder of the ingest stage, with ``status.tsv``.
        preprocess: the chunk's folder of the preprocess stage, with ``status.tsv`` and ``figures/``.
        options: how the scans were preprocessed, for the methods text and the limits.
        cohort: name and note shown on every page.
        out: the folder to write, ``results/report/scans/{chunk}``.
        inferred: what recipes made of the chunk, for the viewer.
        atlas: by which places of findings are named.
    """
    opened = {row["scan"]: row for row in read_table(ingest / "status.tsv")}
    rows = {row["scan"]: row for row in read_table(preprocess / "status.tsv")}
    rows = {scan: row | opened.get(scan, {}) | _filled(row) for scan, row in {**opened, **rows}.items()}
    made = [read_provenance("Ingest", ingest), read_provenance("Preprocess", preprocess)]
    if rows and all(row["modality"] == "image" for row in rows.values()):
        _write_picture_page(ingest, preprocess, options, cohort, list(rows.values()), made, out, inferred)
        return
    names = list(rows)
    for position, (scan, row) in enumerate(rows.items()):
        logs = [("Ingest", _log(ingest, opened.get(scan))), ("Preprocess", _log(preprocess, row))]
        view = _view(scan, ingest, opened.get(scan), preprocess, row, inferred, atlas)
        write_page(
            out / f"{scan}.html",
            "scan.html",
            scripts=["shared.js", "scan.js"],
            beside=[COHORT, *([VIEWER] if view.layers else [])],
            title=scan,
            home="../../index.html",
            cohort=cohort,
            chunk=preprocess.name,
            row=row,
            ok=row["ok"] == "true",
            picture=_figure(preprocess, row),
            view=view,
            uncertain=any(layer.title.startswith(UNCERTAINTY) for layer in view.layers),
            findings=_findings(scan, view),
            numbers=_numbers(row, options),
            logs=[(stage, text) for stage, text in logs if text],
            outputs=sorted(_outputs(row).items()),
            methods=methods_text(scan_paragraph(options, row)),
            provenance=[item for item in made if item],
            previous=names[position - 1] if position else "",
            following=names[position + 1] if position + 1 < len(names) else "",
        )
    known = {*PERSON, *VERDICT, *BOOKKEEPING}
    measured = dict.fromkeys(name for row in rows.values() for name in row if name not in known)
    table = [{**row, "page": f"{scan}.html"} for scan, row in rows.items()]
    write_table(out / "scans.tsv", [*PERSON, "page", *VERDICT, *measured], table)
    _keep_only(out, {row["page"] for row in table})


def _write_picture_page(
    ingest: Path,
    preprocess: Path,
    options: PreprocessOptions,
    cohort: CohortOptions,
    rows: Sequence[dict[str, str]],
    made: Sequence[Provenance | None],
    out: Path,
    inferred: Sequence[Inferred],
) -> None:
    """One page for the pictures of a chunk: a table with each of them, counts, and why others are out."""
    passed = Counter(row["group"] for row in rows if row["ok"] == "true")
    excluded = [row for row in rows if row["ok"] != "true"]
    failed = Counter(row["group"] for row in excluded)
    logged = {row["log"]: row for row in excluded if row["log"]}
    maps = list(mapped_pictures(preprocess.name, inferred))
    write_page(
        out / PICTURES,
        "pictures.html",
        scripts=["shared.js", "page.js"],
        title=preprocess.name,
        home="../../index.html",
        cohort=cohort,
        rows=len(rows),
        pictures=sum(int(row.get("slices") or 0) for row in rows),
        passed=passed.total(),
        excluded=excluded,
        most=MOST_EXCLUDED,
        maps=maps,
        table=table_of_pictures(preprocess.name, preprocess, rows, maps),
        groups=[(group, passed[group], failed[group]) for group in sorted({*passed, *failed})],
        picture=load_picture(
            preprocess / "figures" / "pictures.png",
            alt=f"Pictures of {preprocess.name}, spread evenly over the chunk.",
            caption="The first picture of some rows, spread evenly over the chunk, as they go on.",
        )
        if passed
        else None,
        logs=[("Ingest", _log(ingest, row)[:MOST_LOG]) for row in logged.values()],
        methods=methods_text(scan_paragraph(options, rows[0])),
        provenance=[item for item in made if item],
    )
    write_table(out / "scans.tsv", [*PERSON, "page", *VERDICT], [{**row, "page": PICTURES} for row in rows])
    _keep_only(out, {PICTURES})


def _keep_only(out: Path, pages: Collection[str]) -> None:
    """Remove pages of an earlier run whose scans are no longer in the chunk."""
    for page in out.glob("*.html"):
        if page.name not in pages:
            page.unlink()


def _view(
    scan: str,
    ingest: Path,
    opened: Mapping[str, str] | None,
    preprocess: Path,
    row: Mapping[str, str],
    inferred: Sequence[Inferred],
    atlas: Atlas | None,
) -> View:
    native = {name: ingest / path for name, path in _outputs(opened or {}).items()}
    prepared = {name: preprocess / path for name, path in _outputs(row).items() if (preprocess / path).is_file()}
    return view_of(scan, native, prepared, inferred, atlas)


def _findings(scan: str, view: View) -> Download | None:
    """All findings of a scan as a table; None where there are none."""
    rows = [
        {"scan": scan, "recipe": found.recipe, "threshold": found.threshold}
        | dict(zip("xyz", one.place, strict=True))
        | {"volume_ml": one.volume, "peak": one.peak, "mean": one.mean, "known_lesion": one.known}
        | ({} if one.region is None else {"region": one.region, "region_share": one.share})
        for found in view.found
        for one in found.findings
    ]
    return download(f"{scan}_findings.tsv", pd.DataFrame(rows)) if rows else None


def _log(folder: Path, row: Mapping[str, str] | None) -> str:
    """What a stage wrote down about a scan that failed in an unexpected way."""
    path = folder / row["log"] if row and row["log"] else None
    return path.read_text(encoding="utf-8", errors="replace").strip() if path and path.is_file() else ""


def _outputs(row: Mapping[str, str]) -> dict[str, str]:
    return dict(json.loads(row.get("outputs") or "{}"))


def _figure(preprocess: Path, row: dict[str, str]) -> Picture | None:
    figure = _outputs(row).get("figure")
    if figure is None:
        return None
    return load_picture(
        preprocess / figure,
        alt=f"Quality picture of {row['scan']}: slices of the scan before or after preprocessing.",
        caption="Slices of the scan. Where there is an outline, it is the brain mask on the scan as it came and the "
        "template's brain on the scan in template space. Both should follow the brain's edge.",
    )


def _numbers(row: dict[str, str], options: PreprocessOptions) -> list[Row]:
    quality = options.quality
    low, high = quality.brain_volume_ml
    limits = {"brain_volume_ml": f"{low:g} to {high:g}"}
    if row["modality"] not in ("dwi", "noddi"):
        dark, bright = quality.brain_median
        limits |= {
            "template_overlap": f"at least {quality.min_template_overlap:g}",
            "registration_cost": f"at most {quality.max_registration_cost:g}",
            "brain_median": f"{dark:g} to {bright:g}",
            "outside_field": f"at most {quality.max_outside_field:g}",
            "empty_inside": f"at most {quality.max_empty_inside:g}",
            "empty_slices": f"at most {quality.max_empty_slices}",
            "below_background": f"at most {MOST_BELOW:g}, or the contrast of its modality",
        }
        if quality.contrast:
            contrast = CONTRASTS.get(row["modality"], {})
            limits |= {name: f"{low:g} to {high:g}" for name, (low, high) in contrast.items()}
        if row.get("brain_method") != "given":
            limits["mask_components"] = f"at most {quality.max_mask_components}"
    known = {*PERSON, *VERDICT, *BOOKKEEPING}
    rows = []
    for name, value in row.items():
        if name not in known and value != "" and (real := _real(value)) == real:
            measure = MEASURES.get(name, Measure(name))
            exact = "" if real is None or real == measure.absent else value
            rows.append(Row(name, exact, measure, number(value), limits.get(name, "")))
    return rows


def _filled(row: Mapping[str, str]) -> dict[str, str]:
    """Without its empty cells: a column of another scan's, which must not hide what ingest said of this one."""
    return {name: value for name, value in row.items() if value}


def _real(value: str) -> float | None:
    """A number, NaN too; None for words."""
    try:
        return float(value)
    except ValueError:
        return None
