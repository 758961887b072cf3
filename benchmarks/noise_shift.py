"""By how much the noise schedule of volumes must be shifted against that of slices, as Markdown, from images alone.

    python benchmarks/noise_shift.py results/preprocess/*/scans/*_space-MNI152_T1w.nii.gz

No network: the best linear denoiser of stationary images, Wiener's, leaves the share sum P / (1 + snr P) / sum P of the
variance between people unexplained, P their power spectrum in units of white noise of variance 1. The table has the log SNR
at which it leaves 90, 70, 50, 30 % and, against slices of 2 mm, by how much that is shifted.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline_lib.diffusion.schedule import log_snr_shift
from pipeline_lib.imaging.nifti import read_volume

LEFT = (0.9, 0.7, 0.5, 0.3)
LOG_SNR = np.linspace(-14, 10, 193)
SLICES_MM = (-10, 0, 10, 20, 30, 40)


def unexplained(images: NDArray[np.float32]) -> NDArray[np.float64]:
    """Share of the variance of (people, *spatial) around their mean that is left, at each of LOG_SNR."""
    difference = images - images.mean(0)
    power = np.abs(np.fft.fftn(difference, axes=range(1, images.ndim))) ** 2 / difference[0].size
    spectrum = power.mean(0).ravel()
    share: NDArray[np.float64] = (spectrum / (1 + np.exp(LOG_SNR)[:, None] * spectrum)).sum(1) / spectrum.sum()
    return share


def halved(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """(people, *spatial) in voxels of twice the size."""
    for axis in range(1, images.ndim):
        even = np.take(images, np.arange(images.shape[axis] // 2 * 2), axis)
        images = even.reshape(*even.shape[:axis], -1, 2, *even.shape[axis + 1 :]).mean(axis + 1)
    return images


def main(paths: Sequence[Path]) -> None:
    """Print the table of scans that share a grid of 2 mm, in [0, 1]."""
    volumes = [read_volume(path) for path in paths]
    heads = 2 * np.stack([volume.data for volume in volumes]) - 1
    affine = volumes[0].affine
    levels = [round((mm - affine[2, 3]) / affine[2, 2]) for mm in SLICES_MM]
    kinds = {}
    for name, shrink in (("2 mm", lambda x: x), ("4 mm", halved)):
        cut = [shrink(heads[..., level]) for level in levels]
        kinds[f"slices, {name}"] = cut[0].shape[1:], np.mean([unexplained(images) for images in cut], axis=0)
        whole = shrink(heads)
        kinds[f"volumes, {name}"] = whole.shape[1:], unexplained(whole)
    base = next(iter(kinds.values()))[1]
    print(
        f"{len(paths)} people\n\n| images | size | " + " | ".join(f"{left:.0%} left" for left in LEFT) + " | `auto` |"
    )
    print("|---|---|" + "---:|" * (len(LEFT) + 1))
    for name, (size, curve) in kinds.items():
        cells = []
        for left in LEFT:
            here, there = (np.interp(-left, -shares, LOG_SNR) for shares in (curve, base))
            cells.append(f"{here:.1f} ({here - there:+.1f})")
        print(f"| {name} | {' x '.join(map(str, size))} | {' | '.join(cells)} | {log_snr_shift(size):.1f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", type=Path, nargs="+")
    main(parser.parse_args().scans)
