"""What a recipe sees of a scan: where it lies, its range, what was left out."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from tiny_chunks import FLAT, PAIRED, packed, preprocessed

from pipeline_lib.config.schema import DataOptions
from pipeline_lib.dataset.augment import Augmentation
from pipeline_lib.dataset.conditions import Conditions
from pipeline_lib.dataset.pack import pack_chunk
from pipeline_lib.dataset.packed import PackedDataset
from pipeline_lib.dataset.people import hashed_id, refuse_trained_people, trained_people
from pipeline_lib.errors import UserError
from pipeline_lib.files import read_table, write_json
from pipeline_lib.imaging.status import write_status
from pipeline_lib.state import trained_on, training_key

PEOPLE = [("a", "CN"), ("b", "AD")]


def test_slices_lie_where_the_configuration_says(tmp_path: Path) -> None:
    folder = packed(tmp_path, "test-anat-0001", PEOPLE)
    index = pd.read_csv(folder / "index.tsv", sep="\t")
    assert index["slice"].tolist() == [0, 10, 20, 0, 10, 20]
    for affine, position in zip(index["affine"], index["slice"], strict=True):
        assert np.array(json.loads(affine))[2, 3] == pytest.approx(position)
    data = np.load(folder / "data.npy")
    assert data.shape == (6, 1, 16, 16)
    assert data.dtype == np.float32
    assert data.min() == -1
    assert 0.5 < data.max() <= 1


def test_rows_run_from_the_front_of_the_head_to_its_back(tmp_path: Path) -> None:
    folder = packed(tmp_path, "test-anat-0001", PEOPLE)
    affine = np.array(json.loads(pd.read_csv(folder / "index.tsv", sep="\t")["affine"][0]))
    assert affine[1, 0] < 0, "the next row lies further back"
    assert affine[0, 1] > 0, "the next column lies further right"


def test_lesion_is_kept_with_its_images(tmp_path: Path) -> None:
    folder = packed(tmp_path, "test-anat-0001", PEOPLE, lesion=True)
    lesion = np.load(folder / "lesion.npy")
    index = pd.read_csv(folder / "index.tsv", sep="\t")
    assert (lesion.any((1, 2, 3)) == index["has_lesion"]).all()
    assert lesion.any()
    assert not (lesion & ~np.load(folder / "mask.npy").astype(bool)).any()


def test_pairs_share_one_grid_and_the_unpaired_are_named(tmp_path: Path) -> None:
    chunk = preprocessed(tmp_path / "chunk", PEOPLE, modality="dwi")
    rows = [row for row in read_table(chunk / "status.tsv") if row["scan"] != "sub-b_noddi"]
    write_status(chunk / "status.tsv", rows)
    pack_chunk(chunk, PAIRED, tmp_path / "packed")
    assert np.load(tmp_path / "packed" / "data.npy").shape == (1, 3, 8, 8, 8)
    assert np.load(tmp_path / "packed" / "target.npy").shape == (1, 3, 8, 8, 8)
    left_out = pd.read_csv(tmp_path / "packed" / "left_out.tsv", sep="\t")
    assert left_out["scan"].tolist() == ["sub-b_dwi"]
    assert "preprocess.noddi: amico fits the maps" in left_out["reason"][0]


def test_given_maps_win_over_fitted_ones_and_fitted_ones_over_none(tmp_path: Path) -> None:
    chunk = preprocessed(tmp_path / "chunk", PEOPLE, modality="dwi")
    rows = []
    for row in read_table(chunk / "status.tsv"):
        outputs = json.loads(row["outputs"])
        if row["modality"] == "dwi":
            outputs["noddi"] = f"scans/{row['scan']}_fitted.nii.gz"
            image = nib.load(chunk / outputs["image"])
            nib.save(nib.Nifti1Image(np.full(image.shape, 0.75, np.float32), image.affine), chunk / outputs["noddi"])
        if row["scan"] != "sub-b_noddi":
            rows.append(row | {"outputs": json.dumps(outputs)})
    write_status(chunk / "status.tsv", rows)
    pack_chunk(chunk, PAIRED, tmp_path / "packed")
    index = pd.read_csv(tmp_path / "packed" / "index.tsv", sep="\t")
    assert index["scan"].tolist() == ["sub-a_dwi", "sub-b_dwi"]
    middle = np.load(tmp_path / "packed" / "target.npy")[:, :, 4, 4, 4]
    np.testing.assert_allclose(middle[1], 0.5, atol=1e-6)
    assert (np.abs(middle[0] - 0.5) > 0.05).all()


def test_scan_with_another_number_of_channels_is_left_out_and_says_how_to_take_it(tmp_path: Path) -> None:
    chunk = preprocessed(tmp_path / "chunk", PEOPLE, modality="dwi")
    shells = {"sub-a_dwi": "b0 b1000 b2000", "sub-b_dwi": "b0 b1000 b2000"}
    write_status(
        chunk / "status.tsv",
        [row | {"shells": shells.get(row["scan"], "")} for row in read_table(chunk / "status.tsv")],
    )
    pack_chunk(chunk, PAIRED.model_copy(update={"channels": 2}), tmp_path / "packed")
    left_out = pd.read_csv(tmp_path / "packed" / "left_out.tsv", sep="\t")
    assert left_out["scan"].tolist() == ["sub-a_dwi", "sub-b_dwi"]
    assert left_out["reason"].str.startswith("b0 b1000 b2000 in 3 channels where data.channels is 2").all()
    assert left_out["reason"].str.contains("set data.channels to 3").all()


def test_chunk_without_a_usable_scan_is_empty_and_not_a_crash(tmp_path: Path) -> None:
    chunk = preprocessed(tmp_path / "chunk", PEOPLE)
    flair = DataOptions.model_validate({"modality": "FLAIR", "size": [16, 16]})
    pack_chunk(chunk, flair, tmp_path / "packed")
    assert np.load(tmp_path / "packed" / "data.npy").shape == (0, 1, 16, 16)


def test_dataset_joins_chunks_and_chooses_groups(tmp_path: Path) -> None:
    folders = [packed(tmp_path, "one", PEOPLE), packed(tmp_path, "two", [("c", "CN")])]
    conditions = Conditions.fitted(["slice", "group"], PackedDataset(folders).index)
    everyone = PackedDataset(folders, conditions=conditions)
    healthy = PackedDataset(folders, conditions=conditions, only_groups=["CN"])
    assert (len(everyone), len(healthy)) == (9, 6)
    assert set(healthy.index["participant"]) == {"a", "c"}
    told = torch.stack([everyone[i]["condition"] for i in (0, 4, 8)])
    spread = 10 * np.sqrt(2 / 3)  # of slices at 0, 10 and 20 mm
    np.testing.assert_allclose(told, [[-10 / spread, 1], [0, 0], [10 / spread, 1]], rtol=1e-5)
    assert torch.equal(healthy[5]["condition"], told[2])
    np.testing.assert_array_equal(healthy[3]["image"].numpy(), np.load(folders[1] / "data.npy")[0])


def test_people_and_identical_scans_a_model_was_trained_on_are_refused(tmp_path: Path) -> None:
    index = PackedDataset([packed(tmp_path, "train", PEOPLE)]).index
    model = trained_people(index)
    assert model["people"] == sorted(hashed_id(person) for person in "ab")
    assert "a" not in json.dumps(model["people"]).split()
    other = index.assign(participant="z")
    with pytest.raises(UserError, match="training set"):
        refuse_trained_people(other, model)
    mixed = pd.concat([index, index.assign(participant="new", sha256="another")])
    assert set(refuse_trained_people(mixed, model)["participant"]) == {"new"}
    assert len(refuse_trained_people(mixed, model, allow=True)) == len(mixed)


def test_augmentation_is_a_function_of_the_draw(tmp_path: Path) -> None:
    folder = packed(tmp_path, "train", PEOPLE)
    plain = PackedDataset([folder])
    changed = PackedDataset([folder], augment=Augmentation(seed=3, rotate=6, gamma=0.2))
    assert not (changed.draw(0, 1)["image"] == plain.draw(0, 1)["image"]).all()
    assert (changed.draw(0, 1)["image"] == changed.draw(0, 1)["image"]).all()
    assert not (changed.draw(0, 1)["image"] == changed.draw(0, 2)["image"]).all()


def test_covariates_reach_the_dataset_as_what_they_are(tmp_path: Path) -> None:
    """A category of digits stays text, a number is one, what a scan lacks is missing."""
    chunk = preprocessed(tmp_path / "chunk", [*PEOPLE, ("c", "CN")])
    rows = read_table(chunk / "status.tsv")
    for row, covariates in zip(rows, ({"education": 12.0, "genotype": "33"}, {"genotype": "34"}, None), strict=True):
        row["covariates"] = json.dumps(covariates) if covariates else ""
    write_status(chunk / "status.tsv", rows)
    pack_chunk(chunk, FLAT, tmp_path / "packed")
    index = PackedDataset([tmp_path / "packed"]).index
    assert index["genotype"].fillna("").tolist() == ["33"] * 3 + ["34"] * 3 + [""] * 3
    assert index["education"].tolist()[:3] == [12.0] * 3
    assert index["education"].isna().tolist() == [False] * 3 + [True] * 6


def test_lesion_free_images_of_lesioned_scans_are_kept_and_unknown_scans_are_not(tmp_path: Path) -> None:
    folder = packed(tmp_path, "train-anat-0001", PEOPLE, lesion=True)
    path = folder / "index.tsv"
    index = pd.read_csv(path, sep="\t", keep_default_na=False)
    index["has_lesion"] = ["true", "false", "false"] * 2
    index["lesion"] = ["mask"] * 3 + [""] * 3  # nobody looked at the second scan
    index.to_csv(path, sep="\t", index=False)
    chosen = PackedDataset([folder], lesion_free=True)
    assert chosen.index[["participant", "slice"]].to_numpy().tolist() == [["a", 10], ["a", 20]]
    np.testing.assert_array_equal(chosen[0]["image"], np.load(folder / "data.npy")[1])
    healthy = PackedDataset([folder], only_groups=["AD"], lesion_free=True)
    assert healthy.index["participant"].tolist() == ["b", "b"], "a group that is trained on as healthy"
    assert len(PackedDataset([folder])) == 6


def test_a_lesion_that_is_found_later_changes_the_key_of_a_training_without_lesions(tmp_path: Path) -> None:
    folder = packed(tmp_path, "train-anat-0001", PEOPLE)
    write_json(folder / "provenance.json", {"outputs": {}})
    options = {"data": {"lesion_free": True}, "denoiser": {}}
    keys = [training_key("r", "denoiser", "code", each, [folder]) for each in (options, {"data": {}, "denoiser": {}})]
    assert trained_on(options, [folder])[0] == ["chunk", "scan", "person", "sha256"]
    text = (folder / "index.tsv").read_text()
    (folder / "index.tsv").write_text(text.replace("\tfalse\t", "\ttrue\t", 1))
    after = [training_key("r", "denoiser", "code", each, [folder]) for each in (options, {"data": {}, "denoiser": {}})]
    assert after[0] != keys[0]
    assert after[1] == keys[1]
