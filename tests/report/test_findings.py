"""Findings are the connected parts of a map; the volumes of a page keep place and value of what they were made from."""

from __future__ import annotations

import base64
import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from made_report import CHUNK, VIEWED, make_translation, make_volumes

from pipeline_lib.imaging.nifti import Volume
from pipeline_lib.report.findings import findings
from pipeline_lib.report.view import Inferred, view_of
from pipeline_lib.report.volumes import MOST_VOXELS, STEPS, Frame, Layer, map_layer, mask_layer, scan_layer

AFFINE = np.array([[2.0, 0, 0, -40], [0, 1.5, 0, -60], [0, 0, 1, -30], [0, 0, 0, 1]])


def unpacked(layer: Layer) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(layer.content)))


def test_parts_above_the_threshold_are_measured_in_millilitres_and_placed_at_their_peaks() -> None:
    data = np.zeros((20, 20, 20), np.float32)
    data[2:4, 2:4, 2:4] = 0.6
    data[3, 3, 3] = 0.9
    data[4, 4, 4] = 0.7  # touches a corner: the same part
    data[15, 10, 5] = 1.2
    data[10, 10, 10] = 0.49
    lesion = np.zeros(data.shape, bool)
    lesion[15, 10, 5] = True
    first, second = findings(Volume(data, AFFINE), 0.5, lesion)
    assert first.volume == pytest.approx(9 * 3 / 1000)
    assert first.peak == pytest.approx(0.9)
    assert first.mean == pytest.approx((7 * 0.6 + 0.9 + 0.7) / 9)
    assert first.place == (-34.0, -55.5, -27.0)
    assert not first.known
    assert second.known
    assert second.place == (-10.0, -45.0, -25.0)
    assert findings(Volume(data, AFFINE), 0.5)[0].known is None
    assert findings(Volume(data, AFFINE), 2.0) == []


def test_layers_of_a_page_lie_where_the_scan_lies_and_keep_its_values() -> None:
    data = np.zeros((200, 180, 160), np.float32)
    mask = np.zeros_like(data)
    mask[20:180, 15:165, 10:150] = 1
    data[100:110, 80:90, 60:70] = 3.0
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    frame = Frame.around(Volume(mask, affine))
    layer = map_layer(frame, "map", Volume(data, affine), 1.0)
    image = unpacked(layer)
    values = np.asarray(image.dataobj)
    assert values.size <= MOST_VOXELS
    assert image.header.get_data_dtype() == np.uint8
    assert values.max() == pytest.approx(3.0, abs=3.0 / STEPS)
    centre = image.affine @ [*np.argwhere(values > 1.5).mean(axis=0), 1]
    assert centre[:3] == pytest.approx([104.5, 84.5, 64.5], abs=1)
    assert layer.threshold == 1.0
    kept = np.asarray(unpacked(mask_layer(frame, "mask", Volume(mask, affine))).dataobj)
    assert kept.sum() * abs(np.linalg.det(frame.affine[:3, :3])) == pytest.approx(mask.sum(), rel=0.05)


def test_a_map_on_another_grid_is_brought_to_the_scan_and_without_a_threshold_starts_high() -> None:
    mask = np.ones((40, 40, 40), np.float32)
    coarse = np.zeros((20, 20, 20), np.float32)
    coarse[10, 10, 10] = 1
    frame = Frame.around(Volume(mask, np.eye(4)))
    layer = map_layer(frame, "map", Volume(coarse, np.diag([2.0, 2, 2, 1])), None)
    values = np.asarray(unpacked(layer).dataobj)
    assert np.unravel_index(values.argmax(), values.shape) == (20, 20, 20)
    assert 0 < layer.threshold <= layer.high


def test_a_scan_is_black_outside_its_brain() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((30, 30, 30), np.float32)
    mask[8:22, 8:22, 8:22] = 1
    image = Volume(rng.normal(-5, 1, mask.shape).astype(np.float32), np.eye(4))
    frame = Frame.around(Volume(mask, np.eye(4)))
    values = np.asarray(unpacked(scan_layer(frame, image, Volume(mask, np.eye(4)))).dataobj)
    inside = frame(Volume(mask, np.eye(4))).data >= 0.5
    assert (values[~inside] == 0).all()
    assert (values[inside] > 0).all()


def test_a_scan_shows_its_map_its_findings_and_pairs(tmp_path: Path) -> None:
    opened, prepared = make_volumes(tmp_path, VIEWED)
    folders = [tmp_path / "anomaly" / part for part in (f"inference/{CHUNK}", f"dataset/{CHUNK}", "evaluation")]
    inferred = Inferred.of(*folders)
    assert (inferred.recipe, inferred.threshold) == ("anomaly", 0.5)
    native = {name: tmp_path / "ingest" / CHUNK / path for name, path in opened.items()}
    own = {name: tmp_path / "preprocess" / CHUNK / path for name, path in prepared.items()}
    view = view_of(VIEWED, native, own, [inferred])
    assert [layer.kind for layer in view.layers] == ["scan", "map", "mask", "mask"]
    assert [finding.known for finding in view.found[0].findings] == [True, False]
    assert [(pair.title, pair.tiles) for pair in view.pairs] == [
        ("Registration", 6), ("Template", 6), ("Reconstruction, anomaly", 6),
    ]  # fmt: skip
    assert view_of(VIEWED, {}, {}, [inferred]).layers == ()
    assert view_of("another", native, own, [inferred]).found == ()


def test_every_predicted_volume_has_its_uncertainty(tmp_path: Path) -> None:
    _, prepared = make_volumes(tmp_path, VIEWED)
    make_translation(tmp_path, VIEWED)
    folders = [tmp_path / "translation" / part for part in (f"inference/{CHUNK}", f"dataset/{CHUNK}", "evaluation")]
    own = {name: tmp_path / "preprocess" / CHUNK / path for name, path in prepared.items()}
    layers = {layer.title: layer for layer in view_of(VIEWED, {}, own, [Inferred.of(*folders)]).layers}
    maps = [title.removesuffix(", translation") for title, layer in layers.items() if layer.kind == "map"]
    assert maps == [
        text for name in ("ICVF", "ODI", "ISOVF") for text in (f"{name} as predicted", f"Uncertainty of {name}")
    ]
    assert layers["ISOVF as predicted, translation"].high == pytest.approx(1), "from 0 to 1"
    highest = [layers[f"Uncertainty of {name}, translation"].high for name in ("ICVF", "ODI", "ISOVF")]
    assert highest == pytest.approx([highest[0], 2 * highest[0], 3 * highest[0]])
    assert highest[0] == pytest.approx(0.1), "half of .2, which is on the scale from -1 to 1"


def test_a_prediction_that_nothing_was_drawn_for_is_shown_without_uncertainty(tmp_path: Path) -> None:
    _, prepared = make_volumes(tmp_path, VIEWED)
    make_translation(tmp_path, VIEWED)
    folders = [tmp_path / "translation" / part for part in (f"inference/{CHUNK}", f"dataset/{CHUNK}", "evaluation")]
    (folders[0] / "spread.npy").unlink()
    own = {name: tmp_path / "preprocess" / CHUNK / path for name, path in prepared.items()}
    layers = view_of(VIEWED, {}, own, [Inferred.of(*folders)]).layers
    maps = [layer.title for layer in layers if layer.kind == "map"]
    assert maps == [f"{name} as predicted, translation" for name in ("ICVF", "ODI", "ISOVF")]


@pytest.mark.parametrize("measured", [(), (1, 4, 5)])
def test_only_a_target_that_was_measured_is_shown_beside_its_prediction(
    measured: tuple[int, ...], tmp_path: Path
) -> None:
    _, prepared = make_volumes(tmp_path, VIEWED)
    folders = [tmp_path / "anomaly" / part for part in (f"inference/{CHUNK}", f"dataset/{CHUNK}", "evaluation")]
    (folders[0] / "reconstruction.npy").rename(folders[0] / "prediction.npy")
    target = np.load(folders[1] / "data.npy")
    target[[row for row in range(len(target)) if row not in measured]] = np.nan
    np.save(folders[1] / "target.npy", target)
    own = {name: tmp_path / "preprocess" / CHUNK / name_of for name, name_of in prepared.items()}
    pairs = [pair for pair in view_of(VIEWED, {}, own, [Inferred.of(*folders)]).pairs if "Predicted" in pair.names]
    assert [pair.tiles for pair in pairs] == ([len(measured)] if measured else [])


def test_without_a_lesion_among_validation_people_nothing_is_listed(tmp_path: Path) -> None:
    opened, prepared = make_volumes(tmp_path, VIEWED, threshold="")
    folders = [tmp_path / "anomaly" / part for part in (f"inference/{CHUNK}", f"dataset/{CHUNK}", "evaluation")]
    own = {name: tmp_path / "preprocess" / CHUNK / path for name, path in prepared.items()}
    view = view_of(VIEWED, {}, own, [Inferred.of(*folders)])
    assert (view.found[0].threshold, view.found[0].findings) == (None, ())
    assert opened
