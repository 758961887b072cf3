"""How many planted copies of training images are found, and how many real people are accused.

python benchmarks/copies.py IXI_FOLDER
python benchmarks/copies.py IXI_FOLDER --dimensions 3 --queries 20
python benchmarks/copies.py EMOJI_FOLDER
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation

from pipeline_lib.metrics.memorisation import Gallery, by_person, drawn, suspicious_similarity

HEIGHTS = (-10, 0, 10, 20)
"""Slices of a head, voxels above the middle of its brain."""


def heads(folder: Path, dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    """Brains cut out by their masks, scaled, centred and cropped; not registered."""
    images, people = [], []
    for path in sorted((folder / "t1").glob("*.nii.gz")):
        mask = nibabel.load(folder / "brainmask" / path.name.replace("_T1", "_brainmask"))
        brain = np.asarray(nibabel.as_closest_canonical(mask).dataobj) > 0
        values = np.asarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj, dtype=np.float32)
        low, high = np.percentile(values[brain], [0.5, 99.5])
        values = np.where(brain, np.clip((values - low) / (high - low), 0, 1), 0) * 2 - 1
        x, y, z = (round(place) + 64 for place in np.argwhere(brain).mean(0))
        wide = np.pad(values, 64, constant_values=-1)[x - 48 : x + 48, y - 56 : y + 56]
        if dimensions == 3:
            images.append(wide[8:-8, 8:-8, z - 40 : z + 40][None])
        else:
            images += [np.rot90(wide[:, :, z + height])[None] for height in HEIGHTS]
        people += [path.name.split("_")[0]] * (len(images) - len(people))
    return np.stack(images).astype(np.float32), np.array(people)


def pictures(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pictures on white; those of one first code point (skin tones, sexes) are one person."""
    images, people = [], []
    for path in sorted(folder.glob("*/*.png")):
        rgba = np.asarray(Image.open(path).convert("RGBA"), dtype=np.float32) / 255
        images.append(np.moveaxis(rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:], -1, 0) * 2 - 1)
        people.append(path.stem.split("-")[0])
    return np.stack(images), np.array(people)


def altered(image: np.ndarray, rng: np.random.Generator, noise: float) -> np.ndarray:
    """A copy flipped or not, turned up to 6 degrees, scaled 7 %, shifted 4 %, gamma 2^+-.3, with noise."""
    size, dimensions = np.array(image.shape[1:]), image.ndim - 1
    axis = rng.normal(size=3) if dimensions == 3 else np.array([0.0, 0.0, 1.0])
    turn = Rotation.from_rotvec(axis / np.linalg.norm(axis) * np.deg2rad(rng.uniform(-6, 6))).as_matrix()
    matrix = turn[:dimensions, :dimensions] / (1 + rng.uniform(-0.07, 0.07))
    centre = (size - 1) / 2
    offset = centre - matrix @ (centre + rng.uniform(-0.04, 0.04, dimensions) * size)
    moved = np.stack([affine_transform(channel, matrix, offset, order=1, mode="nearest") for channel in image])
    moved = np.flip(moved, axis=2 if dimensions == 2 else 1) if rng.random() < 0.5 else moved
    unit = np.clip((moved + 1) / 2, 0, 1) ** (2 ** rng.uniform(-0.3, 0.3))
    return np.clip(unit * 2 - 1 + rng.normal(0, 2 * noise, unit.shape), -1, 1).astype(np.float32)


def main() -> None:
    """Print one line of figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dimensions", type=int, choices=(2, 3), default=2)
    parser.add_argument("--queries", type=int, default=100, help="copies planted, and images looked up of the others")
    parser.add_argument("--noise", type=float, default=0.02, help="standard deviation, of the intensity range")
    arguments = parser.parse_args()
    is_heads = (arguments.folder / "t1").is_dir()
    images, people = heads(arguments.folder, arguments.dimensions) if is_heads else pictures(arguments.folder)
    rng = np.random.default_rng(0)
    names = rng.permutation(np.unique(people))
    held = np.isin(people, names[: 2 * len(names) // 5])
    train, train_people = images[~held], people[~held]
    gallery = Gallery(train, list(train_people))
    threshold = suspicious_similarity(gallery, train, most=2 * arguments.queries)
    rows = rng.permutation(len(train))[: arguments.queries]
    started = time.monotonic()
    copies = gallery.nearest(np.stack([altered(train[row], rng, arguments.noise) for row in rows]))
    seconds = (time.monotonic() - started) / len(rows)
    others = drawn(people[held], 2 * arguments.queries)
    real = gallery.nearest(images[held][others])
    accused = by_person(real.similarity, people[held][others]) > threshold
    print(
        f"{len(train)} training images of {len(set(train_people))} people; threshold {threshold:.3f}; "
        f"{len(rows)} copies: {(copies.similarity > threshold).mean():.1%} found, "
        f"{(train_people[copies.row] == train_people[rows]).mean():.1%} with the right person; "
        f"{len(accused)} held-out people: {accused.mean():.1%} accused; {seconds:.2f} s a look-up; similarity at 5, 50, 95 %: copies "
        f"{np.percentile(copies.similarity, [5, 50, 95]).round(3)}, real {np.percentile(real.similarity, [5, 50, 95]).round(3)}"
    )


if __name__ == "__main__":
    main()
