"""Every fault of a scan is one line that names row and file; the rest of the chunk goes on."""

from __future__ import annotations

import gzip
import json
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline_lib.cohort.sheet import Scan, read_sheet
from pipeline_lib.errors import UserError
from pipeline_lib.files import image_files, read_table, write_table
from pipeline_lib.imaging.canonical import open_described, open_scan
from pipeline_lib.imaging.ingest import ingest_chunk
from pipeline_lib.imaging.nifti import read_volume
from pipeline_lib.imaging.pictures import find_slices
from pipeline_lib.imaging.stacks import Stacks

AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])


def head(shape: tuple[int, ...] = (12, 14, 10)) -> np.ndarray:
    return np.random.default_rng(0).uniform(10, 100, shape).astype(np.float32)


def save(path: Path, data: np.ndarray, affine: np.ndarray | None = AFFINE, **codes: int) -> str:
    image = nib.Nifti1Image(data, affine)
    if affine is not None:
        image.set_sform(affine, code=codes.get("sform", 1))
        image.set_qform(affine, code=codes.get("qform", 1))
    nib.save(image, path)
    return path.name


def ingest(folder: Path, *scans: Scan) -> list[dict[str, str]]:
    ingest_chunk(list(scans), folder, folder / "out", workers=2)
    return read_table(folder / "out" / "status.tsv")


def with_nan(share: float) -> np.ndarray:
    data = head()
    data.ravel()[: int(share * data.size)] = np.nan
    return data


def truncated(path: Path) -> str:
    save(path, head((30, 30, 30)))
    path.write_bytes(path.read_bytes()[:2000])
    return path.name


def holed(path: Path) -> str:
    data = head()
    data[4:8, 5:9, 3:7] = np.nan
    return save(path, data)


def bad_checksum(path: Path) -> str:
    save(path, head())
    content = bytearray(path.read_bytes())
    content[-6] ^= 0xFF
    path.write_bytes(content)
    return path.name


def analyze(path: Path) -> str:
    nib.save(nib.AnalyzeImage(head(), AFFINE), path.with_name("broken.nii.gz.img"))
    return "broken.nii.gz.img"


def empty(path: Path) -> str:
    path.write_bytes(b"")
    return path.name


def not_an_image(path: Path) -> str:
    with gzip.open(path, "wb") as file:
        file.write(b"this is a letter, not a scan" * 50)
    return path.name


def colour(path: Path) -> str:
    data = np.zeros((4, 4, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(data, AFFINE), path)
    return path.name


def without_sizes(path: Path) -> str:
    plain = path.with_suffix("")
    save(plain, head(), sform=0)
    content = bytearray(plain.read_bytes())
    content[88:92] = bytes(4)  # pixdim[3]
    with gzip.open(path, "wb") as file:
        file.write(content)
    return path.name


def singular(path: Path) -> str:
    image = nib.Nifti1Image(head(), None)
    image.header["sform_code"] = 1
    image.header["srow_x"] = [2, 0, 0, 0]
    nib.save(image, path)
    return path.name


def plain_called_gz(path: Path) -> str:
    save(path.with_suffix(""), head())
    path.with_suffix("").rename(path)
    return path.name


def gz_called_plain(path: Path) -> str:
    save(path, head())
    return path.rename(path.with_suffix("")).name


def header_alone(path: Path) -> str:
    nib.save(nib.Nifti1Pair(head(), AFFINE), path.with_name("broken.hdr"))
    path.with_name("broken.img").unlink()
    return "broken.hdr"


def text(content: str) -> Callable[[Path], str]:
    def write(path: Path) -> str:
        path.write_text(content)
        return path.name

    return write


def annexed(path: Path) -> str:
    path.symlink_to(".git/annex/objects/k1/2Z/MD5E-s8215304--0.nii.gz")
    return path.name


def pipe(path: Path) -> str:
    os.mkfifo(path)
    return path.name


def zeros(path: Path) -> str:
    path.symlink_to("/dev/zero")
    return path.name


def millimetres_in_metres(path: Path) -> str:
    return save_with(path, head(), np.diag([0.001, 0.001, 0.001, 1]) @ AFFINE)


def save_with(path: Path, data: np.ndarray, affine: np.ndarray, unit: str = "mm") -> str:
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units(unit)
    nib.save(image, path)
    return path.name


def wrapped(path: Path) -> str:
    image = np.clip(np.hypot(*np.mgrid[-20:20, -20:20]), 0, 20)[..., None] * np.ones(40)
    return save(path, ((20 - image) * 2400).astype(np.int64).astype(np.int16))


def too_large(path: Path) -> str:
    save(path.with_suffix(""), head())
    content = bytearray(path.with_suffix("").read_bytes())
    content[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()
    with gzip.open(path, "wb") as file:
        file.write(content)
    return path.name


BROKEN = {
    "plain called gz": (plain_called_gz, r"not compressed though its name ends in .gz; rename it to broken.nii$"),
    "gz called plain": (gz_called_plain, "rename it to broken.nii.gz"),
    "header alone": (header_alone, r"its .img is missing \(broken.img\)"),
    "LFS pointer": (text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 8\n"), "git lfs pull"),
    "annex pointer": (text("/annex/objects/MD5E-s8215304--0.nii.gz\n"), "datalad get or git annex get"),
    "annex link": (annexed, "not fetched.*datalad get or git annex get"),
    "pipe": (pipe, "a pipe or a device"),
    "device": (zeros, "a pipe or a device"),
    "metres called mm": (millimetres_in_metres, "its affine seems to be in metres"),
    "wrapped int16": (wrapped, "values above 32767 were stored as int16 and wrapped"),
    "header of a giant": (too_large, "its header promises 30000 x 30000 x 30000 voxels"),
    "labels": (
        lambda path: save(path, np.kron(np.arange(27).reshape(3, 3, 3), np.ones((9, 9, 9))).astype(np.int16)),
        "labels",
    ),
    "missing": (lambda path: path.name, "no such file"),
    "truncated": (truncated, "truncated"),
    "empty file": (empty, "the file is empty"),
    "not an image": (not_an_image, "cannot be read as an image|truncated"),
    "4D": (lambda path: save(path, head((8, 8, 8, 5))), r"4D \(8 x 8 x 8 x 5\) where 3D is meant"),
    "2D": (lambda path: save(path, head((8, 8, 1))), "a single slice|2D"),
    "all NaN": (lambda path: save(path, with_nan(0.97)), "NaN or infinite"),
    "NaN in the middle": (holed, "in the middle of the head"),
    "complex": (lambda path: save(path, head().astype(np.complex64)), "give the magnitude image"),
    "bad checksum": (bad_checksum, "truncated or damaged"),
    "Analyze": (analyze, "does not say where left is"),
    "constant": (lambda path: save(path, np.full((8, 8, 8), 7, np.float32)), "every voxel is 7"),
    "no affine": (lambda path: save(path, head(), sform=0, qform=0), "no valid affine"),
    "singular affine": (singular, "no valid affine"),
    "voxel size of 0": (without_sizes, "no valid affine"),
    "colour": (colour, "RGB"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.filterwarnings("ignore")
def test_broken_scan_is_excluded_in_one_line_and_the_others_go_on(tmp_path: Path, name: str) -> None:
    make, reason = BROKEN[name]
    path = make(tmp_path / "broken.nii.gz")
    good = save(tmp_path / "good.nii.gz", head())
    rows = ingest(tmp_path, Scan("01", "", "T1w", path, row=2), Scan("02", "", "T1w", good, row=3))
    assert [row["ok"] for row in rows] == ["false", "true"]
    assert re.search(reason, rows[0]["reason"]), rows[0]["reason"]
    assert f"{path} (row 2 of the sheet)" in rows[0]["reason"]
    assert "\n" not in rows[0]["reason"]
    assert rows[0]["stage"] == "ingest"


def test_units_other_than_mm_are_read(tmp_path: Path) -> None:
    plain = open_scan(tmp_path / save(tmp_path / "plain.nii", head()), "plain")
    for unit, factor in (("meter", 0.001), ("micron", 1000.0)):
        name = save_with(tmp_path / f"{unit}.nii", head(), np.diag([factor] * 3 + [1]) @ AFFINE, unit)
        opened = open_described(tmp_path / name, name)
        np.testing.assert_allclose(opened.volume.affine, plain.affine, rtol=1e-5)
        assert {"meter": "given in metres", "micron": "given in micrometres"}[unit] in opened.notes["affine"]
    name = save_with(tmp_path / "wrong.nii", head(), AFFINE, "meter")
    np.testing.assert_allclose(
        open_scan(tmp_path / name, name).affine, plain.affine, err_msg="no head has voxels of 2 m"
    )


def test_the_same_voxels_in_another_container_have_one_hash(tmp_path: Path) -> None:
    data = np.round(head() * 100)
    turned = nib.Nifti1Image(data, AFFINE).as_reoriented(np.array([[1, -1], [2, 1], [0, 1]]))
    nib.save(turned, tmp_path / "c.nii")
    names = [
        save(tmp_path / "a.nii.gz", data.astype(np.int16)),
        save(tmp_path / "b.nii", data.astype(np.float32)[..., None]),
        "c.nii",
        save(tmp_path / "d.nii", data.astype(np.int16)[::-1]),
    ]
    rows = ingest(tmp_path, *(Scan(f"{n:02d}", "", "T1w", name, row=n) for n, name in enumerate(names, 2)))
    assert [row["ok"] for row in rows] == ["true"] * 4, [row["reason"] for row in rows]
    hashes = [row["voxels_sha256"] for row in rows]
    assert len(set(hashes[:3])) == 1
    assert hashes[3] != hashes[0]
    assert len({row["sha256"] for row in rows}) == 4


HEADER = st.lists(st.tuples(st.integers(0, 347), st.integers(0, 255)), min_size=1, max_size=12)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=100)
@given(HEADER)
def test_no_header_is_a_traceback(changes: list[tuple[int, int]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "fuzzed.nii")
        save(path, head((6, 6, 6)))
        content = bytearray(path.read_bytes())
        for place, value in changes:
            content[place] = value
        path.write_bytes(content)
        try:
            volume = open_scan(path, "fuzzed.nii")
        except UserError as error:
            said = str(error)
        else:
            said = "fuzzed.nii: read"
            assert np.isfinite(volume.data).all()
            assert np.isfinite(volume.affine).all()
        assert said.startswith("fuzzed.nii: ")
        assert "\n" not in said


def test_a_dicom_folder_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "dicom").mkdir()
    (tmp_path / "dicom" / "IM0001").write_bytes(b"x")
    rows = [
        *ingest(tmp_path, Scan("01", "", "T1w", "dicom", row=2)),
        *ingest(tmp_path, Scan("02", "", "image", "dico*", row=3)),
    ]
    assert "dicom (row 2 of the sheet): a folder" in rows[0]["reason"]
    assert all("dcm2niix" in row["reason"] for row in rows)


def test_someone_without_lesions_may_have_an_empty_mask_but_not_an_empty_brain(tmp_path: Path) -> None:
    scan = save(tmp_path / "scan.nii.gz", head())
    nothing = save(tmp_path / "nothing.nii.gz", np.zeros((12, 14, 10), np.uint8))
    rows = ingest(
        tmp_path, Scan("01", "", "T1w", scan, lesion=nothing, row=2), Scan("02", "", "T1w", scan, mask=nothing, row=3)
    )
    assert rows[0]["ok"] == "true", rows[0]["reason"]
    assert not read_volume(tmp_path / "out" / json.loads(rows[0]["outputs"])["lesion"]).data.any()
    assert "nothing.nii.gz (mask of row 3 of the sheet): no voxel is above 0.5" in rows[1]["reason"]


def test_both_files_of_a_pair_are_hashed(tmp_path: Path) -> None:
    for name, factor in (("a", 1), ("b", 2)):
        nib.save(nib.Nifti1Pair(head() * factor, AFFINE), tmp_path / f"{name}.img")
    rows = ingest(tmp_path, *(Scan(name, "", "T1w", f"{name}.hdr", row=2) for name in "ab"))
    assert rows[0]["sha256"] != rows[1]["sha256"]


@pytest.mark.parametrize("compressed", ["", ".gz"])
def test_a_pair_is_two_files(compressed: str) -> None:
    pair = [Path(f"a/s.1.hdr{compressed}"), Path(f"a/s.1.img{compressed}")]
    assert image_files(pair[0]) == image_files(pair[1]) == pair
    assert image_files(Path(f"a/hdr.nii{compressed}")) == [Path(f"a/hdr.nii{compressed}")]


def test_grey_levels_of_16_bits_keep_their_order(tmp_path: Path) -> None:
    levels = np.linspace(0, 4000, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(levels).save(tmp_path / "p_1.png")
    row = ingest(tmp_path, Scan("01", "", "image", "p_*.png", row=2))[0]
    pixels = Stacks(tmp_path / "out")[json.loads(row["outputs"])["image"]]
    np.testing.assert_allclose(pixels[0, ..., 0], levels * (255 / 4000), atol=0.6)


def test_mask_of_another_shape_names_both_shapes(tmp_path: Path) -> None:
    scan = save(tmp_path / "scan.nii.gz", head())
    mask = save(tmp_path / "mask.nii.gz", np.ones((5, 5, 5), np.uint8) * (np.arange(5) > 1))
    row = ingest(tmp_path, Scan("01", "", "T1w", scan, mask=mask, row=2))[0]
    assert "mask of 5 x 5 x 5 voxels for a scan of 12 x 14 x 10" in row["reason"]


def test_gradients_of_another_number_are_refused(tmp_path: Path) -> None:
    scan = save(tmp_path / "dwi.nii.gz", head((6, 6, 6, 4)))
    (tmp_path / "b.bval").write_text("0 1000 1000\n")
    (tmp_path / "b.bvec").write_text("0 1 0\n0 0 1\n0 0 0\n")
    row = ingest(tmp_path, Scan("01", "", "dwi", scan, bval="b.bval", bvec="b.bvec", row=2))[0]
    assert "4 volumes, but 3 b-values in b.bval and 3 directions" in row["reason"]


def test_noddi_maps_out_of_range_are_refused(tmp_path: Path) -> None:
    scan = save(tmp_path / "noddi.nii.gz", head((6, 6, 6, 3)))
    assert "NODDI maps are fractions" in ingest(tmp_path, Scan("01", "", "noddi", scan, row=2))[0]["reason"]


def test_nan_in_one_volume_of_many_is_found(tmp_path: Path) -> None:
    data = head((12, 14, 10, 30))
    data[3:9, 4:10, 3:7, 7] = np.nan
    save(tmp_path / "dwi.nii", data)
    with pytest.raises(UserError, match="in the middle of the head"):
        open_described(tmp_path / "dwi.nii", "dwi.nii", volumes=True)
    data[3:9, 4:10, 3:7, 7] = 50
    data[5:6, 4:10, 3:7, 7] = np.nan
    save(tmp_path / "dwi.nii", data)
    assert not open_described(tmp_path / "dwi.nii", "dwi.nii", volumes=True).volume.data[5, 5, 5, 7]


def test_nan_background_becomes_zero(tmp_path: Path) -> None:
    save(tmp_path / "scan.nii.gz", with_nan(0.1))
    volume = open_scan(tmp_path / "scan.nii.gz", "scan")
    assert np.isfinite(volume.data).all()


def test_stripped_scan_whose_background_is_nan_is_read(tmp_path: Path) -> None:
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, 40)] * 3, indexing="ij")
    data = np.where(x**2 + y**2 + z**2 < 0.35, 100 + 10 * x, np.nan).astype(np.float32)
    assert np.isnan(data).mean() > 0.85
    save(tmp_path / "scan.nii.gz", data)
    np.testing.assert_array_equal(open_scan(tmp_path / "scan.nii.gz", "scan").data, np.nan_to_num(data))


def test_4d_with_one_volume_is_3d(tmp_path: Path) -> None:
    save(tmp_path / "scan.nii.gz", head((8, 9, 10, 1)))
    assert open_scan(tmp_path / "scan.nii.gz", "scan").data.shape == (8, 9, 10)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR", "SAL", "ILP", "RSA"])
def test_every_orientation_becomes_the_same_volume(tmp_path: Path, axes: str) -> None:
    image = nib.Nifti1Image(head(), AFFINE)
    ornt = nib.orientations.ornt_transform(nib.io_orientation(AFFINE), nib.orientations.axcodes2ornt(axes))
    nib.save(image.as_reoriented(ornt), tmp_path / "turned.nii.gz")
    volume = open_scan(tmp_path / "turned.nii.gz", "turned")
    np.testing.assert_array_equal(volume.data, head())
    np.testing.assert_allclose(volume.affine, AFFINE)


def test_real_files_of_any_orientation_are_one_volume(shared_data: Path) -> None:
    paths = sorted((shared_data / "orientation48").glob("*.nii.gz"))
    first = open_scan(paths[0], "first")
    for path in paths[1:]:
        volume = open_scan(path, path.name)
        assert volume.data.shape == first.data.shape
        np.testing.assert_allclose(volume.affine, first.affine, atol=1e-3)
        np.testing.assert_array_equal(volume.data, first.data)


@pytest.mark.parametrize("kind", ["scaled int16", "uint8", "big-endian", "nifti2", "pair", "negative"])
def test_unusual_files_are_read_right(tmp_path: Path, kind: str) -> None:
    data = np.round(head()) - (200 if kind == "negative" else 0)
    path = tmp_path / ("scan.img" if kind == "pair" else "scan.nii.gz")
    data = data.astype(np.uint8) if kind == "uint8" else data
    if kind == "nifti2":
        image: nib.Nifti1Image = nib.Nifti2Image(data, AFFINE)
    elif kind == "big-endian":
        image = nib.Nifti1Image(data, AFFINE, nib.Nifti1Header(endianness=">"))
    elif kind == "pair":
        image = nib.Nifti1Pair(data, AFFINE)
    else:
        image = nib.Nifti1Image(data, AFFINE)
    image.set_data_dtype(np.uint8 if kind == "uint8" else np.int16)
    if kind == "scaled int16":
        image.header.set_slope_inter(0.5, 3)
    nib.save(image, path)
    wanted = data * 0.5 + 3 if kind == "scaled int16" else data
    np.testing.assert_allclose(open_scan(path, "scan").data, wanted, atol=0.01)


def test_which_affine_is_used_is_said(tmp_path: Path) -> None:
    image = nib.Nifti1Image(head(), AFFINE)
    turned = AFFINE @ np.diag([-1.0, 1, 1, 1])
    image.set_sform(AFFINE, 1)
    image.set_qform(turned, 1)
    nib.save(image, tmp_path / "both.nii.gz")
    sheared = AFFINE.copy()
    sheared[0, 1] = AFFINE[0, 0]
    image.set_sform(sheared, 1)
    nib.save(image, tmp_path / "sheared.nii.gz")
    image.set_sform(AFFINE, 0)
    image.set_qform(AFFINE, 1)
    nib.save(image, tmp_path / "qform.nii.gz")
    rows = ingest(
        tmp_path,
        *(Scan(str(n), "", "T1w", f"{name}.nii.gz", row=2) for n, name in enumerate(("both", "sheared", "qform"), 1)),
    )
    extent = 2 * AFFINE[0, 0] * (head().shape[0] - 1)
    assert rows[0]["affine"] == f"sform; the qform differs by up to {extent:.0f} mm, and an sform outranks it"
    assert rows[1]["affine"] == "qform; the sform is singular or sheared"
    assert rows[2]["affine"] == "qform"
    written = [read_volume(tmp_path / "out" / json.loads(row["outputs"])["image"]).affine for row in rows]
    np.testing.assert_allclose(written[0], written[2], atol=1e-5)


def test_no_header_text_leaves_the_library(tmp_path: Path) -> None:
    image = nib.Nifti1Image(head(), AFFINE)
    image.header["descrip"] = b"JANE DOE 1970"
    image.header["aux_file"] = b"jane"
    image.header["intent_name"] = b"jane"
    image.header["db_name"] = b"jane"
    nib.save(image, tmp_path / "scan.nii.gz")
    row = ingest(tmp_path, Scan("01", "", "T1w", "scan.nii.gz", row=2))[0]
    written = tmp_path / "out" / json.loads(row["outputs"])["image"]
    assert b"jane" not in gzip.decompress(written.read_bytes()).lower()


def test_pictures_of_a_person_become_one_stack_in_natural_order(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        Image.fromarray(np.full((6, 5), number, np.uint8)).save(tmp_path / f"p1_{number}.png")
    row = ingest(tmp_path, Scan("p1", "", "image", "p1_*.png", row=2))[0]
    stack = Stacks(tmp_path / "out")[json.loads(row["outputs"])["image"]]
    assert stack.shape == (3, 6, 5, 1)
    assert stack[:, 0, 0, 0].tolist() == [1, 2, 10]


def test_folder_of_pictures_may_have_brackets_in_its_name(tmp_path: Path) -> None:
    root = tmp_path / "study [1]"
    root.mkdir()
    for number in (1, 2):
        Image.fromarray(np.full((6, 5), number, np.uint8)).save(root / f"p1_{number}.png")
    assert [path.name for path in find_slices(root, "p1_*.png", "p1")] == ["p1_1.png", "p1_2.png"]


def test_pictures_of_two_sizes_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.arange(30, dtype=np.uint8).reshape(6, 5)).save(tmp_path / "p1_1.png")
    Image.fromarray(np.arange(42, dtype=np.uint8).reshape(6, 7)).save(tmp_path / "p1_2.png")
    assert "must have one size" in ingest(tmp_path, Scan("p1", "", "image", "p1_*.png", row=2))[0]["reason"]


PLACES = (
    "a.nii.gz", "torn.nii.gz", "a_1.png", "*.png", "[", "../a.nii.gz", "../../etc/passwd", "/etc/passwd", "/dev/zero", "pipe",
    ".", "..", "~", "a.nii.gz/b", "x" * 300, "$HOME", "results", "state/x.nii.gz", "*", "a.hdr",
)  # fmt: skip
PEOPLE = ("01", "sub-01", "../x", "/x", "a/b", ".", "..", "~", "$HOME", "con", "x" * 70, "results")
row = st.fixed_dictionaries(
    {
        "participant": st.sampled_from(PEOPLE),
        "session": st.sampled_from(("", "1", "../1", "a/b")),
        "modality": st.sampled_from(("T1w", "T1w", "dwi", "noddi", "image", "../T1w")),
        "path": st.sampled_from(PLACES),
        "group": st.sampled_from(("", "A", "../A", "/A", ".A")),
        "mask": st.sampled_from(("", *PLACES)),
        "lesion": st.sampled_from(("", "none", *PLACES)),
        "bval": st.sampled_from(PLACES),
        "bvec": st.sampled_from(PLACES),
    }
)


@settings(max_examples=12)
@given(rows=st.lists(row, min_size=1, max_size=5))
def test_no_sheet_is_a_traceback_or_writes_beside_results_and_state(rows: list[dict[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "project")
        folder.mkdir()
        save(folder / "a.nii.gz", head())
        (folder / "torn.nii.gz").write_bytes((folder / "a.nii.gz").read_bytes()[:900])
        Image.new("L", (8, 8), 9).save(folder / "a_1.png")
        os.mkfifo(folder / "pipe")
        write_table(folder / "s.tsv", tuple(rows[0]), rows)
        before = files_of(Path(name))
        try:
            scans = read_sheet(folder / "s.tsv", folder).scans
        except UserError:
            scans = ()
        for family in ("anat", "dmri", "image"):
            chunk = [scan for scan in scans if scan.family == family]
            out = folder / "results" / "ingest" / f"train-{family}-0001"
            ingest_chunk(chunk, folder, out, workers=1, cache=folder / "state" / "scans")
            for status in read_table(out / "status.tsv"):
                assert status["ok"] == "true" or status["reason"]
                assert not status["reason"].startswith("unexpected"), status["reason"]
        written = files_of(Path(name)) - before
        assert all(path.startswith(("project/results/", "project/state/")) for path, _ in written), written
        assert before <= files_of(Path(name)), "nothing that was there is changed"


def files_of(folder: Path) -> set[tuple[str, int]]:
    """Every file with the time of its last change."""
    return {
        (path.relative_to(folder).as_posix(), path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
        if not path.is_dir()
    }
