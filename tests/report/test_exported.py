"""Every figure of a recipe is a file with its table beside it."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pandas as pd
from made_report import EVIL, _anomaly

from pipeline_lib.report.exported import write_figures


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
