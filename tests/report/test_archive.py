"""The folder that Snakemake's report takes whole: every page, and in place of those that are too many a line."""

from __future__ import annotations

from pathlib import Path

from pipeline_lib.report.archive import write_archive


def made(folder: Path) -> Path:
    report = folder / "report"
    for name in ("index.html", "anomaly.html", "live.html", "niivue.umd.js", "cohort.js", "stages.json"):
        report.mkdir(exist_ok=True)
        (report / name).write_text(name)
    for chunk in ("train-anat-0001", "validation-anat-0001", "test-anat-0001"):
        (report / "scans" / chunk).mkdir(parents=True)
        for scan in "ab":
            (report / "scans" / chunk / f"{scan}.html").write_text(f"{chunk} {scan}".ljust(1000))
    return report


def test_pages_keep_their_places(tmp_path: Path) -> None:
    report = made(tmp_path)
    write_archive(report, report / "archive")
    files = {path.relative_to(report / "archive").as_posix() for path in (report / "archive").rglob("*.*")}
    beside = {"index.html", "anomaly.html", "niivue.umd.js", "cohort.js"}
    pages = {path.relative_to(report).as_posix() for path in (report / "scans").rglob("*.html")}
    assert files == beside | pages
    for name in beside | pages:
        assert (report / "archive" / name).read_text() == (report / name).read_text()


def test_pages_beyond_the_limit_are_named_those_of_training_first(tmp_path: Path) -> None:
    report = made(tmp_path)
    write_archive(report, report / "archive", most=3000)
    kept = {
        path.relative_to(report / "archive" / "scans").as_posix()
        for path in (report / "archive").rglob("scans/*/*.html")
        if "not in the archive" not in path.read_text()
    }
    assert kept == {"test-anat-0001/a.html", "test-anat-0001/b.html", "validation-anat-0001/a.html"}
    told = (report / "archive" / "scans" / "train-anat-0001" / "a.html").read_text()
    assert "report/scans/train-anat-0001" in told
    assert (report / "scans" / "train-anat-0001" / "a.html").read_text().startswith("train-anat-0001 a"), "untouched"
