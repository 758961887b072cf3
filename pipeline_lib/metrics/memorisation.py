"""Did the model copy its training images?

A copy rarely comes back voxel by voxel: training shows images flipped, turned, scaled, shifted and with other
intensities, and a model gives them back so, with noise. A pixel distance misses all of these, and calls a
blurred mean image near to everybody. Here every image is looked up in the training set in two steps:

1. Coarse: small images of the *detail* (what remains after a wide blur is taken away, each place in units of its own
   contrast: gamma and a smooth bias do not change it) are compared in all flips and a grid of turns, scales and shifts.
2. Fine: the best few candidates are aligned by a similarity transform (inverse compositional Gauss-Newton, Baker
   and Matthews 2004), and the correlation of their detail, given what all training images share, is the *similarity*.

How alike two people are by chance is measured within the training set, each person against all others. An
image more like a training image than that is a suspected copy; the share of held-out real people who are
"suspected" says how far to trust it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

FINE = {2: 80, 3: 40}
"""Largest side of the images that are aligned, by number of dimensions, voxels."""
COARSE = {2: 32, 3: 20}
"""Largest side of the images that are looked up."""
TURNS = {2: (-0.09, -0.03, 0.03, 0.09), 3: (-0.07, 0.0, 0.07)}
"""Rotations tried about every axis, radians: 6 degrees are .105."""
SCALES = (0.93, 1.0, 1.07)
SHIFTS = (-0.04, 0.0, 0.04)
"""Fractions of a side (2D); a volume is looked up unshifted."""
NARROW, WIDE = 0.7, 2.0
"""Standard deviations of the two blurs whose difference is the detail, voxels."""
CANDIDATES = 24, 3
"""References aligned as small images, and of these as larger ones."""
ITERATIONS = 8
BLOCK = 256
EACH = 4
CHANCE, MARGIN = 97.0, 0.25
"""A copy is suspected from the similarity that this percentile of training people have with somebody else, and this share
of what is missing to 1 on top: real people lie below, copies come back close to 1."""

Images = NDArray[np.floating]
"""Arrays ``(N, C, *spatial)``, or what looks like one: rows are read by slice or by an array of places."""


@dataclass(frozen=True)
class Nearest:
    """For each query its most similar reference: their similarity in [-1, 1] ``(N,)`` and its row ``(N,)``."""

    similarity: NDArray[np.float64]
    row: NDArray[np.int64]


class Gallery:
    """Reference images described once, in which many queries are looked up.

    Args:
        images: ``(N, C, *spatial)`` in 2D or 3D, read when needed; channels are averaged.
        people: whose image each is, ``(N,)``; needed to look up without a person's own images.
    """

    def __init__(self, images: Images, people: Sequence[str] | None = None) -> None:
        self.dimensions = len(images.shape) - 2
        self.people = None if people is None else np.asarray(people, dtype=str)
        self._images = images
        blocks = [self._shrunk(images[start : start + BLOCK]) for start in range(0, len(images), BLOCK)]
        self._small = torch.cat(blocks)
        self._described = torch.cat([_unit(_detail(block)).flatten(1) for block in blocks])
        some = np.linspace(0, len(images) - 1, min(len(images), BLOCK)).round().astype(int)
        mean = _unit(_detail(_reduced(images[some], FINE[self.dimensions]))).mean(dim=0, keepdim=True)
        self._common = _unit(mean)

    def nearest(self, queries: Images, without: Sequence[str] | NDArray[np.str_] | None = None) -> Nearest:
        """The most similar reference of each query ``(N, C, *spatial)``.

        Args:
            queries: images of the references' shape.
            without: for each query a person whose references are passed over, ``(N,)``; there must be others.
        """
        similarity, row = np.empty(len(queries)), np.empty(len(queries), dtype=np.int64)
        for number in range(len(queries)):
            image = _reduced(queries[number : number + 1], FINE[self.dimensions])
            own = None
            if without is not None and self.people is not None:
                own = torch.from_numpy(self.people == without[number])
            similarity[number], row[number] = self._look_up(image, own)
        return Nearest(similarity, row)

    def _shrunk(self, images: Images) -> Tensor:
        return _pooled(_reduced(images, FINE[self.dimensions]), COARSE[self.dimensions])

    def _look_up(self, image: Tensor, passed_over: Tensor | None) -> tuple[float, int]:
        """Similarity to, and row of, the best reference: searched for, aligned while small, then aligned."""
        transforms = _search(image.shape[2:])
        described = _unit(_detail(_pooled(_warp(image, transforms), COARSE[self.dimensions])))
        scores, which = (described.flatten(1) @ self._described.T).max(dim=0)
        allowed = torch.arange(len(scores)) if passed_over is None else torch.nonzero(~passed_over)[:, 0]
        rows = allowed[scores[allowed].topk(min(CANDIDATES[0], len(allowed))).indices]
        small, moved = _pooled(image, COARSE[self.dimensions]), transforms[which[rows]]
        for width in (2.0, 1.0):  # the wider detail draws from further away
            values, moved = _align(_detail(small, width), _detail(self._small[rows], width), moved)
        best = values.topk(min(CANDIDATES[1], len(values))).indices
        rows, moved = rows[best], moved[best]
        large = _detail(_reduced(self._images[rows.numpy()], FINE[self.dimensions]))
        _, moved = _align(_detail(image), large, moved)
        similarity = self._beyond_common(_unit(_warp(_detail(image), moved)), _unit(large), _noise_share(image))
        place = int(similarity.argmax())
        return float(similarity[place].clamp(-1, 1)), int(rows[place])

    def _beyond_common(self, images: Tensor, references: Tensor, noise: float) -> Tensor:
        """Partial correlation ``(K,)`` of aligned details of unit length, given the detail that all references share.

        The outline of the head is everybody's, and a blurred mean image shares it with all.
        """
        freed = (1 - noise) ** 0.5
        own = _dot(images, references) / freed
        with_image = (_dot(images, self._common) / freed).clamp(-0.99, 0.99)
        with_reference = _dot(references, self._common).clamp(-0.99, 0.99)
        return (own - with_image * with_reference) / ((1 - with_image**2) * (1 - with_reference**2)).sqrt()


def suspicious_similarity(gallery: Gallery, images: Images, most: int = 300, seed: int = 0) -> float:
    """The similarity from which on a copy is suspected: more than different people of the training set reach by chance.

    With one person only there is nobody to be like by chance: only what equals an image is suspected.

    Args:
        gallery: of the training set, with ``people``.
        images: the same images, ``(N, C, *spatial)``.
        most: images looked up, up to four of a person, drawn at random.
        seed: of that draw.

    Raises:
        ValueError: the gallery does not know whose images it holds.
    """
    if gallery.people is None:
        raise ValueError("the gallery does not know whose images it holds; give it people")
    if len(set(gallery.people)) < 2:
        return 1.0
    rows = drawn(gallery.people, most, seed)
    people = gallery.people[rows]
    others = by_person(gallery.nearest(images[rows], without=people).similarity, people)
    chance = float(np.percentile(others, CHANCE))
    return chance + MARGIN * (1 - chance)


def drawn(people: NDArray[np.str_], most: int, seed: int = 0) -> NDArray[np.intp]:
    """Rows of at most ``most`` images, up to four of a person, drawn at random; sorted."""
    rng = np.random.default_rng(seed)
    rows: list[np.intp] = []
    for name in rng.permutation(np.unique(people)):
        rows += list(rng.permutation(np.flatnonzero(people == name))[:EACH])
    return np.sort(np.array(rows[:most], dtype=np.intp))


def by_person(similarity: NDArray[np.float64], people: Sequence[str] | NDArray[np.str_]) -> NDArray[np.float64]:
    """The highest similarity among each person's images, people in alphabetical order."""
    names, places = np.unique(people, return_inverse=True)
    highest = np.full(len(names), -np.inf)
    np.maximum.at(highest, places, similarity)
    return highest


def _reduced(images: Images, largest: int) -> Tensor:
    """Grey images ``(N, 1, *spatial)`` averaged down to at most ``largest`` voxels an axis."""
    return _pooled(torch.from_numpy(np.array(images, dtype=np.float32)).mean(dim=1, keepdim=True), largest)


def _pooled(images: Tensor, largest: int) -> Tensor:
    factor = min(1.0, largest / max(images.shape[2:]))
    size = [max(1, round(length * factor)) for length in images.shape[2:]]
    pool = {4: nn.AdaptiveAvgPool2d, 5: nn.AdaptiveAvgPool3d}[images.ndim]
    pooled: Tensor = pool(tuple(size))(images)
    return pooled


def _detail(images: Tensor, width: float = 1.0) -> Tensor:
    """What a wide blur leaves, in units of its own local size, ``(N, 1, *spatial)``; both blurs ``width`` times as wide."""
    fine, scale = _fine_and_scale(images, width)
    return fine / scale


def _fine_and_scale(images: Tensor, width: float = 1.0) -> tuple[Tensor, Tensor]:
    """The difference of a narrow and a wide blur, and its local size with half of the image's as a floor."""
    fine = _blurred(images, width * NARROW) - _blurred(images, width * WIDE)
    typical = fine.square().mean(dim=tuple(range(1, images.ndim)), keepdim=True).sqrt()
    local = _blurred(fine.square(), width * WIDE).clamp(min=0).sqrt()
    return fine, (local + 0.5 * typical).clamp(min=1e-6)


def _blurred(images: Tensor, sigma: float) -> Tensor:
    reach = max(1, round(3 * sigma))
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    weights = weights / weights.sum()
    convolve = {4: nn.functional.conv2d, 5: nn.functional.conv3d}[images.ndim]
    for axis in range(2, images.ndim):
        padding = [0, 0] * (images.ndim - 1 - axis) + [reach, reach] + [0, 0] * (axis - 2)
        shape = [1] * images.ndim
        shape[axis] = len(weights)
        images = convolve(nn.functional.pad(images, padding, mode="replicate"), weights.reshape(shape))
    return images


def _unit(images: Tensor) -> Tensor:
    spatial = tuple(range(1, images.ndim))
    centred = images - images.mean(dim=spatial, keepdim=True)
    return centred / centred.square().sum(dim=spatial, keepdim=True).sqrt().clamp(min=1e-6)


def _dot(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).flatten(1).sum(dim=1)


def _generators(size: Sequence[int]) -> Tensor:
    """Rotations, scale and shifts ``(G, d + 1, d + 1)``, rigid in voxels, in the coordinates of ``grid_sample``.

    Those run from -1 to 1 along each axis, the last axis first.
    """
    dimensions = len(size)
    half = torch.tensor(list(reversed(size)), dtype=torch.float32) / max(size)
    found = []
    for one, other in itertools.combinations(range(dimensions), 2):
        turn = torch.zeros(dimensions + 1, dimensions + 1)
        turn[one, other], turn[other, one] = -half[other] / half[one], half[one] / half[other]
        found.append(turn)
    scale = torch.zeros(dimensions + 1, dimensions + 1)
    scale[range(dimensions), range(dimensions)] = 1.0
    found.append(scale)
    for axis in range(dimensions):
        shift = torch.zeros(dimensions + 1, dimensions + 1)
        shift[axis, dimensions] = 1.0
        found.append(shift)
    return torch.stack(found)


def _search(size: Sequence[int]) -> Tensor:
    """The transforms of the coarse step ``(V, d, d + 1)``: no flip or one, with every turn, scale and shift."""
    dimensions = len(size)
    generators = _generators(size)
    turns = dimensions * (dimensions - 1) // 2
    ranges: list[Sequence[float]] = [TURNS[dimensions]] * turns + [[float(np.log(scale)) for scale in SCALES]]
    ranges += [[2 * shift for shift in SHIFTS] if dimensions == 2 else [0.0]] * dimensions
    weights = torch.tensor(list(itertools.product(*ranges)))
    moved = torch.linalg.matrix_exp((weights[..., None, None] * generators).sum(dim=1))
    return torch.cat([moved @ flip for flip in _flips(dimensions)])[:, :dimensions]


def _flips(dimensions: int) -> Iterator[Tensor]:
    yield torch.eye(dimensions + 1)
    for axis in range(dimensions):
        flip = torch.eye(dimensions + 1)
        flip[axis, axis] = -1.0
        yield flip


def _warp(image: Tensor, transforms: Tensor) -> Tensor:
    """One image ``(1, 1, *spatial)`` under each transform ``(K, d, d + 1)``: ``(K, 1, *spatial)``."""
    images = image.expand(len(transforms), *image.shape[1:])
    grid = nn.functional.affine_grid(transforms, list(images.shape), align_corners=False)
    return nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _align(image: Tensor, references: Tensor, transforms: Tensor) -> tuple[Tensor, Tensor]:
    """Correlation ``(K,)`` of one image's detail with that of each reference, once aligned, and the transforms.

    Inverse compositional Gauss-Newton over similarity transforms from ``transforms`` ``(K, d, d + 1)`` on;
    the best correlation on the way counts.
    """
    dimensions, size = image.ndim - 2, image.shape[2:]
    bottom = torch.eye(dimensions + 1)[-1:].expand(len(references), 1, -1)
    current = torch.cat([transforms, bottom], dim=1)
    target, generators = _unit(references), _generators(size)
    steepest = _steepest(target, generators)
    hessian = steepest @ steepest.mT
    damping = 1e-3 * hessian.diagonal(dim1=1, dim2=2).mean(dim=1).clamp(min=1e-12)
    hessian = hessian + damping[:, None, None] * torch.eye(len(generators))
    best, kept = torch.full((len(references),), -1.0), current
    for _ in range(ITERATIONS):
        warped = _unit(_warp(image, current[:, :dimensions]))
        correlation = (warped * target).flatten(1).sum(dim=1)
        kept = torch.where((correlation > best)[:, None, None], current, kept)
        best = torch.maximum(best, correlation)
        error = correlation.clamp(min=0.1)[:, None] * warped.flatten(1) - target.flatten(1)
        step = torch.linalg.solve(hessian, steepest @ error[..., None])[..., 0].clamp(-0.1, 0.1)
        current = current @ torch.linalg.matrix_exp(-(step[..., None, None] * generators).sum(dim=1))
    return best, kept[:, :dimensions]


def _steepest(images: Tensor, generators: Tensor) -> Tensor:
    """How images ``(K, 1, *spatial)`` change with each generator: ``(K, G, voxels)``."""
    dimensions, size = images.ndim - 2, images.shape[2:]
    identity = torch.eye(dimensions + 1)[None, :dimensions]
    points = nn.functional.affine_grid(identity, [1, 1, *size], align_corners=False).reshape(-1, dimensions)
    points = torch.cat([points, torch.ones(len(points), 1)], dim=1)
    moves = torch.einsum("gij,pj->gpi", generators[:, :dimensions], points)
    gradient = torch.stack(torch.gradient(images[:, 0], dim=tuple(range(1, 1 + dimensions))), dim=-1)
    gradient = (gradient * torch.tensor(size) / 2).flip(-1).flatten(1, -2)
    return torch.einsum("kpi,gpi->kgp", gradient, moves)


def _noise_share(image: Tensor) -> float:
    """The share of white noise in the energy of an image's detail, at most a half.

    Noise in one of two images lowers their correlation by the square root of what it leaves (Spearman 1904).
    Its standard deviation is the median of the finest diagonal Haar coefficients over .6745 (Donoho 1994).
    """
    haar = image
    for axis in range(2, image.ndim):
        length = haar.shape[axis] // 2 * 2
        even, odd = (haar.narrow(axis, 0, length).unfold(axis, 2, 2)[..., part] for part in (0, 1))
        haar = (even - odd) / 2**0.5
    sigma = float(haar.abs().median()) / 0.6745
    impulse = torch.zeros_like(image)
    impulse[(0, 0, *(length // 2 for length in image.shape[2:]))] = 1.0
    gain = float((_blurred(impulse, NARROW) - _blurred(impulse, WIDE)).square().sum())
    fine, scale = _fine_and_scale(image)
    noise, whole = gain * sigma**2 * float((1 / scale).square().mean()), float((fine / scale).square().mean())
    return min(0.5, noise / max(whole, 1e-12))
