"""How near AMICO's NODDI maps come to known ones, and how long it takes, as Markdown.

    python benchmarks/noddi.py SHARED_DATA > docs/noddi.md

SHARED_DATA holds dmri_multishell_patch (bvals, bvecs, dwi.nii.gz, mask.nii.gz) and mdt_noddi_slice.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from pipeline_lib.cohort.diffusion_mri import simulate
from pipeline_lib.cohort.synthetic import make_cohort
from pipeline_lib.imaging.dwi import Gradients
from pipeline_lib.imaging.ingest import NODDI_MAPS
from pipeline_lib.imaging.nifti import Volume, read_volume
from pipeline_lib.imaging.noddi import fit_noddi

BRAIN_VOXELS = 1_400_000 // 8
"""Of a brain of 1.4 L in voxels of 2 mm."""
FREE_WATER = 0.8
"""Where more of a voxel is free water, ICVF and ODI are not determined."""

TEXT = """# NODDI maps by AMICO

`preprocess.noddi: amico` fits ICVF, ODI and ISOVF to multi-shell diffusion MRI with AMICO (Daducci et al. 2015), on one
thread a scan. Printed by `python benchmarks/noddi.py SHARED_DATA`, AMICO {version}.

Mean absolute error (and correlation) in voxels that are not mostly free water (ISOVF up to {water:g}):

| signal simulated from | b0 + directions a shell | noise | voxels | {maps} |
|---|---|---|---:|{bars}
{rows}

The first row is how AMICO and the simulation agree; the second what noise and few directions cost. In the third, a voxel of
the scan holds several of the known maps, whose mean is not what a fit of the mixed signal gives. The fourth takes maps of a
real brain that MDT fitted; their scan does not come with them, so the signal is simulated and MDT is not judged.

A scan in vivo ([MRtrix3's test data](https://github.com/MRtrix3/test_data), b 700, 1200, 2800; {patch_voxels:,} voxels),
5th, 50th and 95th percentile: {ranges}.

Time on one core: {start:.0f} s for the response functions, then {rate:,.0f} voxels a second ({measured:,} voxels, {volumes}
volumes), so {brain:.0f} s for a brain of 1.4 L at 2 mm.
"""


@dataclass(frozen=True)
class Known:
    """A signal (X, Y, Z, V), its gradients, and the maps (3, X, Y, Z) it was simulated from."""

    name: str
    noise: str
    series: Volume
    gradients: Gradients
    maps: NDArray[np.float64]
    mask: NDArray[np.bool_]

    def row(self) -> str:
        """Cells of the table."""
        fitted = np.moveaxis(fit_noddi(self.series, self.gradients, self.mask, self.name).data, -1, 0)
        tissue = self.mask & (self.maps[2] <= FREE_WATER)
        cells = [
            f"{np.abs(found - known)[tissue].mean():.3f} ({np.corrcoef(found[tissue], known[tissue])[0, 1]:.2f})"
            for found, known in zip(fitted, self.maps, strict=True)
        ]
        unweighted = int((self.gradients.bvals == 0).sum())
        counts = [str(n) for n in np.unique(self.gradients.bvals, return_counts=True)[1][1:]]
        acquired = f"{unweighted} + {', '.join(counts)}"
        return f"| {self.name} | {acquired} | {self.noise} | {tissue.sum():,} | {' | '.join(cells)} |"


def simulated(
    name: str, maps: NDArray[np.float64], mask: NDArray[np.bool_], gradients: Gradients, sigma: float = 0.0
) -> Known:
    """Maps and their signal, with Rician noise of ``sigma`` times S0."""
    random = np.random.default_rng(0)
    signal = simulate(maps, gradients.bvals, gradients.bvecs, random)
    if sigma:
        signal = np.hypot(
            signal + sigma * random.standard_normal(signal.shape), sigma * random.standard_normal(signal.shape)
        )
    series = Volume(signal.astype(np.float32), np.eye(4))
    return Known(name, f"{sigma:.0%}" if sigma else "none", series, gradients, maps, mask)


def person(folder: Path, protocol: Gradients) -> list[Known]:
    """A person of the embedded cohort: as known, with noise, and as its scan is."""
    scans = {scan.modality: scan for scan in make_cohort(folder, [1], root=folder)}
    dwi, noddi = scans["dwi"], scans["noddi"]
    fine, coarse = nib.load(folder / noddi.path), nib.load(folder / dwi.path)
    maps = np.moveaxis(fine.get_fdata(), -1, 0)
    mask = nib.load(folder / noddi.mask).get_fdata() > 0
    few = Gradients(np.loadtxt(folder / dwi.bval), np.loadtxt(folder / dwi.bvec).T)
    steps = np.array(mask.shape) // coarse.shape[:3]
    blocks = maps.reshape(3, coarse.shape[0], steps[0], coarse.shape[1], steps[1], coarse.shape[2], steps[2])
    inside = nib.load(folder / dwi.mask).get_fdata() > 0
    series = Volume(coarse.get_fdata(dtype=np.float32), coarse.affine)
    return [
        simulated("a synthetic person's maps", maps, mask, protocol),
        simulated("the same", maps, mask, few, 0.02),
        Known("the scan of the synthetic person", "2%", series, few, blocks.mean((2, 4, 6)), inside),
    ]


def real_maps(folder: Path, protocol: Gradients) -> Known:
    """Maps that MDT fitted to a slice of a brain; it stored kappa / 10."""
    w_ic, w_ec, w_csf, kappa = (
        nib.load(folder / "NODDI" / f"{name}.nii.gz").get_fdata()[..., 0]
        for name in ("w_ic.w", "w_ec.w", "w_csf.w", "NODDI_IC.kappa")
    )
    mask = nib.load(folder / "mask.nii.gz").get_fdata() > 0
    icvf = np.where(mask, w_ic / np.maximum(w_ic + w_ec, 1e-6), 0)
    odi = np.clip(2 / np.pi * np.arctan2(1, 10 * kappa), 0.02, 0.98)
    return simulated("maps of a real slice (MDT)", np.stack([icvf, odi, w_csf]), mask, protocol)


def seconds(known: Known, voxels: int) -> float:
    """CPU seconds of a fit."""
    chosen = np.zeros(known.mask.size, bool)
    chosen[np.flatnonzero(known.mask)[:voxels]] = True
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    fit_noddi(known.series, known.gradients, chosen.reshape(known.mask.shape), known.name)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def ranges(folder: Path) -> tuple[int, str]:
    """Voxels of the real patch, and percentiles of its maps."""
    series, mask = read_volume(folder / "dwi.nii.gz"), read_volume(folder / "mask.nii.gz").data > 0
    gradients = Gradients(np.loadtxt(folder / "bvals"), np.loadtxt(folder / "bvecs").T)
    maps = fit_noddi(series, gradients, mask, folder.name).data[mask]
    cells = [
        f"{name} {', '.join(f'{value:.2f}' for value in np.percentile(maps[:, channel], [5, 50, 95]))}"
        for channel, name in enumerate(NODDI_MAPS)
    ]
    return int(mask.sum()), "; ".join(cells)


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path)
    shared = parser.parse_args().shared
    slices = shared / "mdt_noddi_slice"
    protocol = Gradients(*(np.loadtxt(slices / f"b1k_b2k.{kind}").T for kind in ("bval", "bvec")))
    with tempfile.TemporaryDirectory() as folder:
        tests = [*person(Path(folder), protocol), real_maps(slices, protocol)]
    few, many = 1_000, 21_000
    start, whole = (seconds(tests[0], voxels) for voxels in (few, many))
    rate = (many - few) / (whole - start)
    patch_voxels, percentiles = ranges(shared / "dmri_multishell_patch")
    print(
        TEXT.format(
            version=version("dmri-amico"),
            water=FREE_WATER,
            maps=" | ".join(NODDI_MAPS),
            bars="---|" * len(NODDI_MAPS),
            rows="\n".join(test.row() for test in tests),
            patch_voxels=patch_voxels,
            ranges=percentiles,
            start=start - few / rate,
            rate=rate,
            measured=many,
            volumes=len(protocol.bvals),
            brain=start + (BRAIN_VOXELS - few) / rate,
        ),
        end="",
    )


if __name__ == "__main__":
    main()
