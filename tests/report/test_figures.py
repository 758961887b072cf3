"""Which figures an evaluation gives follows from what it wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.evaluation.metric import VENTRICLES
from pipeline_lib.report.captions import CAPTIONS
from pipeline_lib.report.figures import data_of, figures_of


@pytest.mark.parametrize("aged", [True, False])
def test_ventricles_are_drawn_by_group_and_over_ages_where_those_were_told(aged: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "kind": ["held-out"] * 20 + ["sample"] * 20,
            "id": [f"p{n // 2}" for n in range(20)] + [f"s{n}" for n in range(20)],
            "group": ["young", "young", "old", "old"] * 10,
            "age": np.where(np.repeat([True, aged], 20), rng.uniform(20, 80, 40), np.nan),
            "adjusted": rng.uniform(1, 5, 40),
        }
    )
    rows.to_csv(tmp_path / VENTRICLES, sep="\t", index=False)
    (drawn,) = figures_of(tmp_path)
    name, figure = drawn
    assert name == "ventricles"
    assert name in CAPTIONS
    axes = figure.axes
    assert len(axes) == 1 + aged
    assert [label.get_text() for label in axes[0].get_xticklabels()] == ["old", "young"]
    points = sum(len(each.get_offsets()) for each in axes[0].collections if hasattr(each, "get_offsets"))
    assert points >= 10 + 20, "a dot a person and a dot a sample"


def test_a_table_without_a_row_is_no_table_of_a_picture(tmp_path: Path) -> None:
    (tmp_path / "per_subject.tsv").write_text("\n")
    assert data_of(tmp_path, "examples") is None
    (tmp_path / "per_subject.tsv").write_text("participant\tDice\n")
    table = data_of(tmp_path, "examples")
    assert table is not None
    assert table.empty
