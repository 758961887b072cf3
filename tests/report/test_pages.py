"""The report's pages: complete, self-contained, escaped, readable without eyes or mouse."""

from __future__ import annotations

import base64
import csv
import hashlib
import html
import io
import re
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import made_report
import numpy as np
import pytest
from made_report import make_pictures, make_report
from matplotlib.figure import Figure
from packed_table import unpacked
from PIL import Image

from pipeline_lib.config.schema import CohortOptions, PreprocessOptions, RecipeOptions, SplitOptions
from pipeline_lib.errors import UserError
from pipeline_lib.evaluation.metric import Metric, Role
from pipeline_lib.files import write_json, write_text
from pipeline_lib.imaging.quality import TILE
from pipeline_lib.report.captions import CAPTIONS
from pipeline_lib.report.film import films_of
from pipeline_lib.report.index import read_card, write_index
from pipeline_lib.report.page import PICTURE_LIMIT, load_picture
from pipeline_lib.report.pictures import LARGE
from pipeline_lib.report.recipe import write_recipe_page
from pipeline_lib.report.run import COMMAND
from pipeline_lib.report.scans import write_scan_pages

COHORT = CohortOptions(name="Cohort <b>", note="Synthetic people & nobody else.")
EVIL = "<script>alert(1)</script>"
VOID = {"meta", "link", "img", "br", "hr", "input", "source", "col", "path", "circle", "line", "rect", "polygon", "use"}


class Page(HTMLParser):
    """Checks the nesting of tags and collects what a test asks about."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.references: list[str] = []
        self.headings: list[int] = []
        self.language = ""
        self.text = path.read_text()
        self.feed(self.text)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "html":
            self.language = values.get("lang") or ""
        if tag == "img":
            self.images.append(values)
        self.references += [values[name] or "" for name in ("src", "href") if name in values]
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open, f"</{tag}> without its start"
            assert self.open.pop() == tag


def check(path: Path, note: str = COHORT.note) -> Page:
    page = Page(path)
    assert page.language == "en"
    assert all(image.get("alt") for image in page.images), "a picture without alternative text"
    embedded = [image["src"] or "" for image in page.images]
    assert all(source.startswith("data:image/") for source in embedded)
    assert not [
        reference for reference in page.references if reference.startswith("http") and "doi.org" not in reference
    ]
    assert page.headings[0] == 1
    assert all(after <= before + 1 for before, after in zip(page.headings, page.headings[1:], strict=False))
    assert EVIL not in page.text
    assert html.escape(note) in page.text
    return page


def policy(text: str) -> str:
    found = re.search('http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    assert found is not None
    return html.unescape(found[1])


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Figure(figsize=(1, 1)).savefig(path)


def table(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)


def status(scan: str, ok: bool, reason: str = "") -> dict[str, str]:
    outputs = '{"figure": "scans/figures/p.png"}' if ok else "{}"
    about = {
        "scan": scan,
        "participant": scan,
        "session": "",
        "modality": "T1w",
        "group": "CN",
        "age": "50",
        "sex": "F",
    }
    logged = "" if ok else "logs/bad.log"
    verdict = {"ok": str(ok).lower(), "stage": "" if ok else "ingest", "reason": reason, "log": logged, "sha256": "0"}
    return about | {"site": "", "brain_volume_ml": "1500" if ok else ""} | verdict | {"outputs": outputs}


@pytest.fixture
def scan_pages(tmp_path: Path) -> Path:
    rows = [status("good", True), status("bad", False, f"scan.nii.gz: {EVIL} is no scan")]
    for stage in ("ingest", "preprocess"):
        table(tmp_path / stage / "status.tsv", rows)
    (tmp_path / "ingest" / "logs").mkdir()
    (tmp_path / "ingest" / "logs" / "bad.log").write_text(f"EOFError: {EVIL}")
    picture(tmp_path / "preprocess" / "scans" / "figures" / "p.png")
    out = tmp_path / "report" / "scans" / "test-anat-0001"
    write_scan_pages(tmp_path / "ingest", tmp_path / "preprocess", PreprocessOptions(), COHORT, out)
    return out


def test_every_scan_has_a_page_and_a_failed_one_says_why(scan_pages: Path) -> None:
    assert len(check(scan_pages / "good.html").images) == 1
    bad = check(scan_pages / "bad.html")
    assert "&lt;script&gt;alert(1)&lt;/script&gt; is no scan" in bad.text
    assert "EOFError: &lt;script&gt;" in bad.text


def test_what_ingest_said_of_a_scan_stays_where_another_failed(tmp_path: Path) -> None:
    affine = "sform; the qform differs by up to 22 mm"
    opened = [status("good", True) | {"affine": affine}, status("bad", False, "no such file") | {"affine": ""}]
    table(tmp_path / "ingest" / "status.tsv", opened)
    table(tmp_path / "preprocess" / "status.tsv", [status("good", True) | {"affine": ""}, opened[1]])
    out = tmp_path / "report" / "scans" / "test-anat-0001"
    write_scan_pages(tmp_path / "ingest", tmp_path / "preprocess", PreprocessOptions(), COHORT, out)
    assert affine in check(out / "good.html").text


def test_page_of_a_scan_that_left_the_chunk_is_removed(tmp_path: Path, scan_pages: Path) -> None:
    for stage in ("ingest", "preprocess"):
        table(tmp_path / stage / "status.tsv", [status("bad", False, "no such file")])
    write_scan_pages(tmp_path / "ingest", tmp_path / "preprocess", PreprocessOptions(), COHORT, scan_pages)
    assert sorted(path.name for path in scan_pages.iterdir()) == ["bad.html", "scans.tsv"]


def test_missing_figure_is_named_in_its_place(tmp_path: Path, scan_pages: Path) -> None:
    (tmp_path / "preprocess" / "scans" / "figures" / "p.png").write_bytes(b"no picture")
    write_scan_pages(tmp_path / "ingest", tmp_path / "preprocess", PreprocessOptions(), COHORT, scan_pages)
    page = check(scan_pages / "good.html")
    assert not page.images
    assert "p.png: not a readable image" in page.text


def metric(method: str, value: float | None, role: Role = "result", **about: Any) -> dict[str, Any]:
    ends = {} if value is None else {"low": value - 0.1, "high": value + 0.1}
    values: dict[str, Any] = {"name": "pixel AP", "direction": "higher", "people": 4, "images": 12} | ends | about
    return asdict(Metric(value=value, method=method, role=role, **values))


@pytest.fixture
def recipe_page(tmp_path: Path) -> Path:
    evaluation, diffusion = tmp_path / "anomaly" / "evaluation", tmp_path / "anomaly" / "diffusion"
    picture(evaluation / "examples.png")
    picture(diffusion / "loss.png")
    against = metric("diffusion", -0.4, against="intensity")
    write_json(evaluation / "metrics.json", [metric("diffusion", 0.5), metric("intensity", 0.6, "floor"), against])
    write_json(
        diffusion / "model.json",
        {"steps": 10, "train_people": 5, "train_images": 50, "train_scans": 5, "best_step": 10, "brain_outside": 0.198},
    )
    out = tmp_path / "report" / "anomaly.html"
    recipe = RecipeOptions.model_validate({"task": "anomaly"})
    write_recipe_page("anomaly", recipe, COHORT, {"evaluation": evaluation, "diffusion": diffusion}, out)
    return out


def test_recipe_page_puts_the_baseline_beside_the_model(recipe_page: Path) -> None:
    page = check(recipe_page)
    assert "leave out 19.8% of the brain" in page.text
    assert "0.500" in page.text
    assert "0.600" in page.text
    assert '<span class="quiet">floor:</span> intensity' in page.text
    differences = page.text[page.text.index("Against what it has to beat") :]
    row = differences[differences.index("<tbody>") : differences.index("</tbody>")]
    assert "-0.500 to -0.300" in row
    assert "<td>worse</td>" in row
    assert page.text.index(">Pictures</h2>") < page.text.index(">Results</h2>"), "pictures first"
    assert CAPTIONS["examples"][0] in page.text


def test_what_the_same_reaches_from_nothing_stands_beside_what_was_started(tmp_path: Path) -> None:
    for name, value in (("mine", 0.7), ("alone", 0.95)):
        about: dict[str, Any] = {"name": "FID", "direction": "lower"}
        rows = [metric("diffusion", value, **about), metric("diffusion", value, "checkpoint", step=2, **about)]
        write_json(tmp_path / name / "metrics.json", rows)
    recipe, out = RecipeOptions.model_validate({"task": "generation"}), tmp_path / "generation.html"
    write_recipe_page("mine", recipe, COHORT, {"evaluation": tmp_path / "mine"}, out, from_nothing=tmp_path / "alone")
    text = re.sub(r"\s+", " ", check(out).text.split("<tbody>")[1])
    assert "the same from nothing, as many steps" in text
    assert "0.950" in text
    assert read_card(out)["value"] == "0.700"


@pytest.mark.parametrize(("count", "folder", "name"), [(0, "regression", "regression"), (4, "diffusion", "denoiser")])
def test_what_the_result_comes_from_is_cautioned_of_and_draws_are_named_only_where_there_are(
    count: int, folder: str, name: str, tmp_path: Path
) -> None:
    about = {"train_people": 5, "train_images": 50, "train_scans": 5}
    write_json(tmp_path / folder / "model.json", about | {"steps": 10, "best_step": 10})
    write_json(tmp_path / "evaluation" / "metrics.json", [metric(name, 20.0, name="PSNR")])
    recipe = RecipeOptions.model_validate(
        {"task": "translation", "data": {"modality": "dwi", "target": "noddi"}, "regression": {}}
        | {"sampling": {"count": count}}
    )
    folders = {stage: tmp_path / stage for stage in (folder, "evaluation")}
    write_recipe_page("translation", recipe, COHORT, folders, tmp_path / "page.html")
    text = re.sub(r"\s+", " ", check(tmp_path / "page.html").text)
    assert f"The {name} was trained for 10 steps only." in text
    for said in ("mean of several draws", "one draw has", "for one draw more"):
        assert (said in text) == (count > 0), said


def test_floor_stands_beside_the_finished_model_and_checkpoints_come_after(tmp_path: Path) -> None:
    about = {"name": "FID", "split": "held-out", "direction": "lower"}
    floor = metric("half against half", 0.2, "floor", **about)
    steps = [metric("diffusion", value, "checkpoint", step=step, **about) for step, value in ((2, 0.9), (4, 0.7))]
    write_json(tmp_path / "evaluation" / "metrics.json", [*steps, floor, metric("diffusion", 0.7, **about)])
    out = tmp_path / "generation.html"
    recipe = RecipeOptions.model_validate({"task": "generation"})
    write_recipe_page("generation", recipe, COHORT, {"evaluation": tmp_path / "evaluation"}, out)
    text = re.sub(r"\s+", " ", check(out).text.split("<tbody>")[1])
    assert text.index(">diffusion <") < text.index("</span> half against half") < text.index(">step 2 <")
    assert text.count('scope="rowgroup"') == 1, "one axis for the model and its floor"
    card = read_card(out)
    assert card["value"] == "0.700"
    assert card["baselines"] == ["floor, half against half: 0.200"]
    curve = 'aria-label="FID of samples to held-out people against the training step'
    assert curve in check(out).text
    write_json(tmp_path / "evaluation" / "metrics.json", [steps[1], floor, metric("diffusion", 0.7, **about)])
    write_recipe_page("generation", recipe, COHORT, {"evaluation": tmp_path / "evaluation"}, out)
    assert curve not in check(out).text, "a single checkpoint is no curve"


@pytest.mark.parametrize(("ceiling", "crossed"), [(20.0, True), (30.0, False)])
def test_ceiling_below_its_floor_is_said(tmp_path: Path, ceiling: float, crossed: bool) -> None:
    values: list[tuple[str, float, Role]] = [
        ("diffusion", 19.0, "result"), ("linear fit", 25.0, "floor"), ("target autoencoder", ceiling, "ceiling"),
    ]  # fmt: skip
    rows = [metric(method, value, role, name="PSNR", part="ICVF") for method, value, role in values]
    write_json(tmp_path / "evaluation" / "metrics.json", rows)
    recipe = RecipeOptions.model_validate(
        {"task": "translation", "data": {"modality": "dwi", "target": "noddi"}, "autoencoder": {"kind": "vqgan"}}
    )
    write_recipe_page("translation", recipe, COHORT, {"evaluation": tmp_path / "evaluation"}, tmp_path / "page.html")
    assert ("For PSNR, ICVF the ceiling is below the floor" in check(tmp_path / "page.html").text) == crossed


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("diffusion/model.json", '{"steps": 10', r"diffusion/model\.json: is damaged .*delete the folder .*diffusion"),
        ("diffusion/model.json", '{"steps": 10}', r"diffusion/model\.json: is damaged \(lacks best_step, train_images"),
        ("evaluation/metrics.json", "[1]", r"evaluation/metrics\.json: is damaged"),
        ("embedding/embedding.tsv", "scan\tl_x\tl_y\na\t1\t2\nb\t\t3\n", r"embedding\.tsv: line 3 \(b\): l_x is blank"),
    ],
)
def test_a_damaged_file_of_a_stage_is_named_with_what_to_do(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = tmp_path / name
    path.parent.mkdir()
    path.write_text(text)
    recipe = RecipeOptions.model_validate({"task": "synthesis"})
    with pytest.raises(UserError, match=said):
        write_recipe_page("one", recipe, COHORT, {path.parent.name: path.parent}, tmp_path / "one.html")
    assert not (tmp_path / "one.html").exists()


def test_number_that_could_not_be_computed_is_explained_once(tmp_path: Path) -> None:
    rows = [metric("diffusion", None, note="no lesion mask", group=group) for group in ("all", "CN", "AD")]
    write_json(tmp_path / "evaluation" / "metrics.json", rows)
    out = tmp_path / "anomaly.html"
    recipe = RecipeOptions.model_validate({"task": "anomaly"})
    write_recipe_page("anomaly", recipe, COHORT, {"evaluation": tmp_path / "evaluation"}, out)
    page = check(out)
    assert page.text.count("<li>pixel AP: no lesion mask</li>") == 1
    assert read_card(out)["verdict"] == "No verdict: pixel AP: no lesion mask."


def test_index_links_to_pages_that_exist(tmp_path: Path, scan_pages: Path, recipe_page: Path) -> None:
    person = {"scan": "good", "participant": "good", "session": "", "modality": "T1w", "split": "test", "chunk": "c"}
    person |= {
        "group": "CN",
        "age": "50",
        "sex": "F",
        "site": "",
        "included": "true",
        "stage": "",
        "reason": "",
        "sha256": "0",
    }
    other = person | {"scan": "bad", "participant": "bad", "included": "false", "stage": "ingest", "reason": EVIL}
    table(tmp_path / "test-anat.tsv", [person, other])
    balance = [{"split": "test", "group": "CN", "people": 1, "sex": {"F": 1}, "age_mean": 50.0, "age_sd": None}]
    checks = {"scans": 2, "people": 2, "included": 1, "duplicates": [], "people_in_two_splits": [], "balance": balance}
    write_json(tmp_path / "checks.json", checks | {"excluded_rows": [], "sheet_problems": [EVIL]})
    out = tmp_path / "report" / "index.html"
    command = f"snakemake all --config x={EVIL}"
    write_text(tmp_path / COMMAND, f"{command}\n")
    write_index(
        COHORT,
        SplitOptions(),
        PreprocessOptions(),
        [tmp_path / "test-anat.tsv"],
        tmp_path / "checks.json",
        [scan_pages / "scans.tsv"],
        {"anomaly": recipe_page},
        out,
    )
    page = check(out)
    assert f"<code>{html.escape(command)}</code>" in page.text
    links = [reference for reference in page.references if reference.endswith(".html")]
    assert {"anomaly.html", "scans/test-anat-0001/bad.html"} <= set(links)
    assert all((out.parent / link).is_file() for link in links)
    rows = unpacked(page.text, "scans-table")
    assert [row["page"] for row in rows] == ["scans/test-anat-0001/good.html", "scans/test-anat-0001/bad.html"]
    assert [row["verdict"] for row in rows] == ["included", "excluded"]
    assert [row["reason"] for row in rows] == ["", EVIL]
    assert rows[0]["brain_volume_ml"] == "1500"


def test_policy_names_the_pages_own_style_and_script_and_nothing_else(tmp_path: Path) -> None:
    index = make_report(tmp_path)
    for page in (index, index.parent / "synthesis.html", *index.parent.glob("scans/*/*.html")):
        text = check(page, note=made_report.COHORT.note).text
        inline = re.findall("<(?:style|script)>(.*?)</(?:style|script)>", text, re.DOTALL)
        hashes = {f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in inline}
        assert inline
        assert set(re.findall("'sha256-[^']+'", policy(text))) == hashes
        assert policy(text).startswith("default-src 'none'; img-src data: blob:;")
        assert "unsafe" not in policy(text)
        tags = re.sub('"[^"]*"', '""', re.sub("(?s)<script.*?</script>", "", text))
        assert not re.findall(r"<[^>]+ (?:style|on[a-z]+)=", tags)


def test_slider_over_more_values_than_a_picture_holds_says_how_many_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "synthesis" / "counterfactuals"
    (folder / "site").mkdir(parents=True)
    np.save(folder / "site" / "scans.npy", np.zeros((1, 1, 9, 8), np.float32))
    np.save(folder / "site" / "changed.npy", np.zeros((1, 150, 1, 9, 8), np.float32))
    write_json(folder / "counterfactuals.json", {"site": [f"site {n}" for n in range(150)]})
    (film,) = films_of({"counterfactuals": folder})
    assert (film.labels[0], len(film.labels), film.left_out) == ("as scanned", 51, 100)


def test_slider_shows_volumes_in_three_planes(tmp_path: Path) -> None:
    folder = tmp_path / "synthesis" / "counterfactuals"
    (folder / "age").mkdir(parents=True)
    np.save(folder / "age" / "scans.npy", np.full((5, 1, 8, 9, 8), 0.5, np.float32))
    np.save(folder / "age" / "changed.npy", np.zeros((5, 2, 1, 8, 9, 8), np.float32))
    write_json(folder / "counterfactuals.json", {"age": [30.0, 70.0]})
    (film,) = films_of({"counterfactuals": folder})
    picture = Image.open(io.BytesIO(base64.b64decode(film.picture.source.partition(",")[2])))
    assert picture.size == (2 * 3 * TILE, 3 * TILE), "two people abreast, three frames below each other"
    assert "2 held-out people" in film.picture.alt


def test_every_line_plot_has_its_table(tmp_path: Path) -> None:
    index = make_report(tmp_path)
    for name in ("anomaly", "synthesis", "generation"):
        text = (index.parent / f"{name}.html").read_text()
        others = sum(text.count(tag) for tag in ("<figure>", '<figure class="wide">', '<figure class="film"'))
        assert text.count('<figure class="plot">') == text.count("<figcaption>") - others
        for figure in re.findall('<figure class="plot">.*?</figure>', text, re.DOTALL):
            assert 'download="' in figure
            assert re.search('role="img" aria-label="[^"]{20,}"', figure)
    anomaly = (index.parent / "anomaly.html").read_text()
    assert 'download="evaluation_examples.tsv"' in anomaly, "the numbers of the people in the picture"
    assert 'download="diffusion_strip.tsv"' not in anomaly, "2,000 rows are a file among the figures"


def test_large_pictures_are_made_small(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1600, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    shown = load_picture(tmp_path / "noise.png", alt="noise")
    data = base64.b64decode(shown.source.removeprefix("data:image/webp;base64,"))
    assert len(data) <= PICTURE_LIMIT
    frames = [Image.fromarray(noise[:80, n : n + 80]) for n in range(3)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:], duration=50)
    moving = load_picture(tmp_path / "moving.gif", alt="moving")
    with Image.open(io.BytesIO(base64.b64decode(moving.source.partition(",")[2]))) as image:
        assert image.n_frames == 3
    assert moving.still.startswith("data:image/webp")


def test_pictures_have_one_page_a_chunk_and_a_line_in_the_index(tmp_path: Path, recipe_page: Path) -> None:
    rows = []
    for n in range(700):
        row = status(f"p{n}", n % 100 != 7 and n < 40, "" if n < 40 else f"p{n}.png: {EVIL}")
        log = {"log": "" if row["ok"] == "true" else "logs/tracebacks.log", "outputs": "{}", "slices": "2"}
        rows.append(row | log | {"modality": "image", "group": "cat" if n % 2 else "dog"})
    for stage in ("ingest", "preprocess"):
        table(tmp_path / stage / "status.tsv", rows)
    (tmp_path / "ingest" / "logs").mkdir()
    (tmp_path / "ingest" / "logs" / "tracebacks.log").write_text(f"p7\nEOFError: {EVIL}")
    picture(tmp_path / "preprocess" / "figures" / "pictures.png")
    out = tmp_path / "report" / "scans" / "test-image-0001"
    write_scan_pages(tmp_path / "ingest", tmp_path / "preprocess", PreprocessOptions(), COHORT, out)
    assert sorted(path.name for path in out.iterdir()) == ["pictures.html", "scans.tsv"]
    page = check(out / "pictures.html")
    assert "700 rows of the sheet with 1,400 pictures: 39 passed, 661 excluded" in page.text
    assert page.text.count("EOFError: &lt;script&gt;") == 1
    assert page.text.count("&lt;/script&gt;") < 600
    assert "And 161 more" in page.text
    index = tmp_path / "report" / "index.html"
    people = [row | {"split": "test", "included": row["ok"]} for row in rows]
    table(tmp_path / "test-image.tsv", people)
    checks = {"duplicates": [], "people_in_two_splits": [], "balance": [], "excluded_rows": [], "sheet_problems": []}
    write_json(tmp_path / "checks.json", checks)
    write_index(
        COHORT,
        SplitOptions(),
        PreprocessOptions(),
        [tmp_path / "test-image.tsv"],
        tmp_path / "checks.json",
        [out / "scans.tsv"],
        {"anomaly": recipe_page},
        index,
    )
    page = check(index)
    links = {reference for reference in page.references if reference.endswith(".html")}
    assert links == {"anomaly.html", "scans/test-image-0001/pictures.html"}
    assert "p38<" not in page.text, "no line a picture that passed"


def test_every_picture_of_a_chunk_has_a_row_and_a_tile(tmp_path: Path) -> None:
    rows = make_pictures(tmp_path, 30)
    out = tmp_path / "report" / "scans" / "test-image-0001"
    write_scan_pages(tmp_path / "ingest", tmp_path / "preprocess", PreprocessOptions(), COHORT, out)
    page = check(out / "pictures.html")
    found = unpacked(page.text, "pictures-table")
    assert [row["scan"] for row in found] == [row["scan"] for row in rows]
    assert [row["tile"] for row in found][:9] == ["0", "1", "2", "3", "4", "5", "6", "", "7"], "one could not be read"
    assert found[7]["reason"] == f"p7.png: {made_report.EVIL}"
    sheet = re.search('<script type="text/plain" id="sheet-0">data:image/webp;base64,(.*?)</script>', page.text)
    assert sheet
    with Image.open(io.BytesIO(base64.b64decode(sheet[1]))) as image:
        assert image.size == (25 * LARGE, 2 * LARGE)
        shades = [np.asarray(image)[LARGE // 2, LARGE * n + LARGE // 2, 0] for n in (0, 6, 7)]
    assert shades == pytest.approx([0, 48, 64], abs=6), "tiles in the order of the rows that were read"


def test_every_picture_the_library_draws_has_a_caption(repository: Path) -> None:
    code = "".join(
        path.read_text()
        for package in ("inference", "training")
        for path in (repository / "pipeline_lib" / package).glob("*.py")
    )
    drawn = set(re.findall(r'"([a-z_]+)\.(?:png|gif)"', code))
    figures = (repository / "pipeline_lib" / "report" / "figures.py").read_text()
    drawn |= set(re.findall(r'yield "([a-z_]+)"', figures))
    assert {"examples", "nearest", "loss"} <= drawn
    assert drawn <= set(CAPTIONS)
