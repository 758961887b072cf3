"""The folder that Snakemake's report takes whole: every page, and in place of those that are too many a line."""

from __future__ import annotations

from pathlib import Path

from pipeline_lib.report.archive import write_archive

BESIDE = {"index.html", "anomaly.html", "niivue.umd.js", "niivue.license.txt", "cohort.js"}
CHUNKS = ("train-anat-0001", "validation-anat-0001", "test-anat-0001")


def made(folder: Path) -> Path:
    report = folder / "report"
    for name in (*BESIDE, "live.html", "stages.json", "withdrawn.html"):
        report.mkdir(exist_ok=True)
        (report / name).write_text(name)
    for chunk in (*CHUNKS, "train-anat-0002"):
        (report / "scans" / chunk).mkdir(parents=True)
        for scan in "ab":
            (report / "scans" / chunk / f"{scan}.html").write_text(f"{chunk} {scan}".ljust(1000))
    return report


def archived(report: Path, **most: int) -> None:
    """What a run with one recipe and three chunks takes: those of an earlier run lie there still."""
    scans = [report / "scans" / chunk for chunk in CHUNKS]
    write_archive(report / "index.html", [report / "anomaly.html"], scans, report / "archive", **most)


def test_pages_of_the_run_and_no_others_keep_their_places(tmp_path: Path) -> None:
    report = made(tmp_path)
    archived(report)
    files = {path.relative_to(report / "archive").as_posix() for path in (report / "archive").rglob("*.*")}
    pages = {f"scans/{chunk}/{scan}.html" for chunk in CHUNKS for scan in "ab"}
    assert files == BESIDE | pages
    for name in BESIDE | pages:
        assert (report / "archive" / name).read_text() == (report / name).read_text()


def test_pages_beyond_the_limit_are_named_those_of_training_first(tmp_path: Path) -> None:
    report = made(tmp_path)
    archived(report, most=3000)
    kept = {
        path.relative_to(report / "archive" / "scans").as_posix()
        for path in (report / "archive").rglob("scans/*/*.html")
        if "not in the archive" not in path.read_text()
    }
    assert kept == {"test-anat-0001/a.html", "test-anat-0001/b.html", "validation-anat-0001/a.html"}
    told = (report / "archive" / "scans" / "train-anat-0001" / "a.html").read_text()
    assert "report/scans/train-anat-0001" in told
    assert (report / "scans" / "train-anat-0001" / "a.html").read_text().startswith("train-anat-0001 a"), "untouched"
