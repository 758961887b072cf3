"""Several contrasts in one model: planned from the sheet to the evaluation, beside a recipe of one, which changes nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from workspace import Workspace

pytestmark = pytest.mark.dag


def test_two_contrasts_are_planned_for_one_model(fresh_workspace: Workspace, tmp_path: Path) -> None:
    rows = [
        f"p{n}\t{modality}\t{n}_{modality}.nii.gz\tCN\t{split}"
        for n, split in enumerate(("train", "train", "validation", "test"))
        for modality in ("T1w", "FLAIR")
    ]
    (tmp_path / "subjects.tsv").write_text("\n".join(["participant\tmodality\tpath\tgroup\tsplit", *rows]) + "\n")
    config = {
        "cohort": {
            "subjects": str(tmp_path / "subjects.tsv"),
            "splits": str(tmp_path / "splits.tsv"),
            "results": str(tmp_path / "results"),
            "root": str(tmp_path),
        },
        "recipes": {
            "both": {
                "task": "anomaly",
                "data": {"modality": ["T1w", "FLAIR"], "size": [32, 32]},
                "denoiser": {"condition": ["modality"]},
            },
            "one": {"task": "anomaly", "data": {"size": [32, 32]}},
        },
    }
    (tmp_path / "both.yaml").write_text(yaml.safe_dump(config))
    done = fresh_workspace.snakemake("-n", "-p", "evaluated", config=str(tmp_path / "both.yaml"))
    table = done.stdout.split("Job stats:")[1].split("total")[0]
    counts = {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, flags=re.MULTILINE)}
    assert counts["dataset"] == 6, "three chunks for each of two recipes"
    assert counts["train_denoiser"] == counts["evaluate_anomaly"] == 2
    assert counts["preprocess"] == 3, "a chunk holds both scans of a person"
    assert '"modality": "FLAIR+T1w"' in done.stdout
    assert '"modality": "T1w"' in done.stdout
