"""Folders of pictures run through the same rules as scans."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

pytestmark = pytest.mark.dag

RECIPE = {
    "task": "generation",
    "data": {"modality": "image", "size": [16, 16], "channels": 3},
    "denoiser": {"channels": [8, 8], "attention": [False, False]},
}


def test_class_folders_of_pictures_are_split_by_person_and_packed(
    fresh_workspace, tmp_path: Path, repository: Path
) -> None:
    random = np.random.default_rng(0)
    for person in range(12):
        for slice_of in range(3):
            path = tmp_path / "pictures" / ("AD" if person % 2 else "CN") / f"p{person}_{slice_of}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(path)
    sheet = tmp_path / "subjects.tsv"
    command = [
        sys.executable,
        "-m",
        "pipeline_lib.cohort",
        "from-pictures",
        str(tmp_path / "pictures"),
        "--sheet",
        str(sheet),
    ]
    subprocess.run(command, cwd=repository, check=True, capture_output=True)
    cohort = {"subjects": str(sheet), "splits": str(tmp_path / "splits.tsv"), "root": str(tmp_path / "pictures")}
    config = tmp_path / "pictures.yaml"
    config.write_text(
        yaml.safe_dump({"cohort": cohort | {"results": str(tmp_path / "results")}, "recipes": {"pictures": RECIPE}})
    )

    folders = [
        tmp_path / "results" / "pictures" / "dataset" / f"{split}-image-0001"
        for split in ("train", "validation", "test")
    ]
    targets = [str(folder / "provenance.json") for folder in folders]
    fresh_workspace.snakemake("--cores", "2", *targets, config=str(config))

    people = []
    for folder in folders:
        index = pd.read_csv(folder / "index.tsv", sep="\t")
        images = np.load(folder / "data.npy")
        assert images.shape == (3 * index["participant"].nunique(), 3, 16, 16)
        assert set(index["group"]) == {"AD", "CN"}
        people.append(set(index["participant"]))
    assert sum(map(len, people)) == len(set.union(*people)) == 12
