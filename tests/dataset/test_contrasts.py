"""Scans of several contrasts in one chunk: all packed, each told apart, one contrast as it was before."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_chunks import FLAT, packed, preprocessed

from pipeline_lib.config.schema import DataOptions
from pipeline_lib.dataset.conditions import Conditions
from pipeline_lib.dataset.index import read_index
from pipeline_lib.dataset.pack import pack_chunk
from pipeline_lib.dataset.packed import PackedDataset
from pipeline_lib.files import read_json, read_table, write_json
from pipeline_lib.imaging.status import write_status
from pipeline_lib.state import trained_on, training_key

PEOPLE = [("a", "CN"), ("b", "AD")]


def several(*names: str) -> DataOptions:
    return DataOptions.model_validate({**FLAT.model_dump(), "modality": list(names)})


@pytest.fixture
def both(tmp_path: Path) -> Path:
    """A preprocessed chunk with a T1w and a FLAIR of everybody."""
    folder = preprocessed(tmp_path / "train-anat-0001", PEOPLE)
    other = preprocessed(tmp_path / "other", PEOPLE, modality="FLAIR")
    for path in (other / "scans").iterdir():
        shutil.copy(path, folder / "scans")
    write_status(folder / "status.tsv", [*read_table(folder / "status.tsv"), *read_table(other / "status.tsv")])
    return folder


def test_every_scan_of_a_person_is_packed_and_says_its_contrast(both: Path, tmp_path: Path) -> None:
    pack_chunk(both, several("T1w", "FLAIR"), tmp_path / "packed")
    index = read_index(tmp_path / "packed")
    assert index.groupby("participant")["modality"].agg(set).tolist() == [{"T1w", "FLAIR"}] * 2
    assert [scan.rsplit("_", 1)[1] for scan in index["scan"]] == index["modality"].tolist()
    assert len(index) == 12
    assert np.load(tmp_path / "packed" / "data.npy").shape[0] == 12
    assert read_json(tmp_path / "packed" / "prepared.json")["data"]["modality"] == "FLAIR+T1w"


def test_the_contrast_is_a_condition_like_the_group(both: Path, tmp_path: Path) -> None:
    pack_chunk(both, several("T1w", "FLAIR"), tmp_path / "packed")
    conditions = Conditions.fitted(["modality", "slice"], read_index(tmp_path / "packed"))
    assert conditions[0].categories == ("FLAIR", "T1w")
    told = PackedDataset([tmp_path / "packed"], conditions=conditions)
    codes = np.array([float(told[row]["condition"][0]) for row in range(12)])
    assert codes.tolist() == [float(name == "T1w") for name in told.index["modality"]]


def test_a_chunk_of_one_contrast_is_written_as_before(both: Path, tmp_path: Path) -> None:
    one = packed(tmp_path, "train-anat-0002", PEOPLE)
    pack_chunk(both, FLAT, tmp_path / "again")
    assert (one / "index.tsv").read_bytes() == (tmp_path / "again" / "index.tsv").read_bytes()
    assert "modality" not in pd.read_csv(one / "index.tsv", sep="\t")


def test_who_learned_which_contrast_is_part_of_a_trainings_key(both: Path, tmp_path: Path) -> None:
    pack_chunk(both, several("T1w", "FLAIR"), tmp_path / "packed")
    write_json(tmp_path / "packed" / "provenance.json", {"outputs": {}})
    options = {"denoiser": {"condition": ["modality"]}, "data": {"modality": "FLAIR+T1w"}}
    before = training_key("r", "denoiser", "code", options, [tmp_path / "packed"])
    columns, rows = trained_on(options, [tmp_path / "packed"])
    assert columns[-1] == "modality"
    assert len(rows) == 4
    path = tmp_path / "packed" / "index.tsv"
    path.write_text(path.read_text().replace("\tFLAIR", "\tT1w"))
    assert training_key("r", "denoiser", "code", options, [tmp_path / "packed"]) != before
