"""Chunks that are made of others on arrival, so that only one of them travels.

python benchmarks/device/derive.py slices CHUNKS/volumes CHUNKS/slices   # axial slices of whole volumes, as the workflow packs them
python benchmarks/device/derive.py thick CHUNKS/volumes CHUNKS/thick     # pairs: slices of 6 mm, blurred, and the volume
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage
from travel import SIDECAR

from pipeline_lib.files import atomic_directory, read_json, sha256_file, write_json

HEIGHTS = np.arange(-10, 41, 2)
"""Of the slices, mm in template space: those of config/ixi.yaml."""
SLICE = (112, 96)
THICK = 3
"""Voxels of a thick slice; its profile is a Gaussian of that full width at half maximum."""
WIDTHS = (8 * np.log(2)) ** 0.5
"""Full width at half maximum over standard deviation of a Gaussian."""


def slices(chunk: Path, out: Path) -> None:
    """Axial slices of a chunk of volumes, in the order and orientation of the workflow's own."""
    index = pd.read_csv(chunk / "index.tsv", sep="\t")
    affine = np.array(json.loads(index["affine"].iloc[0]))
    planes = np.round((HEIGHTS - affine[2, 3]) / affine[2, 2]).astype(int)
    arrays = {name: np.load(chunk / f"{name}.npy", mmap_mode="r") for name in ("data", "mask")}
    cut = {
        name: np.stack([_axial(volume[0, :, :, plane], name) for volume in values for plane in planes])[:, None]
        for name, values in arrays.items()
    }
    rows = index.loc[index.index.repeat(len(planes))].reset_index(drop=True)
    rows["slice"] = np.tile(HEIGHTS.astype(float), len(index))
    rows["affine"] = [
        json.dumps([[0, 2, 0, -96], [-2, 0, 0, 92], [0, 0, 2, height], [0, 0, 0, 1]]) for height in rows["slice"]
    ]
    layout = {"dimensions": 2, "size": list(SLICE), "plane": "axial", "left_right": 1}
    _write(chunk, out, cut, rows, layout)


def _axial(plane: NDArray[np.generic], name: str) -> NDArray[np.generic]:
    turned = plane.T[::-1]
    before = [(whole - part) // 2 for whole, part in zip(SLICE, turned.shape, strict=True)]
    after = [whole - part - gap for whole, part, gap in zip(SLICE, turned.shape, before, strict=True)]
    background = -1 if name == "data" else 0
    return np.pad(turned, list(zip(before, after, strict=True)), constant_values=background)


def thick(chunk: Path, out: Path) -> None:
    """Pairs: each volume with slices of 6 mm along its last axis, interpolated to its grid by cubic splines, and itself."""
    target = np.load(chunk / "data.npy")
    mask = np.load(chunk / "mask.npy")
    blurred = ndimage.gaussian_filter1d(target, THICK / WIDTHS, axis=-1, mode="nearest")
    first = THICK // 2
    sampled = blurred[..., first::THICK]
    heights = (np.arange(target.shape[-1]) - first) / THICK
    source = np.empty_like(target)
    for volume, result in zip(sampled, source, strict=True):
        grid = np.meshgrid(*(np.arange(size) for size in target.shape[2:4]), heights, indexing="ij")
        result[0] = ndimage.map_coordinates(volume[0], grid, order=3, mode="nearest")
    source = np.where(mask > 0, source.clip(-1, 1), -1).astype(np.float32)
    rows = pd.read_csv(chunk / "index.tsv", sep="\t")
    _write(chunk, out, {"data": source, "target": target, "mask": mask}, rows, read_json(chunk / "layout.json"))


def _write(chunk: Path, out: Path, arrays: dict[str, NDArray[np.generic]], rows: pd.DataFrame, layout: object) -> None:
    """A chunk with a sidecar that names its content."""
    with atomic_directory(out) as folder:
        for name, values in arrays.items():
            np.save(folder / f"{name}.npy", values)
        rows.to_csv(folder / "index.tsv", sep="\t", index=False)
        write_json(folder / "layout.json", layout)
        (folder / "prepared.json").write_bytes((chunk / "prepared.json").read_bytes())
        outputs = {f"{out.name}/{path.name}": sha256_file(path) for path in sorted(folder.iterdir())}
        write_json(folder / SIDECAR, {"stage": "dataset", "code": "", "options": {}, "outputs": outputs})


def main() -> None:
    """Derive every chunk of a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("slices", "thick"))
    parser.add_argument("chunks", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    for chunk in sorted(given.chunks.glob("*-*-*")):
        (slices if given.what == "slices" else thick)(chunk, given.out / chunk.name)


if __name__ == "__main__":
    main()
