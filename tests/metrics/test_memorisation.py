"""Copies are found however training showed them, new people are not accused; on real brains and real pictures."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy.ndimage import affine_transform, gaussian_filter
from scipy.spatial.transform import Rotation

from pipeline_lib.metrics.memorisation import Gallery, by_person, drawn, suspicious_similarity


def shapes(number: int, seed: int, dimensions: int = 2) -> np.ndarray:
    """Smooth random structure inside a ball, black outside: ``(N, 1, *spatial)`` in [-1, 1]."""
    side = 64 if dimensions == 2 else 24
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, side)] * dimensions, indexing="ij"))
    inside = np.sqrt((grid**2).sum(0)) < 0.8
    images = [gaussian_filter(rng.normal(size=inside.shape), side / 20) for _ in range(number)]
    return np.stack([np.where(inside, np.clip(x / x.std() / 3, -0.9, 1), -1) for x in images])[:, None].astype(
        np.float32
    )


def altered(images: np.ndarray, seed: int, *, flip: bool = True, degrees: float = 6, scale: float = 0.07, shift: float = 0.04,
            gamma: float = 0.3, noise: float = 0.02) -> np.ndarray:  # fmt: skip
    """Copies as training shows them, made by scipy: flip, rotation, scale, shift, gamma, noise (share of the range)."""
    rng = np.random.default_rng(seed)
    result = []
    for image in images:
        size, dimensions = np.array(image.shape[1:]), image.ndim - 1
        if dimensions == 2:
            angle = np.deg2rad(rng.uniform(-degrees, degrees))
            turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        else:
            axis = rng.normal(size=3)
            turn = Rotation.from_rotvec(
                axis / np.linalg.norm(axis) * np.deg2rad(rng.uniform(-degrees, degrees))
            ).as_matrix()
        matrix, centre = turn / (1 + rng.uniform(-scale, scale)), (size - 1) / 2
        offset = centre - matrix @ (centre + rng.uniform(-shift, shift, dimensions) * size)
        moved = np.stack([affine_transform(channel, matrix, offset, order=1, mode="nearest") for channel in image])
        if flip and rng.random() < 0.5:
            moved = np.flip(moved, axis=2 if dimensions == 2 else 1)
        unit = np.clip((moved + 1) / 2, 0, 1) ** (2 ** rng.uniform(-gamma, gamma))
        result.append(np.clip(unit * 2 - 1 + rng.normal(0, 2 * noise, unit.shape), -1, 1))
    return np.stack(result).astype(np.float32)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_altered_copies_are_found_and_named_and_new_images_are_not(dimensions: int) -> None:
    number, people = (10, 30) if dimensions == 2 else (3, 10)
    train, new = shapes(people, 0, dimensions), shapes(number, 1, dimensions)
    gallery = Gallery(train, [f"p{n}" for n in range(people)])
    threshold = suspicious_similarity(gallery, train, most=2 * number)
    found = gallery.nearest(altered(train[:number], 2))
    assert list(found.row) == list(range(number))
    assert (found.similarity > threshold).all()
    assert (gallery.nearest(new).similarity > threshold).mean() < 0.2


def test_the_mean_image_is_no_copy() -> None:
    """By distance the mean of all training images is nearer to each of them than any new image is."""
    train = shapes(30, 0)
    gallery = Gallery(train, [f"p{n}" for n in range(30)])
    mean = train.mean(axis=0, keepdims=True)
    threshold = suspicious_similarity(gallery, train, most=10)
    nearest = np.sqrt(((train - mean) ** 2).mean(axis=(1, 2, 3))).min()
    between = np.sqrt(((train - shapes(1, 5)) ** 2).mean(axis=(1, 2, 3))).min()
    assert nearest < between
    assert gallery.nearest(mean).similarity[0] < threshold


def test_an_image_equals_itself_and_is_passed_over_where_asked() -> None:
    train = shapes(6, 0)
    people = ["a", "a", "b", "b", "c", "c"]
    gallery = Gallery(train, people)
    found = gallery.nearest(train)
    assert list(found.row) == list(range(6))
    np.testing.assert_allclose(found.similarity, 1, atol=1e-3)
    others = gallery.nearest(train, without=people)
    assert all(people[row] != own for row, own in zip(others.row, people, strict=True))


def test_images_are_drawn_evenly_and_judged_by_person() -> None:
    people = np.array(["a"] * 10 + ["b"] * 3 + ["c"])
    rows = drawn(people, 100)
    assert [(people[rows] == name).sum() for name in "abc"] == [4, 3, 1]
    assert by_person(np.array([0.1, 0.7, 0.4]), ["b", "a", "b"]).tolist() == [0.7, 0.4]


def test_planted_copies_of_real_brains_are_found_and_real_people_are_not_accused(shared_data: Path) -> None:
    """95 % of altered copies at no more than 5 % of held-out people, a few slices of raw heads, roughly cropped."""
    folder = shared_data / "ixi_t1_2mm_rawhead"
    slices = []
    for path in sorted((folder / "t1").glob("*.nii.gz")):
        head = nibabel.as_closest_canonical(nibabel.load(path))
        mask = nibabel.load(folder / "brainmask" / path.name.replace("_T1", "_brainmask"))
        brain = np.asarray(nibabel.as_closest_canonical(mask).dataobj) > 0
        values = np.asarray(head.dataobj, dtype=np.float32)
        low, high = np.percentile(values[brain], [0.5, 99.5])
        values = np.where(brain, np.clip((values - low) / (high - low), 0, 1), 0) * 2 - 1
        x, y, z = (round(place) + 64 for place in np.argwhere(brain).mean(0))
        wide = np.pad(values, 64, constant_values=-1)
        slices.append(wide[x - 48 : x + 48, y - 56 : y + 56, z + 5].T[None])
    images = np.stack(slices)
    train, held_out = images[::2], images[1::2]
    gallery = Gallery(train, [str(n) for n in range(len(train))])
    threshold = suspicious_similarity(gallery, train, most=30)
    copies = gallery.nearest(altered(train[:20], 3))
    accused = gallery.nearest(held_out[:30]).similarity > threshold
    assert (copies.similarity > threshold).mean() >= 0.95
    assert accused.mean() <= 0.05
