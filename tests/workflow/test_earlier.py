"""A denoiser that starts from that of another recipe of the same configuration."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from workspace import Workspace

pytestmark = pytest.mark.dag


def test_the_other_recipe_is_trained_first_and_is_an_input(fresh_workspace: Workspace, tmp_path: Path) -> None:
    rows = [f"p{n}\tT1w\t{n}.nii.gz\tCN\t{split}" for n, split in enumerate(("train", "train", "validation", "test"))]
    (tmp_path / "subjects.tsv").write_text("\n".join(["participant\tmodality\tpath\tgroup\tsplit", *rows]) + "\n")
    folder = {"subjects": "subjects.tsv", "splits": "splits.tsv", "results": "results", "root": ""}
    generation = {"task": "generation", "data": {"size": [32, 32]}}
    config = {
        "cohort": {name: str(tmp_path / place) for name, place in folder.items()},
        "recipes": {"fine": {**generation, "denoiser": {"start_from": "coarse"}}, "coarse": generation},
    }
    (tmp_path / "both.yaml").write_text(yaml.safe_dump(config))
    target = f"{tmp_path}/results/fine/diffusion/provenance.json"
    done = fresh_workspace.snakemake("-n", "-p", target, config=str(tmp_path / "both.yaml"))
    shell = re.findall(r"train_denoiser\.py|--recipe (\w+)|--earlier (\S+)", done.stdout.replace("'", ""))
    recipes, earlier = [first for first, _ in shell if first], [second for _, second in shell if second]
    assert recipes == ["coarse", "fine"]
    assert earlier == [f"{tmp_path}/results/coarse/diffusion/provenance.json"]
    assert re.search(r"^train_denoiser +2$", done.stdout, flags=re.MULTILINE)
