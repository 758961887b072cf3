"""Diffusion MRI: gradient tables, shells, and the channels a network sees."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline_lib.errors import UserError

B0 = 50.0
"""Largest b-value, s/mm2, that counts as no diffusion weighting."""
HIGHEST = 50_000
"""s/mm2: no scanner weights more, so that larger values are in other units, such as s/m2."""
SHELL_WIDTH = 100.0
LARGEST_RATIO = 1.5
LARGEST_SPREAD = 0.5
"""Of the signal over b0 between the directions of a shell, which is 1 in a channel."""
LEAST_DIRECTIONS = 6
"""Of a shell, for its spread to be of the tissue and not of how they happen to lie: a tensor has six unknowns."""
LONGEST = 10_000_000
"""Bytes that are read of a gradient table."""
BRIGHTER = 1.25
"""Median of a weighted volume over that of b0, or of a shell over that of the one before, that does not occur."""
NOT_ITS_OWN = "scaled otherwise, or not the b-values of this series; give its own table, or leave out what is odd"
UNLIKE = 1.5
"""Factor between the medians of a volume and of its shell up to which directions may differ."""
TENSOR = 5
"""Dimensions of what a diffusion tensor can differ in between directions."""
FEWEST_DIRECTIONS = 10
TOLD, EXPLAINED = 0.08, 0.5
"""From which gain over chance directions are judged, and the part of it that a series' own explain: 0.93 or more of it
where measured (docs/preprocessing.md), 0.35 or less of it in another order."""
COMPARED = 5000
"""Voxels of a brain that are looked at."""
BEYOND_UNIT = 0.05
"""How far from 1 the length of a direction may be; it is rounding then, and taken away."""


@dataclass(frozen=True)
class Gradients:
    """b-values (V,) in s/mm2 and unit directions (V, 3) along the voxel axes, FSL's convention."""

    bvals: NDArray[np.float64]
    bvecs: NDArray[np.float64]


def read_gradients(bval: Path, bvec: Path, volumes: int, where: str) -> Gradients:
    """Read FSL's text files.

    Raises:
        UserError: a file is missing or not numbers, counts differ from the scan's volumes, a b-value is
            negative, or a weighted volume has no direction of unit length.
    """
    bvals, bvecs = (_numbers(path, where) for path in (bval, bvec))
    values = np.concatenate(bvals)
    vectors = np.stack(bvecs) if len(bvecs) == volumes and all(len(line) == 3 for line in bvecs) else None
    if vectors is None or volumes == 3:  # three rows, FSL's format, each perhaps over several lines
        joined = np.concatenate(bvecs)
        vectors = joined[: len(joined) // 3 * 3].reshape(3, -1).T
    return _checked(values, vectors, bval, bvec, volumes, where)


def _numbers(path: Path, where: str) -> list[NDArray[np.float64]]:
    """The numbers of each line that has any; n/a is NaN, commas separate as blanks do."""
    if not path.is_file():
        raise UserError(f"{where}: no such file {path.name}; correct the {path.suffix[1:]} column")
    try:
        text = path.read_bytes()[:LONGEST].decode("utf-8-sig").replace(",", " ").lower().replace("n/a", "nan")
        lines = [np.array([float(word) for word in line.split()]) for line in text.splitlines() if line.strip()]
    except OSError as error:
        raise UserError(f"{where}: {path.name} cannot be read ({error.strerror}); check its permissions") from None
    except ValueError:
        raise UserError(f"{where}: {path.name} is not a table of numbers; write FSL's format") from None
    if not lines:
        raise UserError(f"{where}: {path.name} is empty; give the file that belongs to this scan")
    return lines


def _checked(
    bvals: NDArray[np.float64], bvecs: NDArray[np.float64], bval: Path, bvec: Path, volumes: int, where: str
) -> Gradients:
    """Directions of unit length; those of unweighted volumes may be 0 or NaN, which becomes 0."""
    if len(bvals) != volumes or bvecs.shape != (volumes, 3):
        raise UserError(
            f"{where}: {volumes} volumes, but {len(bvals)} b-values in {bval.name} and {len(bvecs)} directions "
            f"in {bvec.name}; give the files that belong to this scan"
        )
    wrong = np.flatnonzero(~(np.isfinite(bvals) & (bvals >= 0) & (bvals <= HIGHEST)))
    if len(wrong):
        raise UserError(
            f"{where}: the b-value of volume {wrong[0]} (the first is 0) in {bval.name} is {bvals[wrong[0]]:g}; "
            "give b-values in s/mm2"
        )
    if 0 < bvals.max() <= B0:
        raise UserError(
            f"{where}: b-values up to {bvals.max():g} in {bval.name}, where no volume is weighted; give b-values in s/mm2"
        )
    weighted = bvals > B0
    bvecs = np.where(weighted[:, None], bvecs, np.nan_to_num(bvecs, posinf=0, neginf=0))
    length = np.linalg.norm(bvecs, axis=1)
    lost = np.flatnonzero(weighted & ~(length > BEYOND_UNIT))
    if len(lost):
        raise UserError(
            f"{where}: volume {lost[0]} (the first is 0) has b = {bvals[lost[0]]:g} and no direction in {bvec.name}; up to "
            f"b = {B0:g} a volume counts as unweighted and needs none: write 0 in {bval.name} where it is a b0, give its "
            "direction where it is not, and remove averages (trace images)"
        )
    wrong = np.flatnonzero(weighted & ~(np.abs(length - 1) <= BEYOND_UNIT))
    if len(wrong):
        raise UserError(
            f"{where}: volume {wrong[0]} (the first is 0) has b = {bvals[wrong[0]]:g} and a direction of length "
            f"{length[wrong[0]]:.3g} in {bvec.name}; give unit directions, and where the scanner wrote the weighting "
            "into their length, multiply b by its square"
        )
    return Gradients(bvals, bvecs / np.where(length > 0, length, 1)[:, None])


def turn(gradients: Gradients, before: NDArray[np.float64], after: NDArray[np.float64]) -> Gradients:
    """The same directions in the patient, along the voxel axes of another affine."""
    world = gradients.bvecs @ _axes(before).T
    turned: NDArray[np.float64] = world @ np.linalg.inv(_axes(after)).T
    return Gradients(gradients.bvals, np.round(turned, 12) + 0.0)  # + 0.0: no -0


def _axes(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where FSL's three axes point in the patient: along the voxels', the first negated where det > 0."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return axes * ([-1, 1, 1] if np.linalg.det(axes) > 0 else [1, 1, 1])


def write_gradients(stem: Path, gradients: Gradients) -> dict[str, str]:
    """Write FSL's ``<stem>.bval`` and ``<stem>.bvec``; their names as outputs."""
    names = {suffix: f"{stem.name}.{suffix}" for suffix in ("bval", "bvec")}
    np.savetxt(stem.with_name(names["bval"]), gradients.bvals[None], fmt="%g")
    np.savetxt(stem.with_name(names["bvec"]), gradients.bvecs.T, fmt="%.8g")
    return names


def shells(bvals: NDArray[np.float64]) -> dict[int, NDArray[np.intp]]:
    """b-value rounded to 100 s/mm2 -> volumes of the shell; 0 holds the unweighted ones.

    b-values closer than 100 s/mm2 to the one before belong to one shell.
    """
    order = np.argsort(bvals, kind="stable")
    weighted = order[bvals[order] > B0]
    found = {0: np.sort(order[bvals[order] <= B0])}
    breaks = np.flatnonzero(np.diff(bvals[weighted]) >= SHELL_WIDTH) + 1
    for members in np.split(weighted, breaks):
        if len(members):
            found[int(round(float(bvals[members].mean()) / 100) * 100)] = np.sort(members)
    return found


def mean_b0(data: NDArray[np.float32], bvals: NDArray[np.float64], where: str) -> NDArray[np.float32]:
    """Mean of the unweighted volumes of (X, Y, Z, V).

    Raises:
        UserError: there is none.
    """
    unweighted = shells(bvals)[0]
    if not len(unweighted):
        raise UserError(f"{where}: no volume with b up to {B0:g} s/mm2; a b0 is needed to normalise the signal")
    b0: NDArray[np.float32] = data[..., unweighted].mean(-1)
    return b0


def series_fault(data: NDArray[np.float32], bvals: NDArray[np.float64], mask: NDArray[np.bool_]) -> str:
    """Empty, or which volumes of (X, Y, Z, V) are not as bright in the brain as their b-values say.

    Diffusion weighting only takes signal away: by the medians within the brain, no weighted volume is brighter than
    b0, no shell than one of a smaller b, and no volume differs much from the others of its shell.
    """
    medians = np.median(data[mask], axis=0)
    found = {b: members for b, members in shells(bvals).items() if len(members)}
    level = {b: float(np.median(medians[members])) for b, members in found.items()}
    for b, members in found.items():
        odd = [n for n in members if not level[b] / UNLIKE <= medians[n] <= level[b] * UNLIKE]
        if odd and len(members) > 2:
            times = ", ".join(f"{medians[n] / level[b]:.3g}" if level[b] else "inf" for n in odd[:5])
            return (
                f"{_named(odd)} (the first is 0) {'is' if len(odd) == 1 else 'are'} {times} times as bright as the other "
                f"volumes of b = {b} (limit {UNLIKE:g}): {NOT_ITS_OWN}"
            )
    bright = [n for b, members in found.items() if b for n in members if medians[n] > BRIGHTER * level.get(0, np.inf)]
    if bright:
        return (
            f"{_named(bright)} (the first is 0) {'is' if len(bright) == 1 else 'are'} weighted and brighter than b0 "
            f"(limit {BRIGHTER:g} times): {NOT_ITS_OWN}"
        )
    weighted = sorted(b for b in found if b)
    for low, high in itertools.pairwise(weighted):
        if level[high] > BRIGHTER * level[low]:
            return f"b = {high} is brighter than b = {low} (limit {BRIGHTER:g} times): not the b-values of this series; give its own table"
    return ""


def directions_fault(data: NDArray[np.float32], gradients: Gradients, mask: NDArray[np.bool_]) -> str:
    """Empty, or the volumes of (X, Y, Z, V) whose directions are another series', or in another order.

    The log signal of a tensor is quadratic in the direction (Basser et al. 1994, doi:10.1006/jmrb.1994.1037): over a
    brain, what differs between the volumes of a shell lies in five dimensions that its directions span. Compared are the
    shares of the variance in those, in the five that hold the most, and, 5 / (volumes - 1), in five by chance. Axes that
    are exchanged or mirrored span the same and are not seen.
    """
    brain = data[mask].astype(np.float64)
    brain = brain[:: max(1, len(brain) // COMPARED)]
    for b, members in shells(gradients.bvals).items():
        signal = brain[:, members]
        floor = 0.02 * float(np.median(signal))
        if not b or len(members) < FEWEST_DIRECTIONS or floor <= 0:
            continue
        log = np.log(np.maximum(signal, floor))
        log -= log.mean(axis=1, keepdims=True)
        log -= log.mean(axis=0)
        variances = log.T @ log
        total = float(np.trace(variances))
        along = gradients.bvecs[members]
        products = np.stack([along[:, i] * along[:, j] for i in range(3) for j in range(i, 3)], axis=1)
        axes, sizes, _ = np.linalg.svd(products - products.mean(axis=0), full_matrices=False)
        axes = axes[:, :TENSOR][:, sizes[:TENSOR] > 1e-3 * sizes[0]]
        chance = axes.shape[1] / (len(members) - 1)
        theirs = float(np.trace(axes.T @ variances @ axes)) / max(total, 1e-12)
        most = float(np.linalg.eigvalsh(variances)[-axes.shape[1] :].sum()) / max(total, 1e-12)
        if most - chance > TOLD and theirs - chance < EXPLAINED * (most - chance):
            return (
                f"{_named(members.tolist())} of b = {b} (the first is 0): their directions explain {theirs:.0%} of what differs between "
                f"them, where {most:.0%} could be and {chance:.0%} are by chance: not the directions of this series, or in "
                "another order; give its own table"
            )
    return ""


def _named(volumes: list[int]) -> str:
    shown = ", ".join(str(n) for n in volumes[:5])
    return f"volume{'s' if len(volumes) > 1 else ''} {shown}{' ...' if len(volumes) > 5 else ''}"


def signal_channels(
    data: NDArray[np.float32],
    bvals: NDArray[np.float64],
    mask: NDArray[np.bool_],
    where: str,
    kind: Literal["shells", "moments", "directions"] = "shells",
) -> tuple[NDArray[np.float32], list[str]]:
    """What a network sees: b0 scaled by its 99th percentile in the brain, then the weighted signal over b0.

    Args:
        data: (X, Y, Z, V).
        mask: brain (X, Y, Z).
        kind: each shell's mean; each shell's mean and its spread, the standard deviation between directions, without
            which dispersion cannot be told; or every volume, ordered by shell and then as acquired.

    Returns:
        (X, Y, Z, C) in [0, 1], zero outside the brain, and the channels' names: ``b1000``, with spreads ``b1000-mean``
        and ``b1000-spread``, or ``b1000-v7`` of the volume 7 (the first is 0).

    Raises:
        UserError: no unweighted volume, no shell, or too few directions of one for its spread.
    """
    b0 = mean_b0(data, bvals, where)
    weighted = {b: members for b, members in shells(bvals).items() if b}
    if not weighted:
        raise UserError(f"{where}: no diffusion-weighted volume; give the whole series")
    top = max(float(np.percentile(b0[mask], 99)), 1e-6)
    floor = np.maximum(b0, 0.02 * top)

    def mean(members: NDArray[np.intp]) -> NDArray[np.float32]:
        return np.clip(data[..., members].mean(-1) / floor, 0, LARGEST_RATIO) / LARGEST_RATIO

    def spread(members: NDArray[np.intp]) -> NDArray[np.float32]:
        return np.clip(data[..., members].std(-1) / floor, 0, LARGEST_SPREAD) / LARGEST_SPREAD

    channels = {"b0": np.clip(b0 / top, 0, 1)}
    for b, members in weighted.items():
        if kind == "shells":
            channels[f"b{b}"] = mean(members)
        elif kind == "directions":
            channels |= {f"b{b}-v{n}": mean(np.array([n])) for n in members}
        elif len(members) < LEAST_DIRECTIONS:
            raise UserError(
                f"{where}: {len(members)} volumes of b = {b}, too few for their spread ({LEAST_DIRECTIONS} are needed); "
                "leave the scan out, or set preprocess.dwi_channels to shells"
            )
        else:
            channels |= {f"b{b}-mean": mean(members), f"b{b}-spread": spread(members)}
    return (np.stack(list(channels.values()), -1) * mask[..., None]).astype(np.float32), list(channels)
