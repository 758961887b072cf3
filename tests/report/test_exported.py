"""Every figure of a recipe is a file with its table beside it."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pandas as pd
from made_report import EVIL, _anomaly

from pipeline_lib.report.captions import CAPTIONS
from pipeline_lib.report.exported import write_figures
from pipeline_lib.report.figures import DATA


def test_plots_are_drawings_of_their_own_with_their_tables(tmp_path: Path) -> None:
    out = tmp_path / "figures"
    write_figures(_anomaly(tmp_path), out)
    found = {path.relative_to(out).as_posix() for path in out.rglob("*.*")}
    assert {
        "evaluation/examples.png", "evaluation/examples.tsv", "evaluation/precision_against_recall.svg",
        "evaluation/precision_against_recall.tsv", "diffusion/loss.svg", "diffusion/loss.tsv", "diffusion/strip.png",
    } <= found  # fmt: skip
    plots = [out / name for name in found if name.endswith(".svg")]
    assert all(plot.with_suffix(".tsv").is_file() for plot in plots)
    curves = ET.parse(out / "evaluation" / "precision_against_recall.svg").getroot()
    texts = [item.text for item in curves.iter() if item.text]
    assert any(EVIL in text for text in texts), "a string stays a string"
    assert not [item for item in curves.iter() if item.tag.endswith(("script", "image"))]
    assert len(pd.read_csv(out / "diffusion" / "loss.tsv", sep="\t")) == 2000


def test_every_picture_has_a_table_of_its_name_and_no_other(tmp_path: Path) -> None:
    evaluation = tmp_path / "translation" / "evaluation"
    evaluation.mkdir(parents=True)
    columns = {"channel": ["ICVF"] * 3, "method": "diffusion", "role": "result", "frequency": [0.1, 0.2, 0.3]}
    pd.DataFrame(columns | {"decibels": [0.0, -1.0, -2.0]}).to_csv(evaluation / "spectrum.tsv", sep="\t", index=False)
    out = tmp_path / "figures"
    write_figures(_anomaly(tmp_path) | {"translation": evaluation}, out)
    files = list(out.rglob("*.*"))
    assert (out / "translation" / "spectrum.png").is_file()
    assert [path for path in files if not path.with_suffix(".tsv").is_file()] == []
    assert {path.suffix for path in files} == {".png", ".svg", ".tsv"}
    assert {*CAPTIONS} == {*DATA, "counterfactuals", "nearest", "embedding", "regions", "spectrum", "ventricles"}, (
        "a picture without a table"
    )
