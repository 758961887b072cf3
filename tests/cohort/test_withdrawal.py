"""A person who withdraws is found wherever they are, removed, and stays out."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline_lib.cohort.ledger import Ledger, Placement, read_ledger, write_ledger
from pipeline_lib.cohort.placement import place
from pipeline_lib.cohort.sheet import Scan, read_sheet, write_sheet
from pipeline_lib.cohort.withdrawal import carry_out, find_withdrawal, without_withdrawn
from pipeline_lib.config.schema import SplitOptions
from pipeline_lib.errors import UserError
from pipeline_lib.files import pseudonym, write_json, write_table

SHA = "a" * 64
"""Of the scan of person 1."""
CHUNK = "train-anat-0001"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Person 1, also called 1b; person 11, whose name begins alike; both in one chunk, 11's brother in another."""
    monkeypatch.chdir(tmp_path)
    scans = [Scan("1", "", "T1w", "one.nii"), Scan("1b", "", "T1w", "b.nii", alias="1"), Scan("11", "", "T1w", "x.nii")]
    write_sheet(tmp_path / "s.tsv", scans)
    rows = [Placement(f"sub-{who}_T1w", who, "train", CHUNK, "hash") for who in ("1", "1b", "11")]
    rows.append(Placement("sub-12_T1w", "12", "test", "test-anat-0001", "hash"))
    write_ledger(tmp_path / "l.tsv", Ledger(tuple(rows)))
    write(tmp_path / "c.yaml", "cohort: {subjects: s.tsv, splits: l.tsv, results: results}\n")
    results, state = tmp_path / "results", tmp_path / "state"
    for stage in ("ingest", "preprocess"):
        status = [
            {"scan": f"sub-{who}_T1w", "sha256": sha, "source": path}
            for who, sha, path in (("1", SHA, "one.nii"), ("11", "b" * 64, "x.nii"))
        ]
        write_table(results / stage / CHUNK / "status.tsv", ("scan", "sha256", "source"), status)
        write(results / stage / "test-anat-0001" / "status.tsv", "scan\nsub-12_T1w\n")
        write_json(state / "scans" / stage / "code" / "key1" / "result.json", {})
        write(state / "scans" / stage / "code" / "key1" / "sub-1_T1w.nii.gz", "head")
        write_json(state / "scans" / stage / "code" / "failed" / "result.json", {"reason": "one.nii: truncated"})
        write_json(state / "scans" / stage / "code" / "key11" / "result.json", {})
        write(state / "scans" / stage / "code" / "key11" / "sub-11_T1w.nii.gz", "head")
    write(state / "0123456789abcdef" / "checkpoint.pt", "weights")
    for recipe, person in (("knows", "1"), ("innocent", "12")):
        write_json(
            results / recipe / "diffusion" / "model.json", {"people": [pseudonym("person", person)], "scans": []}
        )
        write(results / recipe / "diffusion" / "provenance.json", "{}")
        write(results / recipe / "dataset" / CHUNK / "data.npy", "voxels")
    write_json(results / "shared" / "model.json", {"people": [], "scans": [pseudonym("scan", SHA)]})
    write(results / "knows" / "evaluation" / "scores.tsv", "scan\nsub-1_T1w\n")
    write(results / "knows" / "evaluation" / "provenance.json", "{}")
    write(results / "innocent" / "evaluation" / "scores.tsv", "scan\nsub-11_T1w\n")
    for recipe, person in (("by_id", "1b"), ("of_others", "11")):  # a count of 1 is nobody's name
        write(results / recipe / "evaluation" / "per_subject.tsv", f"participant\timages\n{person}\t1\n")
        write(results / recipe / "evaluation" / "examples.npz", "pictures of the people by their ids")
        write(results / recipe / "evaluation" / "provenance.json", "{}")
        write(results / "report" / f"{recipe}.html", "their pictures")
        write_json(results / "report" / f"{recipe}.provenance.json", {"inputs": [str(results / recipe / "evaluation")]})
    write(results / "cohort" / "train-anat.tsv", "scan\nsub-1_T1w\n")
    write(results / "cohort" / "train-anat.provenance.json", "{}")
    write(results / "logs" / "ingest" / "a.log", "sub-1b_T1w excluded")
    write(results / "report" / "index.html", f"<p>{SHA}</p>")
    return tmp_path


def left(project: Path) -> set[str]:
    return {
        str(path.relative_to(project))
        for top in ("results", "state")
        for path in (project / top).rglob("*")
        if path.is_file()
    }


def test_nothing_of_them_is_found_by_name_or_hash_and_others_keep_what_is_theirs(project: Path) -> None:
    found = find_withdrawal(
        "sub-1", project / "s.tsv", read_ledger(project / "l.tsv"), project / "results", project / "state"
    )
    assert found.ids == ("1", "1b")
    assert found.rows == (2, 3)
    assert [path.parent.name for path in found.models] == ["knows"]
    carry_out(found, project / "s.tsv", project / "l.tsv")
    kept = left(project)
    assert kept == {
        *(f"results/{stage}/test-anat-0001/status.tsv" for stage in ("ingest", "preprocess")),
        *(
            f"state/scans/{stage}/code/key11/{name}"
            for stage in ("ingest", "preprocess")
            for name in ("result.json", "sub-11_T1w.nii.gz")
        ),
        "results/innocent/diffusion/model.json",
        "results/innocent/diffusion/provenance.json",
        "results/innocent/evaluation/scores.tsv",
        *(f"results/of_others/evaluation/{name}" for name in ("per_subject.tsv", "examples.npz", "provenance.json")),
        *(f"results/report/of_others.{end}" for end in ("html", "provenance.json")),
    }
    assert [scan.participant for scan in read_sheet(project / "s.tsv").scans] == ["11"]
    ledger = read_ledger(project / "l.tsv")
    assert [row.participant for row in ledger.rows] == ["11", "12"]
    assert ledger.withdrawn == {pseudonym("person", "1"), pseudonym("person", "1b")}
    assert not any(word in (project / "l.tsv").read_text() for word in ("sub-1_", "sub-1b_"))


def test_rows_that_come_back_are_left_out_and_others_are_placed(project: Path) -> None:
    found = find_withdrawal(
        "1", project / "s.tsv", read_ledger(project / "l.tsv"), project / "results", project / "state"
    )
    carry_out(found, project / "s.tsv", project / "l.tsv")
    write_sheet(project / "s.tsv", [Scan(who, "", "T1w", "x.nii") for who in ("1", "11", "13")])
    ledger = read_ledger(project / "l.tsv")
    sheet = without_withdrawn(read_sheet(project / "s.tsv"), ledger)
    assert [scan.participant for scan in sheet.scans] == ["11", "13"]
    assert "this person withdrew; remove the row" in str(sheet.excluded[0][1])
    placed = place(sheet, ledger, SplitOptions(), 50)
    assert {row.participant for row in placed.rows} == {"11", "12", "13"}
    write_ledger(project / "l.tsv", placed)
    assert read_ledger(project / "l.tsv") == placed, "the hash stays when the ledger grows"
    with pytest.raises(UserError, match="1b: neither .* withdrawn before"):
        find_withdrawal("1b", project / "s.tsv", ledger, project / "results")


def test_the_command_lists_and_removes_only_when_told(project: Path, repository: Path) -> None:
    words = [sys.executable, "-m", "pipeline_lib.cohort", "withdraw", "1", "--configfile", "c.yaml"]
    environment = {"PYTHONPATH": str(repository)}
    before = left(project)
    listed = subprocess.run(words, cwd=project, env=environment, capture_output=True, text=True)
    assert listed.returncode == 0, listed.stderr
    assert "results/knows/diffusion (a model that learned from them)" in listed.stdout
    assert re.search(r"; (1 row|([02-9]|\d\d+) rows) of ", listed.stdout)
    assert left(project) == before
    subprocess.run([*words, "--yes"], cwd=project, env=environment, check=True, capture_output=True)
    assert len(left(project)) == 14
    nobody = subprocess.run([*words[:4], "", *words[5:]], cwd=project, env=environment, capture_output=True, text=True)
    assert "is no id of a participant" in nobody.stderr
    again = subprocess.run(words, cwd=project, env=environment, capture_output=True, text=True)
    assert again.returncode == 1
    assert again.stderr.count("\n") == 1


def test_people_who_left_the_sheet_are_named_with_the_command(project: Path) -> None:
    from pipeline_lib.plan import Plan

    write_sheet(project / "s.tsv", [Scan(who, "", "T1w", "x.nii") for who in ("11", "12")])
    plan = Plan(json.loads('{"cohort": {"subjects": "s.tsv", "splits": "l.tsv"}}'), check_recipes=False)
    assert "2 people of l.tsv are not in the sheet any more: 1; 1b" in plan.notices()[0]
    assert "pipeline_lib.cohort withdraw 1 --configfile FILE`, with the configuration of this run" in plan.notices()[0]
