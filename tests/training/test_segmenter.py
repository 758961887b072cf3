"""A segmenter learns what it is shown, travels as a bundle, and measures slices and volumes alike."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import torch
from numpy.typing import NDArray
from tiny_chunks import AFFINE, SHAPE, write

from pipeline_lib.bundles.check import check
from pipeline_lib.config.schema import DataOptions
from pipeline_lib.dataset.index import read_index
from pipeline_lib.dataset.labels import write_labels
from pipeline_lib.dataset.pack import pack_chunk
from pipeline_lib.errors import UserError
from pipeline_lib.files import read_json, read_table
from pipeline_lib.imaging.status import write_status
from pipeline_lib.inference.segmenter import load_segmenter
from pipeline_lib.models.unet import UNet
from pipeline_lib.training.segmenter import ARCHITECTURE, SegmenterStep, dice, train_segmenter
from pipeline_lib.training.steps import Draw

DATA = DataOptions.model_validate({"size": [48, 32], "slices": {"from_mm": -60, "to_mm": 60, "every_mm": 6}})
SHIFT = np.array([6.0, -12.0, 6.0])
"""Where a scan lies from the template, mm: whole voxels, so that the nearest is exact."""


def ball(centre: NDArray[np.float64], radius: float, affine: NDArray[np.float64]) -> NDArray[np.bool_]:
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"))
    points = np.tensordot(affine[:3, :3], grid, 1) + affine[:3, 3].reshape(3, 1, 1, 1)
    inside: NDArray[np.bool_] = np.sqrt(((points - centre.reshape(3, 1, 1, 1)) ** 2).sum(0)) < radius
    return inside


def make_chunk(folder: Path, labels: Path, people: list[str], *, unlabelled: str = "") -> Path:
    """Heads: a grey ball of 60 mm with a dark one inside; labels lie on the scan as it came, `SHIFT` away."""
    (folder / "scans").mkdir(parents=True)
    labels.mkdir(exist_ok=True)
    rows = []
    middle = np.array([0.0, -18.0, 6.0])
    moved = AFFINE.copy()
    moved[:3, 3] += SHIFT
    for person in people:
        random = np.random.default_rng(int.from_bytes(person.encode(), "big"))
        radius = float(random.uniform(18, 30))
        brain, inner = ball(middle, 60, AFFINE), ball(middle, radius, AFFINE)
        image = np.where(inner, 0.15, 0.8) * brain + 0.03 * random.standard_normal(SHAPE) * brain
        scan = f"sub-{person}_T1w"
        outputs = {
            "image": f"scans/{scan}.nii.gz",
            "mask": f"scans/{scan}_mask.nii.gz",
            "to_MNI152": f"scans/{scan}.tfm",
        }
        write(folder / outputs["image"], np.clip(image, 0, 1).astype(np.float32))
        write(folder / outputs["mask"], brain.astype(np.uint8))
        # From points of the template to points of the scan, as ITK has them: left and posterior are positive.
        sitk.WriteTransform(
            sitk.TranslationTransform(3, (SHIFT * [-1, -1, 1]).tolist()), str(folder / outputs["to_MNI152"])
        )
        if person != unlabelled:
            found = np.where(inner, 51, np.where(brain, 7, 0)).astype(np.int16)
            nib.save(nib.Nifti1Image(found, moved), labels / f"{person}_labels.nii.gz")
        about = {
            "scan": scan,
            "participant": person,
            "group": "A",
            "sha256": f"hash of {scan}",
            "source": f"raw/{person}.nii.gz",
        }
        common = {
            "session": "",
            "modality": "T1w",
            "age": "50",
            "sex": "F",
            "site": "",
            "pair": "",
            "intensity_low": "0",
        }
        rows.append(common | about | {"ok": "true", "stage": "", "reason": "", "outputs": json.dumps(outputs)})
    write_status(folder / "status.tsv", rows)
    return folder


def test_labels_come_to_the_slices_by_the_scans_own_transform(tmp_path: Path) -> None:
    """The dark ball of the image, and only that, is labelled."""
    chunk = make_chunk(tmp_path / "train-anat-0001", tmp_path / "labels", ["a", "b"])
    packed = tmp_path / "packed"
    pack_chunk(chunk, DATA, packed)
    write_labels(packed, chunk, lambda row: tmp_path / "labels" / f"{row['participant']}_labels.nii.gz", [[], [51]])
    images, labels, mask = (np.load(packed / f"{name}.npy") for name in ("data", "label", "mask"))
    assert labels.shape == (len(images), 2, 48, 32)
    np.testing.assert_array_equal(labels[:, :1], mask)
    dark = (images < -0.3) & (mask > 0)
    np.testing.assert_array_equal(labels[:, 1:].astype(bool), dark)
    assert labels[:, 1].any()


def test_scans_without_labels_are_left_out_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    chunk = make_chunk(tmp_path / "train-anat-0001", tmp_path / "labels", ["a", "b"], unlabelled="b")
    packed = tmp_path / "packed"
    pack_chunk(chunk, DATA, packed)
    write_labels(packed, chunk, lambda row: tmp_path / "labels" / f"{row['participant']}_labels.nii.gz", [[], [51]])
    assert set(read_index(packed)["participant"]) == {"a"}
    assert len(np.load(packed / "data.npy")) == len(np.load(packed / "label.npy")) == len(read_index(packed))
    assert "1 scans without a map of labels are left out: ['sub-b_T1w']" in caplog.text
    with pytest.raises(UserError, match="no scan has a map of labels"):
        write_labels(packed, chunk, lambda row: tmp_path / "nowhere.nii.gz", [[], [51]])


def test_dice_of_overlaps_worked_by_hand() -> None:
    found, truth = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    found[0, 0, 0], truth[0, 0, :, 0] = 1, 1
    found[0, 1] = 1
    assert dice(found, truth).tolist() == pytest.approx([0.5, 0.0, 1.0])


def test_a_step_learns_the_structures_that_it_is_given() -> None:
    """One structure is scored by its name, and shown where it is found, not where it is not."""
    architecture = {**ARCHITECTURE, "channels": [8, 8], "attention": [False, False], "out_channels": 1}
    shown = {"image": torch.zeros(2, 1, 16, 16), "label": torch.zeros(2, 1, 16, 16)}
    shown["label"][0, 0, :8] = 1
    step = SegmenterStep(UNet(**architecture), shown, ("lesion",))
    measured = step.validate(step.modules["segmenter"], shown, Draw(0, 2, slice(0, 2), torch.device("cpu")))
    assert set(measured) == {"loss", "dice_lesion"}
    reference = step.reference()
    assert ((reference == 1) == (shown["label"] == 1)).all()
    assert step.strip(step.modules["segmenter"]).shape == shown["image"].shape


def test_a_trained_segmenter_measures_what_it_was_shown(tmp_path: Path) -> None:
    preprocessed = tmp_path / "preprocess"
    for name, people in (("train", "abcdef"), ("validation", "gh"), ("test", "ij")):
        make_chunk(preprocessed / f"{name}-anat-0001", tmp_path / "labels", list(people))
    notice = tmp_path / "NOTICE"
    notice.write_text("terms\n")
    out = tmp_path / "bundle"
    train_segmenter(
        preprocessed, tmp_path / "labels", "{source}_labels.nii.gz", [51], out, tmp_path / "state",
        steps=110, batch_size=8, licence="CC0", notice=notice, data=DATA,
    )  # fmt: skip
    assert check(out) == []
    info = read_json(out / "model.json")
    assert (info["role"], info["licence"], info["train_people"]) == ("segmenter", "CC0", 6)
    assert {figure["people"] for figure in info["figures"]} == {2}
    assert (out / "NOTICE").read_text() == "terms\n"
    table = pd.read_csv(out / "dice.tsv", sep="\t")
    assert table["dice brain"].min() > 0.9
    assert table["dice lateral ventricles"].min() > 0.8

    test = tmp_path / "state/packed/test-anat-0001"
    segmenter = load_segmenter(str(out), [test])
    images = np.load(test / "data.npy")
    one = (read_index(test)["participant"] == "i").to_numpy()
    masks = segmenter.masks(images[one])
    counts = masks.sum(axis=(2, 3))
    np.testing.assert_allclose(segmenter.shares(images[one]), counts[:, 1] / counts[:, 0])

    # The same slices as a volume in RAS order: slices run down from the front, columns from left to right.
    volume = np.ascontiguousarray(images[one][:, 0, ::-1].transpose(2, 1, 0))
    whole = segmenter.shares(volume[None, None])
    assert whole.shape == (1,)
    assert whole[0] == pytest.approx(counts[:, 1].sum() / counts[:, 0].sum())
    of_volume = segmenter.masks(volume[None, None])[0, 1]
    np.testing.assert_array_equal(of_volume[:, ::-1].transpose(2, 1, 0), masks[:, 1])


def test_images_prepared_otherwise_and_other_networks_are_refused(tmp_path: Path) -> None:
    preprocessed = tmp_path / "preprocess"
    for name in ("train", "validation", "test"):
        make_chunk(preprocessed / f"{name}-anat-0001", tmp_path / "labels", [name])
    out = tmp_path / "bundle"
    train_segmenter(
        preprocessed, tmp_path / "labels", "{source}_labels.nii.gz", [51], out, tmp_path / "state", steps=1, batch_size=2, data=DATA
    )  # fmt: skip
    other = tmp_path / "other"
    pack_chunk(preprocessed / "test-anat-0001", DATA.model_copy(update={"voxel_size": 4.0, "size": [96, 64]}), other)
    with pytest.raises(
        UserError, match=r"evaluation.segmenter: .* prepared otherwise: data.voxel_size 4.0 \(there None\)"
    ):
        load_segmenter(str(out), [other])
    larger = tmp_path / "larger"
    pack_chunk(preprocessed / "test-anat-0001", DATA.model_copy(update={"size": [64, 48]}), larger)
    assert load_segmenter(str(out), [larger]).structures == ("brain", "lateral ventricles")
    info = read_json(out / "model.json")
    (out / "model.json").write_text(json.dumps(info | {"role": "denoiser"}))
    with pytest.raises(UserError, match="is no segmenter but denoiser"):
        load_segmenter(str(out), [larger])
    assert read_table(preprocessed / "test-anat-0001" / "status.tsv")


def test_without_chunks_of_every_split_it_says_which(tmp_path: Path) -> None:
    make_chunk(tmp_path / "preprocess/train-anat-0001", tmp_path / "labels", ["a"])
    with pytest.raises(UserError, match="no finished chunk of validation and test"):
        train_segmenter(
            tmp_path / "preprocess", tmp_path / "labels", "{source}_labels.nii.gz", [51], tmp_path / "o", tmp_path / "s", data=DATA
        )  # fmt: skip
