"""The report in a real browser: nothing in the console, what can be clicked works, and strings stay strings."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from made_report import COHORT, EVIL, make_pictures

from pipeline_lib.cohort.ratings import read_ratings
from pipeline_lib.config.schema import PreprocessOptions
from pipeline_lib.report.live import follow
from pipeline_lib.report.progress import Job, note_jobs
from pipeline_lib.report.scans import write_scan_pages

pytestmark = pytest.mark.browser

PAGES = (
    "index.html",
    "anomaly.html",
    "synthesis.html",
    "generation.html",
    "scans/train-anat-0001/sub-00001_ses-1_T1w.html",
)
WAIT = 120
"""Seconds after which what a page does counts as never happening."""


def opened(browser: Any, page: Path) -> Any:
    """A page whose scripts have done what they do at the start."""
    browser.get(page.as_uri())
    wait(
        browser,
        "return document.querySelectorAll('.explorer[hidden], .scatter[hidden]').length === 0"
        " && [...document.querySelectorAll('.viewer')].every(box => box.dataset.ready"
        " || !document.querySelector('.no-viewer').hidden)",
    )
    return browser


def wait(browser: Any, until: str) -> None:
    """Until a script returns true."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, WAIT).until(lambda driver: driver.execute_script(until))


def texts(browser: Any, selector: str) -> list[str]:
    found: list[str] = browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map(item => item.textContent.trim())", selector
    )
    return found


def column(browser: Any, name: str) -> list[str]:
    place = texts(browser, ".explorer thead th").index(name)
    return texts(browser, f".explorer tbody tr > :nth-child({place + 1})")


def set_value(browser: Any, selector: str, value: str) -> None:
    browser.execute_script(
        "const item = document.querySelector(arguments[0]); item.value = arguments[1];"
        "for (const kind of ['input', 'change']) item.dispatchEvent(new Event(kind, {bubbles: true}));",
        selector,
        value,
    )


def click(browser: Any, selector: str) -> None:
    browser.execute_script("document.querySelector(arguments[0]).click()", selector)


@pytest.mark.parametrize("page", PAGES)
def test_console_stays_empty_and_strings_stay_text(browser: Any, report: Path, page: str) -> None:
    browser.get_log("browser")
    opened(browser, report / page)
    assert browser.get_log("browser") == []
    assert not browser.execute_script("return document.querySelectorAll('img[src=x], [onerror]').length")
    assert browser.execute_script("return [...document.images].every(image => image.src.startsWith('data:image/webp'))")


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_is_wider_than_the_window(browser: Any, report: Path, page: str, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    opened(browser, report / page)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_an_inline_script_that_is_not_ours_does_not_run(browser: Any, report: Path) -> None:
    opened(browser, report / "index.html")
    ran = browser.execute_script(
        "const script = document.createElement('script'); script.textContent = 'window.ran = true';"
        "document.body.append(script); return window.ran === true"
    )
    assert not ran
    browser.get_log("browser")


def test_ten_thousand_scans_are_found_filtered_and_sorted(browser: Any, report: Path) -> None:
    assert (report / "index.html").stat().st_size < 2_000_000
    opened(browser, report / "index.html")
    assert texts(browser, ".explorer [role=status]") == ["1 to 50 of 10,001"]
    click(browser, ".explorer .next")
    assert texts(browser, ".explorer [role=status]") == ["51 to 100 of 10,001"]

    set_value(browser, ".explorer input", "sub-00123_")
    assert column(browser, "Scan") == ["sub-00123_ses-1_T1w"]
    set_value(browser, ".explorer input", "no such scan")
    assert texts(browser, ".explorer [role=status]") == ["Nothing found, 10,001 in all"]
    set_value(browser, ".explorer input", "")

    set_value(browser, "select[data-name=verdict]", "excluded")
    set_value(browser, "select[data-name=split]", "test")
    assert set(column(browser, "Verdict")) == {"excluded"}
    assert set(column(browser, "Split")) == {"test"}
    assert all("slices are empty" in reason for reason in column(browser, "Reason"))
    set_value(browser, "select[data-name=verdict]", "all")
    set_value(browser, "select[data-name=split]", "all")
    set_value(browser, "select[data-name=site]", EVIL)
    assert set(column(browser, "Site")) == {EVIL}
    set_value(browser, "select[data-name=site]", "all")

    place = texts(browser, ".explorer thead th").index("SNR") + 1
    for order in ("ascending", "descending"):
        click(browser, f".explorer thead th:nth-child({place}) button")
        values = [float(value) for value in column(browser, "SNR")]
        assert len(values) == 50
        assert values == sorted(values, reverse=order == "descending")
        assert browser.execute_script("return document.querySelector('[aria-sort]').ariaSort") == order


def test_scan_of_the_table_leads_to_its_page(browser: Any, report: Path) -> None:
    opened(browser, report / "index.html")
    set_value(browser, ".explorer input", "sub-00001_")
    click(browser, ".explorer tbody a")
    assert texts(browser, "h1") == ["sub-00001_ses-1_T1w"]


def test_embedding_is_coloured_by_any_column_and_told_by_keys(browser: Any, report: Path) -> None:
    opened(browser, report / "synthesis.html")
    assert EVIL in texts(browser, ".scatter .legend li")
    set_value(browser, ".scatter label:nth-child(2) select", "age")
    assert len(texts(browser, ".scatter .legend li")) == 5, "a scale of numbers"
    browser.execute_script(
        "document.querySelector('canvas').dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true}))"
    )
    assert texts(browser, ".scatter [role=status]")[0].startswith("scan sub-00000, participant 00000")


def test_slider_goes_through_the_values_of_a_condition(browser: Any, report: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    opened(browser, report / "synthesis.html")
    slider = browser.find_element("css selector", ".film input")
    at = "return getComputedStyle(document.querySelector('.film img')).objectPosition"
    said = []
    for _ in range(4):
        said.append((texts(browser, ".film output")[0], browser.execute_script(at)))
        slider.send_keys(Keys.ARROW_RIGHT)
    assert said == [("as scanned", "0px 0%"), ("20.5", "0px 33.3333%"), ("60", "0px 66.6667%"), (EVIL, "0px 100%")]
    wait(browser, "return document.querySelector('.film img').naturalHeight > 0")
    one, whole = browser.execute_script(
        "const i = document.querySelector('.film img'); return [i.clientWidth / i.clientHeight, i.naturalWidth / i.naturalHeight]"
    )
    assert one == pytest.approx(4 * whole, rel=0.02), "one frame is shown of four"
    rows = "return document.querySelector('.film .rows').checkVisibility()"
    assert not browser.execute_script(rows)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert browser.execute_script(rows), "on paper all frames stand below each other, and what each is"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_the_condition_that_changes_is_chosen(browser: Any, report: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    opened(browser, report / "synthesis.html")
    assert texts(browser, "select.films option") == ["age", "group"]
    visible = "return [...document.querySelectorAll('.film')].map(film => film.checkVisibility())"
    assert browser.execute_script(visible) == [True, False]
    set_value(browser, "select.films", "film-1")
    assert browser.execute_script(visible) == [False, True]
    slider = browser.find_element("css selector", "#film-1 input")
    slider.send_keys(Keys.END)
    assert texts(browser, "#film-1 output") == [EVIL]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert browser.execute_script(visible) == [True, True], "on paper all"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_methods_are_copied_with_their_references(browser: Any, report: Path) -> None:
    opened(browser, report / "generation.html")
    click(browser, ".copy[data-from=methods-text]")
    copied = browser.execute_script("return getSelection().toString()")
    assert "A denoising diffusion model (Ho et al., 2020)" in copied
    assert "Ho J, Jain A, Abbeel P. Denoising diffusion probabilistic models" in copied
    click(browser, "details:has(#bibtex) summary")
    click(browser, ".copy[data-from=bibtex]")
    assert browser.execute_script("return getSelection().toString()").startswith("@inproceedings{ho2020,")


def test_lowest_checkpoint_is_marked_and_its_table_linked(browser: Any, report: Path) -> None:
    opened(browser, report / "generation.html")
    marked = browser.execute_script("return document.querySelector('.best').previousElementSibling.textContent")
    assert marked == "samples: 0.900 at 1,500"
    links = browser.execute_script(
        "return [...document.querySelectorAll('a[download]')].map(link => [link.download, link.href])"
    )
    assert "evaluation_fid.tsv" in dict(links)
    assert dict(links)["evaluation_fid.tsv"].startswith("data:text/tab-separated-values")


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Any, report: Path, page: str, scheme: str) -> None:
    axe = Path(os.environ.get("AXE", ""))
    if not axe.is_file():
        pytest.skip("no axe-core: set AXE to its axe.min.js (npm pack axe-core), as `make test-browser` does")
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    opened(browser, report / page)
    assert faults(browser, axe) == []


def faults(browser: Any, axe: Path) -> list[tuple[str, str]]:
    """What axe-core finds serious in the page that is open."""
    browser.execute_script("document.querySelectorAll('details').forEach(item => { item.open = true })")
    browser.execute_script(axe.read_text())
    found = browser.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
    return [
        (issue["id"], issue["nodes"][0]["html"][:200])
        for issue in found["violations"]
        if issue["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_what_a_run_writes_beside_the_report(
    browser: Any, tmp_path: Path, scheme: str
) -> None:
    axe = Path(os.environ.get("AXE", ""))
    if not axe.is_file():
        pytest.skip("no axe-core: set AXE to its axe.min.js (npm pack axe-core), as `make test-browser` does")
    results = tmp_path / "results"
    note_jobs(results, [Job("ingest", "", EVIL, f"logs/ingest/{n}.log") for n in range(3)])
    for n, line in enumerate((f"ingest: done in 9.0 s: {EVIL}", "ingest: 3 scans", f"ERROR {EVIL}")):
        path = results / "logs" / "ingest" / f"{n}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"2026-01-01 10:00:00,000 INFO {line}\n")
    training = results / "logs" / "train_denoiser" / "one.log"
    training.parent.mkdir()
    step = "INFO train_denoiser one: step {0}/40, loss {1}, 0.17 s/step, 30 s left"
    training.write_text("".join(f"2026-01-01 10:00:00,000 {step.format(10 * n, 1 / n)}\n" for n in (1, 2, 3)))
    live = results / "report" / "live.html"
    follow(results, live, every=1000, once=True)
    make_pictures(tmp_path, 20)
    pictures = tmp_path / "report" / "scans" / "test-image-0001"
    write_scan_pages(tmp_path / "ingest", tmp_path / "preprocess", PreprocessOptions(), COHORT, pictures)
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    browser.get_log("browser")
    for page in (live, pictures / "pictures.html"):
        opened(browser, page)
        assert faults(browser, axe) == []
        assert not browser.execute_script("return document.querySelectorAll('img[src=x], [onerror]').length")
    assert browser.get_log("browser") == []


SCAN = "scans/train-anat-0001/sub-00001_ses-1_T1w.html"
WITHOUT_VIEWER = "scans/train-anat-0001/sub-00002_ses-1_T1w.html"


def drawn(browser: Any) -> bytes:
    """The viewer's pixels."""
    canvas = browser.find_element("css selector", ".viewer canvas")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", canvas)
    picture: bytes = canvas.screenshot_as_png
    return picture


def test_viewer_shows_the_map_over_the_scan_and_findings_lead_there(browser: Any, report: Path) -> None:
    opened(browser, report / SCAN)
    assert browser.execute_script("return document.querySelector('.no-viewer').hidden")
    legends = texts(browser, ".layers legend")
    assert legends == [
        "Scan",
        "Anomaly map, anomaly",
        *texts(browser, "select.map option")[1:],
        "Known lesion",
        "Brain mask",
    ]
    places = texts(browser, "button.place")
    assert len(places) == 2
    assert texts(browser, "[aria-label='Findings of anomaly'] td:last-child") == ["touched", "no"]
    assert texts(browser, ".viewer [role=status]")[0].startswith(f"{places[0]} mm; Anomaly map, anomaly: 0.8")
    before = drawn(browser)
    click(browser, "tr:nth-child(2) button.place")
    assert texts(browser, ".viewer [role=status]")[0].startswith(f"{places[1]} mm; Anomaly map, anomaly: 0.9")
    assert drawn(browser) != before


def test_sliders_of_the_viewer_change_what_is_drawn(browser: Any, report: Path) -> None:
    opened(browser, report / SCAN)
    shown = drawn(browser)
    set_value(browser, ".layers .threshold", "0.85")
    higher = drawn(browser)
    assert higher != shown, "the first finding is below the threshold now"
    set_value(browser, ".layers .threshold", "0.5")
    assert drawn(browser) == shown
    set_value(browser, ".layers .opacity", "0")
    assert drawn(browser) not in (shown, higher)
    assert texts(browser, ".layers output")[0] == "0%"


def test_the_map_over_the_scan_is_chosen(browser: Any, report: Path) -> None:
    opened(browser, report / SCAN)
    maps = texts(browser, "select.map option")
    assert [title for title in maps if title.startswith("Uncertainty")] == [
        f"Uncertainty of {name}, translation" for name in ("ICVF", "ODI", "ISOVF")
    ]
    shown = {drawn(browser)}
    for n, title in enumerate(maps[1:], start=2):
        set_value(browser, "select.map", f"layer-{n}")
        assert texts(browser, ".layers [data-kind=map]:not([hidden]) legend") == [title]
        assert texts(browser, ".viewer [role=status]")[0].split("; ")[1].startswith(f"{title}: ")
        shown.add(drawn(browser))
    assert len(shown) == len(maps)
    click(browser, "button.place")
    assert texts(browser, ".layers [data-kind=map]:not([hidden]) legend") == ["Anomaly map, anomaly"]


def test_arrow_keys_move_the_crosshair(browser: Any, report: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    opened(browser, report / SCAN)
    before = texts(browser, ".viewer [role=status]")[0]
    browser.find_element("css selector", ".viewer canvas").send_keys(Keys.ARROW_LEFT)
    after = texts(browser, ".viewer [role=status]")[0]
    assert int(after.split(",")[0]) < int(before.split(",")[0])


def test_only_pages_with_a_volume_load_the_viewer(browser: Any, report: Path) -> None:
    assert (report / "niivue.umd.js").stat().st_size > 2_000_000
    assert "BSD 2-Clause" in (report / "niivue.license.txt").read_text()
    loaded = "return [...document.scripts].filter(script => script.src).length"
    opened(browser, report / SCAN)
    assert browser.execute_script(loaded) == 2
    opened(browser, report / WITHOUT_VIEWER)
    assert browser.execute_script(loaded) == 1, "cohort.js, which is small"
    assert (report / "cohort.js").stat().st_size < 100_000


def turned(browser: Any, way: str) -> list[str]:
    """Titles of this page and of all that its links of one way lead to."""
    seen = texts(browser, "h1")
    while links := browser.find_elements("css selector", f"a[rel={way}]:not([hidden])"):
        browser.get(links[0].get_attribute("href"))
        seen += texts(browser, "h1")
    return seen


def test_numbers_stand_within_the_cohort_and_scans_follow_each_other_over_chunks(browser: Any, report: Path) -> None:
    opened(browser, report / SCAN)
    assert texts(browser, "thead .cohort") == ["In the cohort"]
    said = texts(browser, "td.cohort")
    place = r"(percentile \d+|below all|above all) of \d+ scans median \S+, \S+ to \S+"
    assert any(re.fullmatch(place, text) for text in said), said
    ranks = dict(zip(texts(browser, ".measured tbody th"), said, strict=True))
    assert ranks["FBER"] == "", "its value stands for none"
    assert ranks["Brain volume"].startswith("percentile 100 of"), "the highest is not above itself"
    seen, before = turned(browser, "next"), turned(browser, "prev")
    assert len({name.split("_")[0] for name in before}) > 1
    assert before[: len(seen)] == seen[::-1]


def test_a_page_that_travels_alone_says_what_it_lacks(browser: Any, report: Path, tmp_path: Path) -> None:
    alone = tmp_path / "page.html"
    alone.write_text((report / SCAN).read_text())
    opened(browser, alone)
    browser.get_log("browser")  # that the script was not found
    assert "niivue.umd.js is not in the folder of the report" in texts(browser, ".no-viewer")[0]
    assert not browser.execute_script("return document.querySelector('.viewer').checkVisibility()")
    assert browser.execute_script("return document.querySelectorAll('figure img').length") >= 7


def test_pairs_of_pictures_are_wiped_by_keys(browser: Any, report: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    opened(browser, report / SCAN)
    assert texts(browser, "#pairs ~ h3")[:3] == ["Registration", "Template", "Reconstruction, anomaly"]
    shown = "return getComputedStyle(document.querySelector('.pairwise .right')).maskImage"
    before = browser.execute_script(shown)
    assert "50%" in before
    browser.find_element("css selector", ".pairwise input").send_keys(Keys.END)
    assert browser.execute_script(shown) == before.replace("50%", "100%")
    tiles = "return getComputedStyle(document.querySelector('.pairwise .right')).maskSize"
    assert browser.execute_script(tiles).startswith("16.6667%"), "all six slices at once"


def test_ratings_are_kept_shown_in_the_index_and_exported_for_the_next_run(
    browser: Any, report: Path, downloads: Path
) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    opened(browser, report / SCAN)
    set_value(browser, ".rating input[type=text]", f"moved {EVIL}")
    assert texts(browser, ".rating [role=status]") == ["Choose a rating, too: the note is kept with it."]
    click(browser, ".rating input[value=bad]")
    assert texts(browser, ".rating [role=status]") == ["Rated. 1 scan rated in this browser."]
    opened(browser, report / WITHOUT_VIEWER)
    click(browser, ".rating input[value=good]")
    assert texts(browser, ".rating [role=status]") == ["Rated. 2 scans rated in this browser."]

    opened(browser, report / "index.html")
    set_value(browser, "select[data-name=rating]", "bad")
    assert column(browser, "Scan") == ["sub-00001_ses-1_T1w"]
    assert column(browser, "Rating") == [f"bad moved {EVIL}"]
    click(browser, ".explorer .export")
    path = downloads / "ratings.tsv"
    WebDriverWait(browser, WAIT).until(lambda _: path.is_file())
    ratings = read_ratings(path)
    assert {(rating.scan, rating.rating) for rating in ratings} == {
        ("sub-00001_ses-1_T1w", "bad"),
        ("sub-00002_ses-1_T1w", "good"),
    }
    assert ratings[0].note == f"moved {EVIL}"

    opened(browser, report / SCAN)
    assert browser.execute_script("return document.querySelector('.rating input[value=bad]').checked")
    click(browser, ".rating .clear")
    assert texts(browser, ".rating [role=status]") == ["Not rated. 1 scan rated in this browser."]
    browser.execute_script("localStorage.clear()")
    assert browser.get_log("browser") == []


def test_every_picture_is_found_by_its_group_and_by_its_address(browser: Any, tmp_path: Path) -> None:
    make_pictures(tmp_path, 120)
    out = tmp_path / "report" / "scans" / "test-image-0001"
    write_scan_pages(tmp_path / "ingest", tmp_path / "preprocess", PreprocessOptions(), COHORT, out)
    browser.get_log("browser")
    opened(browser, out / "pictures.html")
    assert texts(browser, ".explorer [role=status]") == ["1 to 50 of 120"]
    set_value(browser, "select[data-name=group]", "cat")
    assert set(column(browser, "Group")) == {"cat"}
    set_value(browser, "select[data-name=group]", "all")
    browser.execute_script("location.hash = 'p26'")
    wait(browser, "return document.querySelectorAll('.explorer tbody tr').length === 1")
    wait(browser, "return document.querySelector('canvas.tile').dataset.ready === 'true'")
    shade = "return document.querySelector('canvas.tile').getContext('2d').getImageData(40, 40, 1, 1).data[0]"
    assert browser.execute_script(shade) == pytest.approx(8 * 26, abs=6)
    assert browser.execute_script("return document.querySelector('canvas.tile').ariaLabel") == "Picture of p26"
    set_value(browser, ".explorer input", "p27")
    assert column(browser, "Reason") == [f"p27.png: {EVIL}"]
    assert browser.get_log("browser") == []
